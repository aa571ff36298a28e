"""What changed in the weights between checkpoints, site by site, and summed up by layer, block and tower."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from typing import Final

from vlsurgery.surgery.alignment import Aligned, Alignment
from vlsurgery.surgery.alignment.mismatches import fit_of
from vlsurgery.surgery.alignment.roles import safety_role
from vlsurgery.surgery.architecture.site import Site
from vlsurgery.surgery.diff import Level
from vlsurgery.surgery.diff.metrics import PairStatistics
from vlsurgery.surgery.diff.summaries import layer_key, parent_warning, summaries, verdict
from vlsurgery.surgery.diff.tasks import DiffRunner
from vlsurgery.surgery.results import DiffResult, Pair, PairMetrics
from vlsurgery.surgery.runtime.progress import Progress, no_progress
from vlsurgery.surgery.runtime.worker_pool import cores, map_ordered, worker_pool

# Tasks for each thread that may be done before the one whose turn it is, so that no thread waits for a large matrix.
MAX_PENDING_TASKS: Final = 1 << 10


def diff(alignment: Alignment, level: Level = "full", progress: Progress = no_progress) -> DiffResult:
    """Measure how far adaptation (adapted - base) and safety tuning (safety - adapted) moved every shared tensor.

    alignment: of `base`, `adapted`, and optionally `safety` (of several, the first is measured). level: `norms` leaves
    out what needs the singular values of every matrix.

    Every checkpoint is read in file order, a range of entries at a time, on all cores.

    Raises CheckpointError when a tensor can't be read or holds NaN.
    """
    safety = safety_role(alignment.checkpoints)
    roles = {"base": "base", "adapted": "adapted"} | ({"safety": safety} if safety else {})
    fit = fit_of(alignment)
    runner = DiffRunner(alignment, {role: name for role, name in roles.items() if name in alignment.checkpoints})
    with worker_pool() as pool:
        measured = dict(progress(_measured(runner, pool, level), "comparing weights", len(alignment.pairs)))
    statistics = {site: found for site, (found, _) in measured.items()}
    pairs = [_pair(alignment, pair, measured[pair.site][1]) for pair in alignment.pairs]
    towers = summaries(alignment.pairs, statistics, lambda site: site.tower)
    text = next((tower.metrics for tower in towers if tower.key == "text"), None)
    return DiffResult(
        checkpoints={role: checkpoint.ref_model for role, checkpoint in alignment.checkpoints.items()},
        pairs=pairs,
        unmatched=list(alignment.unmatched),
        layers=summaries(alignment.pairs, statistics, layer_key),
        blocks=summaries(alignment.pairs, statistics, lambda site: site.block),
        towers=towers,
        verdict=verdict(alignment.pairs, statistics, text),
        notes=[*alignment.notes, *(each.sentence() for each in fit.mismatches if not each.serious), *fit.notes],
        warnings=[*parent_warning(pairs), *(each.sentence() for each in fit.mismatches if each.serious)],
        mismatches=fit.mismatches,
    )


def _measured(
    runner: DiffRunner, pool: ThreadPoolExecutor, level: Level
) -> Iterator[tuple[Site, tuple[PairStatistics, PairMetrics]]]:
    """The statistics and metrics of every pair, by its site, in file order."""
    pairs = runner.alignment.in_file_order()
    if level == "full":
        pairs = _interleaved(pairs, runner.is_large)
    tasks = [task for pair in pairs for task in runner.tasks(pair, spectra=level == "full")]
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


def _pair(alignment: Alignment, pair: Aligned, metrics: PairMetrics) -> Pair:
    return Pair(
        tower=pair.site.tower,
        layer=pair.site.layer,
        component=pair.site.component,
        block=pair.site.block,
        added=pair.site.own_layer is not None,
        own_layer=pair.site.own_layer,
        names={role: part.label() for role, part in pair.parts.items()},
        shape=list(pair.shape),
        dtype=alignment.tensor(pair, alignment.like).dtype_name,
        metrics=metrics,
    )
