"""What `--plan --ray` says: tasks, workers, what one has to read and write, and how long it all takes."""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from vlsurgery.cli.workflow.process import tuned_for_weights
from vlsurgery.surgery.runtime.byte_counts import in_words
from vlsurgery.surgery.runtime.division import loads
from vlsurgery.surgery.runtime.worker_pool import cores

if TYPE_CHECKING:
    from vlsurgery.cli.workflow.estimates import ModelSizes, PlannedStep
    from vlsurgery.probes.models.gguf import PlannedConversion
    from vlsurgery.surgery.alignment import Aligned, Alignment
    from vlsurgery.surgery.diff import Level
    from vlsurgery.surgery.merge.preparation import PreparedMerge
    from vlsurgery.surgery.merge.recipe import Recipe
    from vlsurgery.surgery.runtime.ray_engine import RayEngine

Member = TypeVar("Member")

# What starting takes beside the work, as tests/benchmarks/ray_merge.py measures it: a cluster on this machine, and a
# worker, which imports what it needs and opens the checkpoints.
CLUSTER_SECONDS: Final = 4.0
WORKER_SECONDS: Final = 4.0
TASK_SECONDS: Final = 0.005
# Entries of a tensor at most, and seconds, that the speed is measured with.
SAMPLE_SIZE: Final = 1 << 22
SAMPLE_SECONDS: Final = 0.3


@dataclass(frozen=True)
class DividedWork:
    """How work falls to the workers of a cluster.

    tasks: that it is divided into. workers: processes; threads: of each. worker_bytes: that the busiest one reads and
    writes. seconds: until all is done, if disks keep up with the speed that a thread of this machine has now.
    """

    tasks: int
    workers: int
    threads: int
    worker_bytes: int
    seconds: float

    def sentence(self) -> str:
        from vlsurgery.cli.workflow.estimates import about

        return (
            f"{self.tasks} tasks for {self.workers} workers of {self.threads} threads, at most "
            f"{in_words(self.worker_bytes)} a worker, {about(self.seconds)} if disks keep up"
        )


@contextmanager
def _planned(address: str) -> Iterator["RayEngine"]:
    """The engine of an address. A cluster on this machine is not started; another one is asked for its machines."""
    from vlsurgery.surgery.runtime.ray_cluster import local_engine, ray_cluster

    local = local_engine(address)
    if local is not None:
        yield local
    else:
        with ray_cluster(address) as engine:
            yield engine


def divided_merge(address: str, recipe: "Recipe", prepared: "PreparedMerge", bytes_read: int) -> DividedWork:
    """How a merge would be divided, a shard a task; a worker is taken to read as it writes, in the same proportion."""
    sizes = [shard.nbytes for shard in prepared.shard_plan.shards]
    share = 1 + bytes_read / max(1, sum(sizes))
    seconds = _seconds_a_byte(recipe, prepared)
    with _planned(address) as engine:
        return _divided(engine, [size * share for size in sizes], [size * seconds for size in sizes])


def divided_conversion(address: str, plan: "PlannedConversion") -> DividedWork:
    """How a conversion of a GGUF file would be divided, a shard a task; a worker is taken to read as it writes."""
    sizes = [shard.nbytes for shard in plan.layout.shards]
    share = 1 + plan.bytes_read / max(1, sum(sizes))
    seconds = _seconds_a_converted_byte(plan)
    with _planned(address) as engine:
        return _divided(engine, [size * share for size in sizes], [size * seconds for size in sizes])


def divided_diff(address: str, alignment: "Alignment", level: "Level") -> DividedWork:
    """How a diff would be divided, a few neighbouring pairs a task."""
    from vlsurgery.surgery.diff.run import groups, nbytes

    pairs = {pair.site: pair for pair in alignment.pairs}
    with tuned_for_weights(alignment.checkpoints.values(), with_torch=level == "full"):
        seconds = _seconds_an_operation(alignment, level)
    with _planned(address) as engine:
        tasks = [[pairs[site] for site in group] for group in groups(alignment, engine)]
        sizes = [sum(nbytes(alignment, pair) for pair in task) for task in tasks]
        times = [seconds * sum(_operations(pair, level) for pair in task) for task in tasks]
        return _divided(engine, sizes, times)


