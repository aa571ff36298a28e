"""Processor seconds of the grid, the fit and the transplants on SmolLM2-135M's shape, of this tree and of another.

python tests/benchmarks/running_speed.py DIR [--against PATH]: a LLaVA on random weights, built in DIR once. PATH is
what PYTHONPATH must hold for the other tree's vlsurgery. Each tree runs in a process of its own, in the dtype that it
loads by itself, with one thread, the trees in turn; printed are medians.
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from statistics import median
from typing import Any

from running_models import SMOLLM2, build, working

PARTS = ("grid", "fit", "transplants")
GRID = ((0.1, 0.0), (0.2, 0.1), (0.3, 0.3))  # coefficients toward base and safety


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--against", type=Path)
    arguments.add_argument("--measure", action="store_true")
    arguments.add_argument("--prompts", type=int, default=32)
    arguments.add_argument("--rounds", type=int, default=3)
    given = arguments.parse_args()
    if given.measure:
        print(json.dumps(measured(given.folder, given.prompts)))
        return
    build(given.folder, SMOLLM2)
    here = Path(__file__).parent
    trees = {"ours": os.environ.get("PYTHONPATH", "")} | ({"theirs": str(given.against)} if given.against else {})
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in trees}
    for _ in range(given.rounds):
        for name, path in trees.items():
            command = [sys.executable, __file__, str(given.folder), "--measure", "--prompts", str(given.prompts)]
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(part for part in (path, str(here)) if part)}
            out = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout
            found[name].append(json.loads(out.splitlines()[-1]))
            print(name, found[name][-1], flush=True)
    if "theirs" in found:
        medians = {name: [median(run[part] for run in runs) for part in PARTS] for name, runs in found.items()}
        ratios = [round(theirs / ours, 2) for theirs, ours in zip(medians["theirs"], medians["ours"], strict=True)]
        print("times faster:", dict(zip(PARTS, ratios, strict=True)))


def measured(folder: Path, count: int) -> dict[str, object]:
    """Processor seconds of GRID's points in turn, of 4 steps of fitting (one a part of the prompts), and of all
    transplants with their costs. By functions that every tree since the first has."""
    import torch

    from vlsurgery.probes import attribution
    from vlsurgery.probes.fitting import fit
    from vlsurgery.probes.in_memory_merge import InMemoryMerge
    from vlsurgery.probes.models import load
    from vlsurgery.probes.scoring import greedy_matches, refusal_choices, refusal_log_odds, scored_answers
    from vlsurgery.surgery.alignment import align
    from vlsurgery.surgery.checkpoint import Checkpoint
    from vlsurgery.surgery.runtime.progress import no_progress

    torch.set_num_threads(1)
    checkpoints = {role: Checkpoint.open(folder / role) for role in ("base", "adapted", "safety")}
    chat = load(checkpoints["adapted"])
    live = InMemoryMerge(chat, align(checkpoints), ("base", "safety"))
    some = working(chat.tokenizer, count)
    lost = refusal_choices(
        chat, *([getattr(item, name) for item in some.lost] for name in ("prompt", "refusal", "answer"))
    )
    keep = scored_answers(chat, [prompt for prompt, _ in some.keep], [answer[:8] for _, answer in some.keep])

    def gridded() -> None:
        with getattr(live, "staying", nullcontext)():
            for base, safety in GRID:
                with live.at(live.everywhere(base=base, safety=safety)):
                    refusal_log_odds(chat, lost)
                    greedy_matches(chat, keep)

    def transplanted() -> None:
        start = refusal_log_odds(chat, lost)
        if importlib.util.find_spec("vlsurgery.probes.attribution_passes") is not None:
            from vlsurgery.probes.attribution_passes import AttributionPasses

            AttributionPasses(live, some).transplanted(live.blocks)
            return
        old = "Tensor" not in str(attribution._transplants.__annotations__["start"])  # of an older tree
        attribution._transplants(live, lost, some, float(start.mean()) if old else start, no_progress)

    parts = {"grid": gridded, "fit": lambda: fit(live, some, steps=4), "transplants": transplanted}
    found: dict[str, object] = {"dtype": str(next(chat.model.parameters()).dtype)}
    gridded()  # loops are compiled, files are read
    for name, run in parts.items():
        began = time.process_time()
        run()
        found[name] = round(time.process_time() - began, 2)
    return found


if __name__ == "__main__":
    main()
