"""Attribution of lost refusals to blocks: gradient x delta along the path from adapted to base, and transplants.

With theta(c) = adapted + c (base - adapted) on every block and s the mean refusal log-odds, the fundamental theorem
of calculus gives s(1) - s(0) as the integral of <grad s(theta(c)), delta> over c: a sum over blocks. This is
integrated gradients (Sundararajan et al., arXiv 1703.01365, eq. 1) in weight space; like theirs it is complete. Its
integrand at c = 0 is the first-order effect of a single transplant. Gradients are each prompt's own, so that gains have
intervals over requests. The same passes tell what sites, heads and experts have of a block's gain, and the gains of
control prompts, against which a null is made.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from scipy.stats import spearmanr

from vlsurgery.probes.attribution_passes import (
    AttributionPasses,
    Floats,
    MeasureEnds,
    Pass,
    PathEnds,
    TakeSlopes,
    TransplantEach,
    TransplantTogether,
)
from vlsurgery.probes.evaluation.mean_intervals import mean_estimate, request_means
from vlsurgery.probes.in_memory_merge import InMemoryMerge
from vlsurgery.probes.models.forward import keeping_pictures
from vlsurgery.probes.part_gains import part_gains
from vlsurgery.probes.path_integral import PathIntegral
from vlsurgery.probes.permuted_prompts import permutation_null
from vlsurgery.probes.results import AttributionNull, BlockGain, Ceiling, Completeness, Interaction, Transplant
from vlsurgery.probes.targets import WorkingSet
from vlsurgery.surgery.runtime.division import evenly_divided
from vlsurgery.surgery.runtime.progress import Progress, no_progress

MAX_COMPLETENESS_ERROR: Final = 0.05  # of the path map's sum, as a share of the measured change
MAX_PATH_POINTS: Final = 33  # gradients taken along the path
TOGETHER: Final = 4  # blocks that are moved together, to see whether they interact
BLOCKS_ALONE: Final = (
    "attribution: this class mixes the prompts of a batch, so that sites and heads can't be told apart"
)


@dataclass(frozen=True)
class PassMaker:
    """Who makes the passes of an attribution.

    make: makes some passes, and returns what each found, in order; with the label of their progress, if they are to
    show it. workers: how many passes are made at the same time.
    """

    make: Callable[[Sequence[Pass], str], list[Any]]
    workers: int = 1


@dataclass(frozen=True)
class Attribution:
    """What was found of the blocks.

    gains: path map, endpoint map, then the parts of blocks. notes: what was left out.
    """

    gains: list[BlockGain]
    transplants: list[Transplant]
    completeness: Completeness
    ceiling: Ceiling
    null: AttributionNull
    interaction: Interaction | None
    notes: list[str]


@dataclass(frozen=True)
class _Maps:
    """Gains per prompt, in nats. path, endpoint: [lost, blocks]. controls: [controls, blocks] along the path. parts:
    [lost, parts] along the path; None where only blocks could be told. points: gradients taken along the path."""

    path: Floats
    endpoint: Floats
    controls: Floats
    parts: Floats | None
    points: int


def attribute(live: InMemoryMerge, working: WorkingSet, progress: Progress = no_progress) -> Attribution:
    """Maps, transplants, completeness, null and ceiling, on the prompts whose refusal was lost.

    Raises TooFewLostError where `too_few_lost`.
    """
    passes = AttributionPasses(live, working, progress)
    with keeping_pictures(live.chat):
        try:
            return attributed(PassMaker(lambda some, label: [each.do(passes) for each in some]), progress)  # noqa: ARG005
        finally:
            passes.restore()


def attributed(maker: PassMaker, progress: Progress = no_progress) -> Attribution:
    """The same as `attribute`, by passes that others make. Raises TooFewLostError too."""
    (ends,) = maker.make([MeasureEnds()], "")
    measured = float(request_means(ends.change.numpy(), ends.requests).mean())
    maps = _maps(maker, ends, progress)
    moved, costs = _transplants(maker, ends)
    gains = _block_gains(ends, maps, costs)
    fine, notes = list[BlockGain](), [BLOCKS_ALONE]
    if maps.parts is not None:
        fine, notes = part_gains(maps.parts, ends.requests, ends.parts, ends.own_key_values)
    transplants = _against_map(ends, moved, maps.path)
    total = float(request_means(maps.path, ends.requests).mean(0).sum())
    endpoint = [gain.gain for gain in gains if gain.method == "endpoint"]
    adapted = float(request_means(ends.start.numpy(), ends.requests).mean())
    return Attribution(
        gains=[*gains, *fine],
        transplants=transplants,
        completeness=Completeness(
            total=total,
            measured=measured,
            error=abs(total - measured) / abs(measured) if measured else None,
            points=maps.points,
            rank_correlation=_rank_correlation(endpoint, [item.gain for item in transplants]),
        ),
        ceiling=Ceiling(
            adapted=adapted,
            graft=adapted + measured,
            adapted_refused=ends.adapted_refused,
            graft_refused=ends.graft_refused,
        ),
        null=permutation_null(ends.blocks, maps.path, ends.requests, maps.controls, ends.control_requests),
        interaction=_interaction(maker, ends, moved, maps.path),
        notes=notes,
    )


def _block_gains(ends: PathEnds, maps: _Maps, costs: Sequence[float | None]) -> list[BlockGain]:
    total = float(request_means(maps.path, ends.requests).mean(0).sum())
    return [
        BlockGain(
            block=block,
            gain=gain,
            low=low,
            high=high,
            share=gain / total if total else None,
            cost=cost,
            method=method,
        )
        for method, values in (("path", maps.path), ("endpoint", maps.endpoint))
        for block, cost, (gain, low, high) in zip(ends.blocks, costs, _estimates(values, ends.requests), strict=True)
    ]


def _against_map(ends: PathEnds, moved: Floats, path: Floats) -> list[Transplant]:
    """Each single transplant, and how far it is from the block's gain along the path.

    moved, path: [prompts, blocks].
    """
    differences = moved - path
    return [
        Transplant(
            block=block,
            gain=gain,
            low=low,
            high=high,
            beyond_map=mean_estimate(differences[:, at].tolist(), ends.requests, looks=len(ends.blocks)),
        )
        for at, (block, (gain, low, high)) in enumerate(zip(ends.blocks, _estimates(moved, ends.requests), strict=True))
    ]


def _interaction(maker: PassMaker, ends: PathEnds, moved: Floats, path: Floats) -> Interaction | None:
    """The blocks with the largest gains of the map moved together, against the sum of what each does alone.

    moved, path: [prompts, blocks]. None where fewer than two gain.
    """
    requests = ends.requests
    sizes = request_means(path, requests).mean(0)
    top = [int(at) for at in np.argsort(-sizes, kind="stable")[:TOGETHER] if sizes[at] > 0]
    if len(top) < 2:
        return None
    names = [ends.blocks[at] for at in top]
    (odds,) = maker.make([TransplantTogether(tuple(names))], "")
    together, singles = (odds - ends.start).numpy(), moved[:, top].sum(1)
    whole, alone, difference = (
        mean_estimate(values.tolist(), requests) for values in (together, singles, together - singles)
    )
    return Interaction(blocks=names, together=whole, singles=alone, difference=difference)


def _estimates(values: Floats, requests: Sequence[str]) -> list[tuple[float, float | None, float | None]]:
    """Per column of values [prompts, blocks] the mean over requests, and its interval."""
    found = [mean_estimate(column.tolist(), requests) for column in values.T]
    return [(0.0 if each.value is None else each.value, each.low, each.high) for each in found]


def _maps(maker: PassMaker, ends: PathEnds, progress: Progress) -> _Maps:
    """Gains of lost prompts and controls, from the same gradients.

    Points are added until the map sums to the measured change within MAX_COMPLETENESS_ERROR: few miss a steep rise.
    """
    count, told = len(ends.requests), list[bool]()

    def slopes(coefficient: float) -> tuple[Floats, Floats]:
        z, values, by_part = _slopes(maker, ends, coefficient)
        told.append(by_part)
        return z, values

    path = PathIntegral(slopes, lambda values: request_means(values[:count], ends.requests).mean(0))
    steps = path.refine(MAX_COMPLETENESS_ERROR, MAX_PATH_POINTS)
    for _ in progress(steps, "attributing along the path from adapted to base", MAX_PATH_POINTS):
        pass
    by_part = all(told)
    total, start = path.total, path.start
    if by_part:
        total, start = (ends.parts.summed(values, len(ends.blocks)) for values in (total, start))
    return _Maps(total[:count], start[:count], total[count:], path.total[:count] if by_part else None, path.points)


def _slopes(maker: PassMaker, ends: PathEnds, coefficient: float) -> tuple[Floats, Floats, bool]:
    """[prompts] log-odds and [prompts, parts] slopes at a place on the path, of lost prompts and controls; and whether
    all were told by part, else they are [prompts, blocks]."""
    numbers = range(ends.batches)
    shares = evenly_divided(numbers, ends.batches if maker.workers > 1 else 1)
    found = maker.make([TakeSlopes(coefficient, tuple(some)) for some in shares], "")
    z = np.empty(len(ends.requests) + len(ends.control_requests))
    values = np.empty((len(z), found[0].slopes.shape[1]))
    for each in found:
        z[each.owner], values[each.owner] = each.z, each.slopes
    return z, values, all(each.by_part for each in found)


def _transplants(maker: PassMaker, ends: PathEnds) -> tuple[Floats, list[float | None]]:
    """Each base block alone in the adapted model: [prompts, blocks] gains in refusal log-odds, and per block the KL on
    the beginnings of the answers to keep, in nats."""
    shares = evenly_divided(ends.blocks, maker.workers)
    found = maker.make([TransplantEach(tuple(some)) for some in shares], "transplanting single blocks")
    gains = [(each.odds - ends.start[:, None]).numpy() for each in found]
    return np.concatenate(gains, axis=1), [cost for each in found for cost in each.costs]


def _rank_correlation(one: Sequence[float], other: Sequence[float]) -> float | None:
    if len(set(one)) < 2 or len(set(other)) < 2:
        return None
    return float(spearmanr(one, other).statistic)
