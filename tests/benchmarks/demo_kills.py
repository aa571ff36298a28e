"""Whether `vlsurgery demo --real` goes on where it was killed: in training, in probe, in merge.

Run it as `python tests/benchmarks/demo_kills.py`. Everything is the command's own but for the size: stages that would
train SmolLM2-135M copy a tiny trio that was trained for this, and the requests are about its few things. The command
runs once without a break. Then it is begun elsewhere, killed three times with SIGKILL, each time by itself at the
moment named, and given again: it must end with 0, do nothing again that was whole, and leave the same bytes, less times
of day.
"""

import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from kills import Run, digests, on_change, whole
from tiny_trio import make_trio, write_prompts

from vlsurgery.surgery.checkpoint.digests import file_digest

THINGS: Final = 6
COMMAND: Final = ("demo", "--real", "--case", "case", "--quiet")
KEPT: Final = ("answers", "base", "tower", "projector", "adaptation", "safety")  # stages, in their order


def stand_in(tiny: Path, cache: Path) -> None:
    """Have this process build its real trio in `cache` of the checkpoints in `tiny`, and ask about its things."""
    from vlsurgery.probes.prompts import load_prompt_files
    from vlsurgery.probes.specimens import smollm2
    from vlsurgery.probes.specimens.smollm2 import source

    build: Any = import_module("vlsurgery.probes.specimens.smollm2.build")  # the package has a function of that name

    def stage(_work: Any, out: Path, name: str) -> dict[str, int]:
        role = {"adaptation": "adapted", "safety": "safety"}.get(name, "base")
        steps = {"adaptation": (0, 5, 10, 20, 40, 80), "safety": (8, 24)}.get(name, ())
        for folder in [out / f"step-{step}" for step in steps] or [out]:
            shutil.copytree(tiny / role, folder, dirs_exist_ok=True)
        return {"steps": len(steps)}

    words = write_prompts(tiny, THINGS)
    asked = load_prompt_files([word for word in words if word != "--prompts"], 0, None).prompts
    smollm2.prompts = lambda: asked
    source.find = lambda _cache: tiny / "base"
    build.default_cache = lambda: cache
    build.STAGES = tuple((name, partial(stage, name=name)) for name in KEPT)


def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def in_training() -> None:
    """While the third of adaptation's checkpoints is written."""
    on_change_anywhere(lambda path: "adaptation-" in path and "step-10" in path)


def in_probe() -> None:
    """When directions are there, and blocks are to be told apart."""
    from vlsurgery.probes import probe

    probe.attributed = lambda *_: killed()


def in_merge() -> None:
    """While the merged checkpoint is written."""
    on_change_anywhere(lambda path: "merged.partial" in path and path.endswith(".json"))


def on_change_anywhere(is_it: Callable[[str], bool]) -> None:
    """Kill this process before it changes a file that is meant."""
    here = Path.cwd()
    os.chdir(here.parent)  # what lies below it is watched, the cache too
    on_change(lambda path: killed() if is_it(path) else None)
    os.chdir(here)


MOMENTS: Final = {"training": in_training, "probe": in_probe, "merge": in_merge}


def times(*folders: Path) -> dict[str, int]:
    """Files -> when they were written."""
    return {str(path): path.stat().st_mtime_ns for folder in folders for path in folder.rglob("*") if path.is_file()}


def run(folder: Path, moment: str | None = None) -> Run:
    """The command, killed at a moment."""

    def prepare() -> None:
        stand_in(folder / "tiny", folder / "cache")
        if moment is not None:
            MOMENTS[moment]()

    return whole(COMMAND, folder / "here", prepare)


def left(folder: Path) -> dict[str, str]:
    """What a run left: the files of its case, and the weights of the cache."""
    weights = sorted((folder / "cache").rglob("*.safetensors"))
    return {**digests(folder / "here"), **{str(path.relative_to(folder)): file_digest(path) for path in weights}}


def faults(folder: Path) -> list[str]:
    """What went otherwise than it should."""
    here, cache = folder / "here", folder / "cache"
    here.mkdir()
    unbroken = run(folder)
    if unbroken.code:
        return [f"not killed, it ended with {unbroken.code}: {unbroken.said}"]
    expected = left(folder)
    for each in (here, cache):
        shutil.rmtree(each)
    here.mkdir()
    found, before = [], dict[str, int]()
    for moment in (*MOMENTS, None):
        ended = run(folder, moment)
        said = "ended" if moment is None else f"killed in {moment}"
        print(f"{said}: {ended.code} after {ended.seconds:.1f} s", flush=True)
        if ended.code != (0 if moment is None else -signal.SIGKILL):
            found.append(f"{said}: {ended.code}: {ended.said[-600:]}")
        after = times(here, cache)
        kept = [name for name in before if is_whole(name)]
        found += [f"{said}: {name} was made again" for name in kept if after.get(name) != before[name]]
        before = after
    given = left(folder)
    return [
        *found,
        *(f"not the same: {name}" for name in {**expected, **given} if expected.get(name) != given.get(name)),
    ]


def is_whole(name: str) -> bool:
    """Whether a file was written by a stage or step that was done, and not by one that was under way."""
    done = name.endswith(("case/diff.json", "case/probe.json", "case/recipe.yaml", "case/directions.safetensors"))
    return done or ("/cache/" in name and ".partial" not in name and not name.endswith("trio.json"))


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        trained = os.fork()
        if not trained:  # where gradients were taken, a fork can take none
            make_trio(Path(name) / "tiny", THINGS)
            os._exit(0)
        os.waitpid(trained, 0)
        found = faults(Path(name))
    print(*found, sep="\n")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