def divided_evaluation(address: str, step: "PlannedStep", models: int) -> DividedWork:
    """How an evaluation would be divided, a model and some prompts a task; every worker reads every model.

    step: as one process would do it.
    """
    from vlsurgery.probes.evaluation.dividing import shard_size

    with _planned(address) as engine:
        each = -(-step.completions // max(1, models))
        workers, threads = engine.num_workers(max(1, each)), engine.num_threads(max(1, each))
        tasks = models * -(-each // shard_size(each, workers))
        starting = 2 * WORKER_SECONDS + (CLUSTER_SECONDS if engine.local else 0.0)
        seconds = (step.seconds or 0.0) * cores() / engine.cores
    return DividedWork(tasks, workers, threads, step.bytes_read, starting + seconds)


def divided_models(address: str, step: "PlannedStep", sizes: "ModelSizes", at_once: int) -> DividedWork:
    """How a probe or a choice of coefficients would be divided; every worker reads the models that it runs.

    step: as one process would do it. at_once: for how many tasks at a time there are workers, if there can be.
    """
    with _planned(address) as engine:
        workers, threads = engine.num_workers(at_once), engine.num_threads(at_once)
        starting = WORKER_SECONDS + (CLUSTER_SECONDS if engine.local else 0.0)
    tasks, seconds = sizes.divided(step.step, workers)
    alone = max(0.0, (step.seconds or 0.0) - seconds)
    return DividedWork(
        tasks, workers, threads, step.bytes_read, starting + alone + seconds * cores() / (workers * threads)
    )


def _divided(engine: "RayEngine", sizes: Sequence[float], times: Sequence[float]) -> DividedWork:
    """sizes: bytes of each task. times: seconds that each takes one thread."""
    workers, threads = engine.num_workers(len(sizes)), engine.num_threads(len(sizes))
    working = loads([seconds / threads + TASK_SECONDS for seconds in times], workers)[0]
    starting = WORKER_SECONDS + (CLUSTER_SECONDS if engine.local else 0.0)
    return DividedWork(len(sizes), workers, threads, round(loads(sizes, workers)[0]), starting + working)


def _seconds_a_byte(recipe: "Recipe", prepared: "PreparedMerge") -> float:
    """How long one thread takes to make a byte of the result, of a tensor that is merged."""
    from vlsurgery.surgery.merge.piece_builder import PieceBuilder

    merged = [tensor for tensor in prepared.shard_plan.tensors if tensor.name in prepared.merge_plan.sites]
    tensor = _sample(merged or prepared.shard_plan.tensors, lambda each: each.numel)
    made = 0

    def make() -> None:
        nonlocal made
        with ThreadPoolExecutor(1) as pool:
            for piece in PieceBuilder(recipe, prepared, pool).pieces(tensor):
                piece.make(memoryview(bytearray(piece.nbytes)))
                made += piece.nbytes

    make()  # Loops are compiled, and files come into memory.
    made, start = 0, time.perf_counter()
    while time.perf_counter() - start < SAMPLE_SECONDS:
        make()
    return (time.perf_counter() - start) / max(1, made)


def _seconds_a_converted_byte(plan: "PlannedConversion") -> float:
    """How long one thread takes to make a byte of a checkpoint from a GGUF file."""
    from vlsurgery.probes.models.gguf.shard_maker import UnitPieces

    tensor = _sample([each for shard in plan.layout.shards for each in shard.tensors], lambda each: each.numel)
    start, made = time.perf_counter(), 0
    while not made or time.perf_counter() - start < SAMPLE_SECONDS:
        for piece in UnitPieces(plan.model, plan.layout.units, plan.dtype).of(tensor):
            piece.make(memoryview(bytearray(piece.nbytes)))
            made += piece.nbytes
    return (time.perf_counter() - start) / made


def _seconds_an_operation(alignment: "Alignment", level: "Level") -> float:
    """How long one thread takes for each of a pair's operations."""
    from vlsurgery.surgery.diff.measuring import measured

    pair = _sample(alignment.pairs, lambda each: each.numel)
    list(measured(alignment, level, [pair]))
    start, done = time.perf_counter(), 0
    while not done or time.perf_counter() - start < SAMPLE_SECONDS:
        list(measured(alignment, level, [pair]))
        done += 1
    return (time.perf_counter() - start) / done / max(1, _operations(pair, level))


def _operations(pair: "Aligned", level: "Level") -> int:
    """What a pair's time is proportional to: its entries, and for spectra these times the shorter side."""
    return pair.numel * (min(pair.shape) if level == "full" and len(pair.shape) == 2 else 1)


def _sample(members: Sequence[Member], size: Callable[[Member], int]) -> Member:
    """The largest one that is not larger than a sample, else the smallest."""
    small = [each for each in members if size(each) <= SAMPLE_SIZE]
    return max(small, key=size) if small else min(members, key=size)
