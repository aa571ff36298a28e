"""What changed in the weights between checkpoints, site by site, and summed up by layer, block and tower."""

from collections.abc import Generator
from contextlib import closing
from typing import Final

from vlsurgery.surgery.alignment import Aligned, Alignment
from vlsurgery.surgery.alignment.mismatches import fit_of
from vlsurgery.surgery.architecture.site import Site
from vlsurgery.surgery.diff import Level
from vlsurgery.surgery.diff.measuring import MeasuredPair, PairMeasurer, measured
from vlsurgery.surgery.diff.summaries import layer_key, parent_warning, summaries, verdict
from vlsurgery.surgery.results import DiffResult, Pair, PairMetrics
from vlsurgery.surgery.runtime.engine import Engine
from vlsurgery.surgery.runtime.progress import Progress, no_progress

# Groups of pairs for each worker, at least: the last one that is waited for is then a small part of all.
GROUPS_EACH: Final = 8
# Bytes of a group's tensors at most, unless a single pair has more: what a dead worker had done of it is lost.
MAX_GROUP_BYTES: Final = 1 << 29


def diff(
    alignment: Alignment, level: Level = "full", progress: Progress = no_progress, engine: Engine | None = None
) -> DiffResult:
    """Measure how far adaptation (adapted - base) and safety tuning (safety - adapted) moved every shared tensor.

    alignment: of `base`, `adapted`, and optionally `safety` (of several, the first is measured). level: `norms` leaves
    out what needs the singular values of every matrix. engine: whose workers measure a few pairs at a time, each in a
    process that opens the checkpoints itself; None: all pairs are measured here, on all cores. The numbers are the
    same.

    Every checkpoint is read in file order, a range of entries at a time.

    Raises CheckpointError when a tensor can't be read or holds NaN, and for a file at a URL that changed meanwhile.
    """
    fit = fit_of(alignment)
    found = measured(alignment, level, alignment.in_file_order()) if engine is None else _by(engine, alignment, level)
    with closing(found):
        metrics = dict(progress(found, "comparing weights", len(alignment.pairs)))
    for checkpoint in alignment.checkpoints.values():
        if checkpoint.remote is not None:
            checkpoint.remote.check_unchanged("measured")
    statistics = {site: sums for site, (sums, _) in metrics.items()}
    pairs = [_pair(alignment, pair, metrics[pair.site][1]) for pair in alignment.pairs]
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


def _by(engine: Engine, alignment: Alignment, level: Level) -> Generator[MeasuredPair, None, None]:
    """What an engine's workers measure, in any order."""
    refs = {role: checkpoint.ref_model for role, checkpoint in alignment.checkpoints.items()}
    return engine.map(PairMeasurer(refs, alignment.like, level), groups(alignment, engine))


def groups(alignment: Alignment, engine: Engine) -> list[tuple[Site, ...]]:
    """The tasks that a diff is divided into for an engine's workers: the sites of neighbours in a file, or of one large
    pair."""
    pairs = alignment.in_file_order()
    whole = sum(nbytes(alignment, pair) for pair in pairs)
    size = min(MAX_GROUP_BYTES, whole // (GROUPS_EACH * max(1, engine.num_workers(len(pairs)))))
    found: list[list[Site]] = []
    filled = size
    for pair in pairs:
        filled += nbytes(alignment, pair)
        if not found or filled > size:
            found.append([])
            filled = nbytes(alignment, pair)
        found[-1].append(pair.site)
    return [tuple(group) for group in found]


def nbytes(alignment: Alignment, pair: Aligned) -> int:
    """Bytes of a pair that are read, of all roles."""
    return sum(pair.numel * alignment.tensor(pair, role).array_dtype.itemsize for role in pair.parts)


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
