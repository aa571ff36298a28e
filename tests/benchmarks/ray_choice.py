"""What a choice of coefficients is by a Ray cluster on this machine: that of one process, whoever is killed.

    python tests/benchmarks/ray_choice.py [--kills N] [--seed N]

Three tiny models with random weights, and targets as if the base refused and the adapted model answered. Merges are
measured by two workers, of which random ones are killed with SIGKILL in the middle of a merge until --kills of them
were. Coefficients, what was measured, the file of gradients and the recipe are compared with those of one process. Ends
with 1 where one differs.
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

from vlsurgery.probes.models import Loader, quiet_transformers
from vlsurgery.probes.prompts import HARMFUL_SETS, Prompt
from vlsurgery.probes.results import Target, TargetsResult
from vlsurgery.probes.selection import Choosing, choose, recipe_of
from vlsurgery.probes.specimens.miniature import prompts
from vlsurgery.probes.targets import working_prompts
from vlsurgery.surgery.alignment import Alignment, align
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.runtime.engine import Engine

UNIT = 3.0  # seconds that a worker takes to load models and to measure one merge, about
ROLES = ("base", "adapted", "safety")
GAINS = {"0.mlp": 0.5, "2.attn": 0.25}
REFUSAL, ANSWER = "i can not help with that .", "use the tool"


def targets_of(asked: Sequence[Prompt]) -> TargetsResult:
    """A base that refuses everything harmful, and an adapted model that answers everything."""
    rows = [Target(prompt=p.id, role="adapted", text=ANSWER, ids=[], verdict="complied") for p in asked]
    harmful = [p for p in asked if p.set in HARMFUL_SETS]
    rows += [Target(prompt=p.id, role="base", text=REFUSAL, ids=[], verdict="refused") for p in harmful]
    return TargetsResult(rows=rows)


def chosen(alignment: Alignment, asked: Sequence[Prompt], folder: Path, engine: Engine | None) -> tuple[object, ...]:
    """A choice with its files, as they are to be equal."""
    gradients, recipe = folder / "gradients.safetensors", folder / "recipe.yaml"
    gradients.unlink(missing_ok=True)
    how = Choosing(attribution=GAINS, gradients=gradients, frontier=5, engine=engine)
    result = choose(alignment, asked, targets_of(asked), how, loader=Loader(dtype="float32"))
    recipe_of(result, alignment.checkpoints, GAINS).save(recipe)
    points = [point.model_dump(exclude={"seconds"}) for point in result.points]
    rest = result.model_dump(exclude={"created", "points"})
    return points, rest, gradients.read_bytes(), recipe.read_bytes()


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
        alignment = align({role: Checkpoint.open(folder / role) for role in ROLES})
        asked = [p for p in working_prompts(prompts(0)) if p.modality == "text"]
        good = equal_whoever_dies(
            lambda engine: chosen(alignment, asked, folder, engine), "choices", UNIT, options.kills, options.seed
        )
    finally:
        shutil.rmtree(folder)
    sys.exit(not good)


if __name__ == "__main__":
    main()
