"""Measuring pairs of tensors: here, or as the work of a worker, which opens the checkpoints by itself."""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

from vlsurgery.surgery.alignment import Aligned, Alignment, align
from vlsurgery.surgery.alignment.roles import safety_role
from vlsurgery.surgery.architecture.site import Site
from vlsurgery.surgery.checkpoint.reopening import reopened
from vlsurgery.surgery.diff import Level
from vlsurgery.surgery.diff.metrics import PairStatistics
from vlsurgery.surgery.diff.tasks import DiffRunner
from vlsurgery.surgery.results import CheckpointRef, PairMetrics
from vlsurgery.surgery.runtime.worker_pool import cores, map_ordered, worker_pool

# Tasks for each thread that may be done before the one whose turn it is, so that no thread waits for a large matrix.
MAX_PENDING_TASKS: Final = 1 << 10

# A pair's site, its sums, and all of its metrics.
MeasuredPair = tuple[Site, tuple[PairStatistics, PairMetrics]]


@dataclass(frozen=True)
class PairMeasurer:
    """Called once in a worker's process, it returns the function that measures the pairs of some sites.

    refs: role -> checkpoint. like: the role that the others are aligned with.
    """

    refs: Mapping[str, CheckpointRef]
    like: str
    level: Level

    def __call__(self) -> Callable[[Sequence[Site]], Generator[MeasuredPair, None, None]]:
        """Raises CheckpointError for a checkpoint that can't be opened here, or is another one."""
        checkpoints = {role: reopened(role, ref) for role, ref in self.refs.items()}
        alignment = align(checkpoints, self.like)
        pairs = {pair.site: pair for pair in alignment.pairs}
        return lambda sites: measured(alignment, self.level, [pairs[site] for site in sites])


def measured(alignment: Alignment, level: Level, pairs: Sequence[Aligned]) -> Generator[MeasuredPair, None, None]:
    """The sums and metrics of pairs, which are measured on all cores; large ones among the others.

    Raises CheckpointError when a tensor can't be read or holds NaN.
    """
    safety = safety_role(alignment.checkpoints)
    roles = {"base": "base", "adapted": "adapted"} | ({"safety": safety} if safety else {})
    runner = DiffRunner(alignment, {role: name for role, name in roles.items() if name in alignment.checkpoints})
    if level == "full":
        pairs = _interleaved(pairs, runner.is_large)
    tasks = [task for pair in pairs for task in runner.tasks(pair, spectra=level == "full")]
    with worker_pool() as pool:
        done = map_ordered(pool, runner.run, tasks, MAX_PENDING_TASKS * cores())
        for pair, group in groupby(zip(tasks, done, strict=True), key=lambda each: each[0].pair):
            results = [result for _, result in group]
            first, *others = [sums for sums, _ in results if sums is not None]
            for other in others:
                first.join(other)
            _, spectral = results[-1]
            yield pair.site, runner.measured(pair, first, spectral)


def _interleaved(pairs: Sequence[Aligned], is_large: Callable[[Aligned], bool]) -> list[Aligned]:
    """Interleave large pairs so that no two compete for the memory budget and none is the last to be waited for."""
    large, others = ([pair for pair in pairs if is_large(pair) == wanted] for wanted in (True, False))
    every = len(others) // (len(large) + 1)
    for number, pair in enumerate(large):
        others.insert(number * (every + 1), pair)
    return others
