"""How long a diff takes, beside a bare script that takes three dot products of the same weights in chunks.

    python tests/benchmarks/diff_speed.py [--gb 2.2] [--keep DIR] [--rounds 3] [--safety]

Whole processes, in turn: the bare script, `vlsurgery diff --level norms` and `--level full`. Prints the best time of
each, the processor's time, the peak of resident memory, and the ratios. The limits: norms within 1.6 times the bare
script, full within 8 times norms, 1 GiB.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from synthetic import MODELS, make

BARE = """
import json, mmap, sys, warnings
from pathlib import Path
import torch

warnings.filterwarnings("ignore", message="The given buffer is not writable")
sums = torch.zeros(3, dtype=torch.float64)
for first, second in zip(*(sorted(Path(folder).glob("*.safetensors")) for folder in sys.argv[1:]), strict=True):
    vectors = []
    for path in (first, second):
        with path.open("rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        start = 8 + int.from_bytes(data[:8], "little")
        vectors.append(torch.frombuffer(data, dtype=torch.bfloat16, offset=start))
    for start in range(0, len(vectors[0]), 1 << 22):
        one, other = (vector[start : start + (1 << 22)].float() for vector in vectors)
        sums += torch.stack((one @ one, other @ other, one @ other)).double()
print(sums.tolist())
"""
LIMITS = {"norms / bare": 1.6, "full / norms": 8.0}
MEMORY = 1 << 30


def run(command: Sequence[str]) -> tuple[float, float, int]:
    """Seconds, processor seconds and peak memory of a process."""
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr
    said = process.stderr.read().decode()
    _, status, used = os.wait4(process.pid, 0)
    if status:
        sys.exit(said)
    return time.perf_counter() - began, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024


def measure(folder: Path, roles: Sequence[str], rounds: int) -> dict[str, list[tuple[float, float, int]]]:
    """Every command, in turn, `rounds` times; files are read once beforehand."""
    paths = [str(folder / role) for role in roles]
    found: dict[str, list[tuple[float, float, int]]] = {"bare": [], "norms": [], "full": []}
    with tempfile.TemporaryDirectory() as cases:
        run([sys.executable, "-c", BARE, *paths[:2]])
        for turn in range(rounds):
            found["bare"].append(run([sys.executable, "-c", BARE, *paths[:2]]))
            for level in ("norms", "full"):
                diff = ["diff", *paths, "--level", level, "--case", f"{cases}/{level}-{turn}"]
                found[level].append(run([sys.executable, "-m", "vlsurgery.cli.main", *diff]))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gb", type=float, default=2.2, choices=sorted(MODELS))
    parser.add_argument("--keep", type=Path, help="where the checkpoints are, or are to be made and kept")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--safety", action="store_true", help="diff three checkpoints instead of a pair")
    options = parser.parse_args()
    roles = ["base", "adapted"] + ["safety"] * options.safety
    with tempfile.TemporaryDirectory() as own:
        folder = options.keep or Path(own)
        make(folder, options.gb, roles)
        found = measure(folder, roles, options.rounds)
    best = {name: min(seconds for seconds, _, _ in runs) for name, runs in found.items()}
    for name, runs in found.items():
        peak = max(memory for _, _, memory in runs)
        processor = min(seconds for _, seconds, _ in runs)
        over = "" if peak < MEMORY or name == "bare" else "  OVER 1 GiB"
        print(f"{name:6} {best[name]:7.1f} s  {processor:7.1f} s of processors  {peak / 2**20:6.0f} MiB{over}")
    for ratio, limit in LIMITS.items():
        above, _, below = ratio.split()
        value = best[above] / best[below]
        print(f"{ratio:14} {value:5.2f}  limit {limit}{'' if value <= limit else '  OVER'}")


if __name__ == "__main__":
    main()
