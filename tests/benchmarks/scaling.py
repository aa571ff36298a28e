"""The tables of docs/scaling.md: what merges and diffs of large models take on many machines, on paper.

Run it as `python tests/benchmarks/scaling.py`. The inputs stand below, measured or assumed as the page says; change
them to those of your own machines.
"""

import math
from dataclasses import dataclass

from vlsurgery.surgery.runtime.ray_engine import RayEngine

# Measured on one core: bytes of the result a second, by ties of two models and hashed; SHA-256 alone; seconds of both
# spectra of a matrix, for each entry and unit of its shorter side.
MERGED, HASHED, SPECTRUM = 270e6, 1069e6, 5.3e-11
# Measured: seconds of a task that Ray gives out, and until the first one is begun.
TASK, START = 0.0063, 8.0
# Assumed: cores of a machine, bytes a second that it and the file system of all machines move, bytes of a shard.
CORES, MACHINE, FILE_SYSTEM, SHARD = 32, 2e9, 40e9, 5e9
MACHINES = (1, 8, 64)
GROUP, GROUPS_EACH = 512 * 2**20, 8


@dataclass(frozen=True)
class Model:
    """nbytes: of a checkpoint. opening: seconds to open and align three. matrices: (how many, rows, columns)."""

    name: str
    nbytes: float
    opening: float
    matrices: tuple[tuple[int, int, int], ...]

    @property
    def operations(self) -> float:
        """Entries times the shorter side, of all matrices."""
        return sum(count * rows * columns * min(rows, columns) for count, rows, columns in self.matrices)

    @property
    def largest(self) -> float:
        return max(rows * columns * min(rows, columns) for _, rows, columns in self.matrices)

    @property
    def pairs(self) -> int:
        return sum(count for count, *_ in self.matrices)


MODELS = (
    Model("70 B", 140e9, 1, ((160, 8192, 8192), (160, 1024, 8192), (240, 28672, 8192))),
    Model("405 B", 810e9, 1, ((252, 16384, 16384), (252, 1024, 16384), (378, 53248, 16384))),
    Model("1 T", 2000e9, 5, ((60 * 384 * 3, 2048, 7168),)),
)


def moved(machines: int) -> float:
    """Bytes a second that so many machines read and write."""
    return min(MACHINE * machines, FILE_SYSTEM)


def merge(model: Model, machines: int) -> tuple[float, str]:
    """Seconds of a merge of two models and a base, and what they are spent on."""
    shards = math.ceil(model.nbytes / SHARD)
    engine = RayEngine(CORES * machines, CORES)
    workers, threads = engine.num_workers(shards), engine.num_threads(shards)
    rounds = math.ceil(shards / workers)
    spent = {
        "cores": rounds * max(SHARD / (threads * MERGED), SHARD / HASHED),
        "files": 4 * model.nbytes / moved(min(machines, shards)),
        "driver": shards * TASK,
    }
    most = max(spent, key=lambda name: spent[name])
    return START + model.opening + spent[most], most


def diff(model: Model, machines: int) -> tuple[float, str]:
    """Seconds of a diff of three checkpoints at level full, and what they are spent on."""
    workers = min(model.pairs, CORES * machines)
    read = 3 * model.nbytes
    tasks = min(model.pairs, read / min(GROUP, read / (GROUPS_EACH * workers)))
    spent = {
        "cores": model.operations * SPECTRUM / workers,
        "files": read / moved(machines),
        "driver": tasks * TASK,
        "largest matrix": model.largest * SPECTRUM,
    }
    most = max(spent, key=lambda name: spent[name])
    return START + model.opening + spent[most], most


def told(seconds: float) -> str:
    """A time in the unit that it is best said in."""
    if seconds < 300:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def tables() -> list[str]:
    """The lines of both tables, as Markdown."""
    lines = []
    for name, work in (("merge", merge), ("diff", diff)):
        heads = [f"{count} machine{'s' * (count > 1)}" for count in MACHINES]
        lines += [f"| {name} | {' | '.join(heads)} |", "|---" * (1 + len(MACHINES)) + "|"]
        for model in MODELS:
            cells = [f"{told(seconds)} ({most})" for seconds, most in (work(model, count) for count in MACHINES)]
            lines.append(f"| {model.name} | {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    print("\n".join(tables()))
