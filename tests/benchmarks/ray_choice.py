"""What a choice of coefficients is by a Ray cluster on this machine: that of one process, whoever is killed.

    python tests/benchmarks/ray_choice.py [--kills N] [--seed N]

Three tiny models with random weights, and targets as if the base refused and the adapted model answered. Merges are
measured by two workers, of which random ones are killed with SIGKILL in the middle of a merge until --kills of them
were. Coefficients, what was measured, the file of gradients and the recipe are compared with those of one process. Ends
with 1 where one differs.
"""

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import torch
from ray_evaluate import write_models
from ray_merge import killer

from vlsurgery.probes.models import Loader, quiet_transformers
from vlsurgery.probes.prompts import HARMFUL_SETS, Prompt
from vlsurgery.probes.results import Target, TargetsResult
from vlsurgery.probes.selection import Choosing, choose, recipe_of
from vlsurgery.probes.specimens.miniature import prompts
from vlsurgery.probes.targets import working_prompts
from vlsurgery.surgery.alignment import Alignment, align
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.runtime.engine import Engine
from vlsurgery.surgery.runtime.ray_cluster import ray_cluster

UNIT = 3.0  # seconds
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
    kills: list[int] = []
    runs = equal = 0
    try:
        write_models(folder, ROLES)
        alignment = align({role: Checkpoint.open(folder / role) for role in ROLES})
        asked = [p for p in working_prompts(prompts(0)) if p.modality == "text"]
        began = time.perf_counter()
        wanted = chosen(alignment, asked, folder, None)
        took = time.perf_counter() - began
        print(f"one process: {len(wanted[0])} merges, {took:.1f} s", flush=True)
        with ray_cluster("local:2") as engine:
            while runs < 1 or len(kills) < options.kills:
                # A worker that has begun takes UNIT to load and to measure one merge, about.
                killing = killer(random.Random(options.seed + runs), UNIT, UNIT, kills, options.kills)
                began = time.perf_counter()
                with killing if runs else nullcontext():
                    equal += chosen(alignment, asked, folder, engine) == wanted
                if not runs:
                    print(f"two workers: {time.perf_counter() - began:.1f} s with their start", flush=True)
                runs += 1
    finally:
        shutil.rmtree(folder)
        print(f"{len(kills)} workers were killed", flush=True)
    print(f"kills: {len(kills)} workers killed in {runs} choices, {equal} of them equal to the bit", flush=True)
    sys.exit(equal < runs)


if __name__ == "__main__":
    main()
