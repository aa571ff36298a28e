"""What changed in the weights between checkpoints, site by site, and summed up by layer, block and tower."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from typing import Final

from vlsurgery.surgery.alignment import Aligned, Alignment
from vlsurgery.surgery.alignment.roles import safety_role
from vlsurgery.surgery.architecture.site import Site
from vlsurgery.surgery.diff import Level
from vlsurgery.surgery.diff.pair_spectra import PairSpectra
from vlsurgery.surgery.diff.runner import Measured, Survey
from vlsurgery.surgery.diff.summaries import kinship, layer_key, summaries, verdict
from vlsurgery.surgery.results import DiffResult, Pair
from vlsurgery.surgery.runtime.progress import Progress, no_progress
from vlsurgery.surgery.runtime.worker_pool import cores, map_ordered, worker_pool

# Pieces of work for each thread that may be done before the one whose turn it is: a large matrix keeps nobody waiting.
AHEAD: Final = 1 << 10


def diff(alignment: Alignment, level: Level = "full", progress: Progress = no_progress) -> DiffResult:
    """Measure how far adaptation (adapted - base) and safety tuning (safety - adapted) moved every shared tensor.

    alignment: of `base`, `adapted`, and optionally `safety` (of several, the first is measured). level: `norms` leaves
        out what needs the singular values of every matrix.

    Every checkpoint is read in file order, in stretches, on all cores.

    Raises CheckpointError when a tensor can't be read or holds NaN.
    """
    checkpoints = alignment.checkpoints
    safety = safety_role(checkpoints)
    roles = {"base": "base", "adapted": "adapted"} | ({"safety": safety} if safety else {})
    survey = Survey(alignment, {word: role for word, role in roles.items() if role in checkpoints})
    with worker_pool() as pool:
        measured = dict(progress(_measured(survey, pool, level), "comparing weights", len(alignment.pairs)))
    sums = {site: found.sums for site, found in measured.items()}
    pairs = [_pair(survey, pair, measured[pair.site]) for pair in alignment.pairs]
    towers = summaries(alignment.pairs, sums, lambda site: site.tower)
    text = next((tower.metrics for tower in towers if tower.key == "text"), None)
    return DiffResult(
        checkpoints={role: checkpoint.ref_model for role, checkpoint in checkpoints.items()},
        pairs=pairs,
        unmatched=list(alignment.unmatched),
        layers=summaries(alignment.pairs, sums, layer_key),
        blocks=summaries(alignment.pairs, sums, lambda site: site.block),
        towers=towers,
        verdict=verdict(alignment.pairs, sums, text),
        notes=list(alignment.notes),
        warnings=kinship(pairs),
    )


def _measured(survey: Survey, pool: ThreadPoolExecutor, level: Level) -> Iterator[tuple[Site, Measured]]:
    """Every pair, by its site, with what was measured of it, in file order."""
    pairs = survey.alignment.in_file_order()
    if level == "full":
        pairs = _spread(pairs, survey.needs_much)
    work = [work for pair in pairs for work in survey.tasks(pair, spectra=level == "full")]
    done = map_ordered(pool, survey.run, work, AHEAD * cores())
    for pair, group in groupby(done, key=lambda each: each[0].pair):
        results = [found for _, found in group]
        first, *others = [found.tally for found in results if found.tally is not None]
        for other in others:
            first.join(other)
        spectra = next((found.spectra for found in results if found.spectra is not None), PairSpectra())
        yield pair.site, survey.measured(pair, first, spectra)


def _spread(pairs: Sequence[Aligned], is_large: Callable[[Aligned], bool]) -> list[Aligned]:
    """The large ones far from each other, and none at the end: two of them would wait for one another's memory, and
    the last one would be waited for."""
    large, others = ([pair for pair in pairs if is_large(pair) == wanted] for wanted in (True, False))
    every = len(others) // (len(large) + 1)
    for number, pair in enumerate(large):
        others.insert(number * (every + 1), pair)
    return others


def _pair(survey: Survey, pair: Aligned, measured: Measured) -> Pair:
    return Pair(
        tower=pair.site.tower,
        layer=pair.site.layer,
        component=pair.site.component,
        block=pair.site.block,
        added=pair.site.own_layer is not None,
        own_layer=pair.site.own_layer,
        names={role: part.label() for role, part in pair.parts.items()},
        shape=list(pair.shape),
        dtype=survey.alignment.tensor(pair, survey.alignment.like).dtype_name,
        metrics=measured.metrics(),
    )
