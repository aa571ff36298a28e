"""Seconds of the grid, the fit and the transplants on SmolLM2-135M's shape, of this tree and of another one.

python tests/benchmarks/running_speed.py DIR [--against PATH]: a LLaVA on random weights, built in DIR once. PATH is
what PYTHONPATH must hold for the other tree's vlsurgery. Each tree runs in a process of its own, in the dtype that it
loads by itself.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from running_models import SMOLLM2, build, working


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--against", type=Path)
    arguments.add_argument("--measure", action="store_true")
    arguments.add_argument("--prompts", type=int, default=32)
    given = arguments.parse_args()
    if given.measure:
        print(json.dumps(measured(given.folder, given.prompts)))
        return
    build(given.folder, SMOLLM2)
    here = Path(__file__).parent
    trees = {"ours": os.environ.get("PYTHONPATH", "")} | ({"theirs": str(given.against)} if given.against else {})
    found = {}
    for name, path in trees.items():
        command = [sys.executable, __file__, str(given.folder), "--measure", "--prompts", str(given.prompts)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(part for part in (path, str(here)) if part)}
        out = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout
        found[name] = json.loads(out.splitlines()[-1])
        print(name, found[name], flush=True)
    if "theirs" in found:
        ratios = {
            part: round(found["theirs"][part] / found["ours"][part], 2) for part in ("grid", "fit", "transplants")
        }
        print("times faster:", ratios)


def measured(folder: Path, count: int) -> dict[str, object]:
    """Seconds of 11 grid points, of 8 steps of fitting, and of all transplants with their costs."""
    from vlsurgery.probes import attribution, selection
    from vlsurgery.probes.fitting import fit
    from vlsurgery.probes.in_memory_merge import InMemoryMerge
    from vlsurgery.probes.models import load
    from vlsurgery.probes.scoring import refusal_log_odds
    from vlsurgery.surgery.alignment import align
    from vlsurgery.surgery.checkpoint import Checkpoint
    from vlsurgery.surgery.runtime.progress import no_progress

    checkpoints = {role: Checkpoint.open(folder / role) for role in ("base", "adapted", "safety")}
    chat = load(checkpoints["adapted"])
    live = InMemoryMerge(chat, align(checkpoints), ("base", "safety"))
    some = working(chat.tokenizer, count)
    scorer = selection.SelectionScorer.of(chat, some)
    grid = [{"base": step / 10} for step in range(11)]
    selection._grid = lambda sources: grid  # noqa: ARG005

    def points() -> None:
        list(selection._grid_points(live, scorer, "uniform", dict.fromkeys(live.blocks, 1.0), no_progress))

    def gridded() -> None:
        if hasattr(selection, "keeping_pictures"):
            with selection.keeping_pictures(chat):
                points()
        else:
            points()

    def transplanted() -> None:
        batches = attribution.lost_choices(chat, some.lost)
        start = float(refusal_log_odds(chat, batches).mean())
        attribution._transplants(live, batches, some, start, no_progress)

    parts = {"grid": gridded, "fit": lambda: fit(live, some, steps=8), "transplants": transplanted}
    found: dict[str, object] = {"dtype": str(next(chat.model.parameters()).dtype)}
    for name, run in parts.items():
        began = time.perf_counter()
        run()
        found[name] = round(time.perf_counter() - began, 2)
    return found


if __name__ == "__main__":
    main()
