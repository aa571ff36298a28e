"""Peak memory of fitting, attributing and probing a LLaVA of 1.1 B parameters, above its weights as loaded.

python tests/benchmarks/running_memory.py DIR: builds the trio in DIR once (6.6 GB on disk), runs each part in a process
of its own and prints its peak. The bound is 1.5 GiB above the weights.
"""

import argparse
import resource
import subprocess
import sys
import time
from pathlib import Path

from running_models import working

PARTS = ("load", "fit", "attribute", "probe")
GIB = 2**30
BOUND = 1.5 * GIB


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--part", choices=PARTS)
    arguments.add_argument("--prompts", type=int, default=24)
    given = arguments.parse_args()
    if given.part:
        run(given.folder, given.part, given.prompts)
        return
    subprocess.run([sys.executable, "-c", _BUILD, str(Path(__file__).parent), str(given.folder)], check=True)
    for part in PARTS:
        command = [sys.executable, __file__, str(given.folder), "--part", part, "--prompts", str(given.prompts)]
        subprocess.run(command, check=True)


_BUILD = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from running_models import BILLION, build
build(Path(sys.argv[2]), BILLION)
"""


def run(folder: Path, part: str, count: int) -> None:
    """One part in this process; prints its seconds and its peak above the weights."""
    from vlsurgery.probes import attribution
    from vlsurgery.probes.fitting import fit
    from vlsurgery.probes.in_memory_merge import InMemoryMerge
    from vlsurgery.probes.models import load
    from vlsurgery.probes.probe import probe
    from vlsurgery.surgery.alignment import align
    from vlsurgery.surgery.checkpoint import Checkpoint

    checkpoints = {role: Checkpoint.open(folder / role) for role in ("base", "adapted", "safety")}
    began = time.perf_counter()
    chat = None if part == "probe" else load(checkpoints["adapted"])
    if part == "probe":
        from vlsurgery.probes.specimens.miniature import prompts

        probe(align({role: checkpoints[role] for role in ("base", "adapted")}), prompts(0)[:: max(1, 2500 // count)])
    elif part == "fit":
        live = InMemoryMerge(chat, align(checkpoints), ("base", "safety"))
        fit(live, working(chat.tokenizer, count), steps=5)
    elif part == "attribute":
        live = InMemoryMerge(chat, align({r: checkpoints[r] for r in ("base", "adapted")}), ("base",))
        attribution.MAX_PATH_POINTS = 5
        attribution.attribute(live, working(chat.tokenizer, count))
    weights = sum(each.stat().st_size for each in (folder / "adapted").glob("*.safetensors"))
    if chat is not None:
        weights = sum(p.nbytes for p in chat.model.parameters())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    above = peak - weights
    print(
        f"{part:10} {time.perf_counter() - began:6.0f} s   peak {peak / GIB:5.2f} GiB, weights {weights / GIB:5.2f}, "
        f"above them {above / GIB:5.2f} (bound {BOUND / GIB}): {'held' if above < BOUND else 'BROKEN'}",
        flush=True,
    )


if __name__ == "__main__":
    main()
