"""What a probe is by a Ray cluster on this machine: that of one process, whoever is killed.

    python tests/benchmarks/ray_probe.py [--kills N] [--seed N]

Three tiny models with random weights, and a judge for whom the base refuses and the adapted model complies, so that
there is something to attribute. Two workers run the models, of which random ones are killed with SIGKILL in the middle
of a task until --kills of them were. Findings, directions and targets are compared with those of one process. Ends with
1 where one differs.
"""

import argparse
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from ray_evaluate import write_models
from ray_merge import equal_whoever_dies

from vlsurgery.probes.evaluation.judges import CallableJudge
from vlsurgery.probes.models import Loader, quiet_transformers
from vlsurgery.probes.probe import probe
from vlsurgery.probes.prompts import Prompt
from vlsurgery.probes.specimens.miniature import prompts
from vlsurgery.surgery.alignment import Alignment, align
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.runtime.engine import Engine

UNIT = 2.0  # seconds that a worker takes to load a model and to do one task, about
ROLES = ("base", "adapted", "safety")
EACH = 6  # prompts of a kind


def losing() -> CallableJudge:
    """Finds that the model it is asked about first, the base, refuses everything, and the next one nothing."""
    labels = iter(("refused", "complied"))

    def judged(completions: list[str], asked: list[str | None]) -> list[str]:
        label = next(labels)
        return [label for _ in completions]

    return CallableJudge(judged)


def some_prompts() -> list[Prompt]:
    cells: dict[tuple[str, ...], list[Prompt]] = {}
    for prompt in prompts(0):
        cells.setdefault((prompt.split, prompt.set, prompt.modality), []).append(prompt)
    return [prompt for members in cells.values() for prompt in members[:EACH]]


def found(alignment: Alignment, asked: Sequence[Prompt], engine: Engine | None) -> tuple[object, ...]:
    """All that a probe finds, as it is to be equal."""
    made = probe(alignment, asked, judge=losing(), loader=Loader(dtype="float32"), engine=engine)
    directions = {name: values.numpy().tobytes() for name, values in made.directions.items()}
    return made.result.model_dump(exclude={"created"}), directions, made.targets.model_dump(exclude={"created"})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    quiet_transformers()
    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp())
    try:
        write_models(folder, ROLES)
        alignment, asked = align({role: Checkpoint.open(folder / role) for role in ROLES}), some_prompts()
        good = equal_whoever_dies(
            lambda engine: found(alignment, asked, engine), "probes", UNIT, options.kills, options.seed
        )
    finally:
        shutil.rmtree(folder)
    sys.exit(not good)


if __name__ == "__main__":
    main()
