"""The real trio on disk: stage after stage, each kept, so that an interrupted build goes on where it stopped."""

import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from platformdirs import user_cache_dir

from vlsurgery.probes.models.dtypes import WORTHWHILE, default_device, speedup
from vlsurgery.probes.specimens.miniature.training import reproducible_torch
from vlsurgery.probes.specimens.smollm2 import source, stages
from vlsurgery.probes.specimens.smollm2.config import TrioConfig
from vlsurgery.probes.specimens.smollm2.stages import STAGES
from vlsurgery.probes.specimens.smollm2.workshop import Workshop
from vlsurgery.surgery.errors import CheckpointError
from vlsurgery.surgery.runtime.locks import lock
from vlsurgery.surgery.runtime.progress import Progress, no_progress

REPORT = "stage.json"
PARTIAL = ".partial"  # a stage's directory until it is whole


@dataclass(frozen=True)
class RealTrio:
    """A real trio on disk.

    root: its directory. trajectory: the adapted model on its way, step -> checkpoint; the last is `adapted`. mild,
    safety: two doses of safety tuning. story: of each stage what it reports, and its seconds and dtype.
    """

    root: Path
    base: Path
    adapted: Path
    mild: Path
    safety: Path
    trajectory: dict[int, Path]
    seed: int
    story: dict[str, Any]

    @property
    def dpo(self) -> Path:
        """Preference tuning in place of the safety tuning; made by `build_alternatives`."""
        return self.root / "preference"

    @property
    def mixed(self) -> Path:
        """Adaptation with safety data from the start; made by `build_alternatives`."""
        return self.root / "mixed"


def build(
    seed: int = 0,
    cache: Path | None = None,
    progress: Progress = no_progress,
    config: TrioConfig | None = None,
    device: str | None = None,
) -> RealTrio:
    """The trio of a seed: what is in the cache, and the missing stages trained now.

    cache: the directory that holds real trios; by default `vlsurgery/smollm2` under the user's cache directory. About
    fifteen minutes on one idle core that multiplies bfloat16, and 5 GB. A stage that is interrupted leaves nothing that
    the next build doesn't remove, and stages before it stay. Raises CheckpointError where the source is nowhere to be
    had, or another process builds the same trio.
    """
    config, cache = config or TrioConfig(), cache or default_cache()
    raw = source.find(cache)
    root = cache / config.hash(raw.name) / f"seed-{seed}"
    root.mkdir(parents=True, exist_ok=True)
    device = device or default_device()
    work = Workshop(config, seed, root, raw, device, _dtype(device), progress)
    run_missing(work, STAGES)
    return _trio(work)


def default_cache() -> Path:
    return Path(user_cache_dir("vlsurgery")) / "smollm2"


def _dtype(device: str) -> torch.dtype:
    """bfloat16 where the device multiplies it fast, else float32."""
    fast = device != "cpu" or speedup(torch.bfloat16) >= WORTHWHILE
    return torch.bfloat16 if fast else torch.float32


def run_missing(work: Workshop, todo: Sequence[tuple[str, stages.Stage]]) -> None:
    """Run the stages that are not there, each into a directory that gets its name when it is whole."""
    with _alone(work.root):
        _run(work, todo)


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Keep other builds out of a trio's directory, and remove what a killed one left there.

    Raises CheckpointError where another build is at work. Where the system has no such locks, nobody is kept out and
    nothing is removed.
    """
    if not hasattr(os, "O_DIRECTORY"):
        yield
        return
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        held = lock(descriptor)
        if held == "taken":
            raise CheckpointError(f"{root}: another process builds this trio. Wait until it is done, and start again.")
        if held == "ours":
            for left in root.glob(f"*{PARTIAL}"):
                shutil.rmtree(left)
        yield
    finally:
        os.close(descriptor)


def _run(work: Workshop, todo: Sequence[tuple[str, stages.Stage]]) -> None:
    for at, (name, stage) in enumerate(todo, 1):
        if (work.root / name).is_dir():
            continue
        shown = replace(work, progress=_numbered(work.progress, f"stage {at} of {len(todo)}: "))
        with tempfile.TemporaryDirectory(prefix=f"{name}-", suffix=PARTIAL, dir=work.root) as folder:
            out, began = Path(folder) / name, time.perf_counter()
            out.mkdir()
            with reproducible_torch(work.seed):
                report = stage(shown, out)
            told = {**report, "seconds": round(time.perf_counter() - began, 1), "dtype": str(work.dtype)}
            (out / REPORT).write_text(json.dumps(told, indent=1) + "\n")
            out.rename(work.root / name)


def _numbered(progress: Progress, before: str) -> Progress:
    """Progress whose labels begin with the number of the stage."""

    def shown(items: Any, label: str, total: int | None = None) -> Any:
        return progress(items, before + label, total)

    return shown


def _trio(work: Workshop) -> RealTrio:
    root, config = work.root, work.config
    trajectory = {step: root / "adaptation" / f"step-{step}" for step in config.adaptation.kept}
    mild, strong = (root / "safety" / f"step-{step}" for step in config.safety.kept)
    story = {name: json.loads((root / name / REPORT).read_text()) for name, _ in STAGES}
    return RealTrio(root, root / "base", list(trajectory.values())[-1], mild, strong, trajectory, work.seed, story)
