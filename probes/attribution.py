"""Attribution of lost refusals to blocks: gradient x delta along the path from adapted to base, and transplants.

With theta(c) = adapted + c (base - adapted) on every block and s the mean refusal log-odds, the fundamental theorem
of calculus gives s(1) - s(0) as the integral of <grad s(theta(c)), delta> over c: a sum over blocks. This is
integrated gradients (Sundararajan et al., arXiv 1703.01365, eq. 1) in weight space; like theirs it is complete. Its
integrand at c = 0 is the first-order effect of a single transplant. Gradients are each prompt's own, so that gains have
intervals over requests. The same passes tell what sites, heads and experts have of a block's gain, and the gains of
control prompts, against which a null is made.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr
from torch import Tensor

from vlsurgery.probes.controls import control_choices, control_prompts
from vlsurgery.probes.evaluation.intervals import rate
from vlsurgery.probes.evaluation.mean_intervals import mean_estimate, request_means
from vlsurgery.probes.gradients import Gradients
from vlsurgery.probes.in_memory_merge import InMemoryMerge
from vlsurgery.probes.models import ChatModel
from vlsurgery.probes.models.forward import keeping_pictures
from vlsurgery.probes.models.reuse import BlockInputs
from vlsurgery.probes.part_gains import part_gains
from vlsurgery.probes.path_integral import PathIntegral
from vlsurgery.probes.permuted_prompts import permutation_null
from vlsurgery.probes.results import AttributionNull, BlockGain, Ceiling, Completeness, Interaction, Transplant
from vlsurgery.probes.scoring import (
    RefusalChoices,
    answer_states,
    greedy_matches,
    mean_divergence,
    refusal_choices,
    refusal_log_odds,
    scored_answers,
)
from vlsurgery.probes.targets import OPENING_TOKENS, LostRefusal, WorkingSet, evenly_spaced
from vlsurgery.probes.weight_parts import WeightParts, own_key_values
from vlsurgery.surgery.errors import SurgeryError
from vlsurgery.surgery.runtime.progress import Progress, no_progress

MIN_LOST = 4  # lost refusals, fewer are not attributed
MAX_LOST = 96  # prompts with a refusal that are scored
MAX_KEPT = 48  # prompts with an answer to keep that are scored
MAX_COMPLETENESS_ERROR = 0.05  # of the path map's sum, as a share of the measured change
MAX_PATH_POINTS = 33  # gradients taken along the path
MAX_KEPT_TOKENS = 32  # of an answer to keep that are scored, from its beginning
TOGETHER = 4  # blocks that are moved together, to see whether they interact
SOURCE = "base"
BLOCKS_ALONE = "attribution: this class mixes the prompts of a batch, so that sites and heads can't be told apart"
Floats = NDArray[np.float64]


def too_few_lost(working: WorkingSet) -> str | None:
    """The reason where too few refusals were lost to attribute, else None."""
    if len(working.lost) >= MIN_LOST:
        return None
    return (
        f"the base refuses {len(working.refuse)} of the harmful prompts and the adapted model answers "
        f"{len(working.lost)} of those; to say where refusals were lost takes at least {MIN_LOST}"
    )


def lost_choices(chat: ChatModel, lost: Sequence[LostRefusal]) -> list[RefusalChoices]:
    """Batches of lost refusals, each read at the first token in which refusal and answer differ."""
    return refusal_choices(
        chat, [item.prompt for item in lost], [item.refusal for item in lost], [item.answer for item in lost]
    )


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

    Raises SurgeryError where `too_few_lost`.
    """
    if reason := too_few_lost(working):
        raise SurgeryError(f"{reason}. Give more harmful prompts with --prompts.")
    with keeping_pictures(live.chat):
        return _attributed(live, working, progress)


def _attributed(live: InMemoryMerge, working: WorkingSet, progress: Progress) -> Attribution:
    lost = evenly_spaced(working.lost, MAX_LOST)
    controls, requests = control_prompts(working, lost), [item.prompt.request for item in lost]
    batches = lost_choices(live.chat, lost)
    start = refusal_log_odds(live.chat, batches)
    with live.at(live.everywhere(**{SOURCE: 1.0})):
        change = refusal_log_odds(live.chat, batches) - start
    measured = float(request_means(change.numpy(), requests).mean())
    parts = WeightParts.finest(live)
    maps = _maps(live, parts, batches, lost, controls, progress)
    moved, costs = _transplants(live, batches, working, start, progress)
    gains = _block_gains(live, maps, requests, costs)
    shared = own_key_values(live.alignment, live.like)
    fine, notes = part_gains(maps.parts, requests, parts, shared) if maps.parts is not None else ([], [BLOCKS_ALONE])
    transplants = _against_map(live, moved, maps.path, requests)
    total = float(request_means(maps.path, requests).mean(0).sum())
    endpoint = [gain.gain for gain in gains if gain.method == "endpoint"]
    adapted = float(request_means(start.numpy(), requests).mean())
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
        ceiling=_ceiling(live, working, adapted, adapted + measured),
        null=permutation_null(
            live.blocks, maps.path, requests, maps.controls, [item.prompt.request for item in controls]
        ),
        interaction=_interaction(live, batches, start, moved, maps.path, requests),
        notes=notes,
    )


def _block_gains(
    live: InMemoryMerge, maps: _Maps, requests: Sequence[str], costs: Mapping[str, float | None]
) -> list[BlockGain]:
    total = float(request_means(maps.path, requests).mean(0).sum())
    return [
        BlockGain(
            block=block,
            gain=gain,
            low=low,
            high=high,
            share=gain / total if total else None,
            cost=costs[block],
            method=method,
        )
        for method, values in (("path", maps.path), ("endpoint", maps.endpoint))
        for block, (gain, low, high) in zip(live.blocks, _estimates(values, requests), strict=True)
    ]


def _against_map(live: InMemoryMerge, moved: Floats, path: Floats, requests: Sequence[str]) -> list[Transplant]:
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
            beyond_map=mean_estimate(differences[:, at].tolist(), requests, looks=len(live.blocks)),
        )
        for at, (block, (gain, low, high)) in enumerate(zip(live.blocks, _estimates(moved, requests), strict=True))
    ]


def _interaction(
    live: InMemoryMerge,
    batches: Sequence[RefusalChoices],
    start: Tensor,
    moved: Floats,
    path: Floats,
    requests: Sequence[str],
) -> Interaction | None:
    """The blocks with the largest gains of the map moved together, against the sum of what each does alone.

    start: [prompts] the adapted model's log-odds. moved, path: [prompts, blocks]. None where fewer than two gain.
    """
    sizes = request_means(path, requests).mean(0)
    top = [int(at) for at in np.argsort(-sizes, kind="stable")[:TOGETHER] if sizes[at] > 0]
    if len(top) < 2:
        return None
    with live.at({live.blocks[at]: {SOURCE: 1.0} for at in top}):
        together = (refusal_log_odds(live.chat, batches) - start).numpy()
    singles = moved[:, top].sum(1)
    whole, alone, difference = (
        mean_estimate(values.tolist(), requests) for values in (together, singles, together - singles)
    )
    names = [live.blocks[at] for at in top]
    return Interaction(blocks=names, together=whole, singles=alone, difference=difference)


def _estimates(values: Floats, requests: Sequence[str]) -> list[tuple[float, float | None, float | None]]:
    """Per column of values [prompts, blocks] the mean over requests, and its interval."""
    found = [mean_estimate(column.tolist(), requests) for column in values.T]
    return [(0.0 if each.value is None else each.value, each.low, each.high) for each in found]


def _maps(
    live: InMemoryMerge,
    parts: WeightParts,
    batches: Sequence[RefusalChoices],
    lost: Sequence[LostRefusal],
    controls: Sequence[LostRefusal],
    progress: Progress,
) -> _Maps:
    """Gains of lost prompts and controls, from the same gradients.

    Points are added until the map sums to the measured change within MAX_COMPLETENESS_ERROR: few miss a steep rise.
    """
    gradients, source, count = Gradients(live, parts), live.sources.index(SOURCE), len(lost)
    ids = [item.prompt.id for item in (*lost, *controls)]
    requests = [item.prompt.request for item in lost]
    every = [*batches, *control_choices(live.chat, controls, count)]
    told: list[bool] = []

    def slopes(coefficient: float) -> tuple[Floats, Floats]:
        found, fine = gradients.at_parts(live.everywhere(**{SOURCE: coefficient}), every, ids)
        told.append(fine is not None)
        values = found.jacobian.double() if fine is None else fine
        return found.z.numpy(), values[..., source].numpy()

    path = PathIntegral(slopes, lambda values: request_means(values[:count], requests).mean(0))
    steps = path.refine(MAX_COMPLETENESS_ERROR, MAX_PATH_POINTS)
    with live.staying():
        for _ in progress(steps, "attributing along the path from adapted to base", MAX_PATH_POINTS):
            pass
    whole = WeightParts.blocks(live) if not all(told) else parts
    total, start = whole.summed(path.total, len(live.blocks)), whole.summed(path.start, len(live.blocks))
    return _Maps(total[:count], start[:count], total[count:], path.total[:count] if all(told) else None, path.points)


def _transplants(
    live: InMemoryMerge, batches: Sequence[RefusalChoices], working: WorkingSet, start: Tensor, progress: Progress
) -> tuple[Floats, dict[str, float | None]]:
    """Each base block alone in the adapted model: [prompts, blocks] gains in refusal log-odds, and per block the KL on
    the beginnings of the answers to keep, in nats. start: [prompts] the adapted model's log-odds."""
    kept = evenly_spaced(working.keep, MAX_KEPT)
    keep = scored_answers(live.chat, [prompt for prompt, _ in kept], [answer[:MAX_KEPT_TOKENS] for _, answer in kept])
    reference = answer_states(live.chat, keep)
    gains, costs = [], {}
    below = BlockInputs(live.chat, [*(batch.inputs for batch in batches), *(batch.inputs for batch in keep)])
    for block in progress(live.blocks, "transplanting single blocks"):
        with _transplanted(live, block, below):
            gains.append(refusal_log_odds(live.chat, batches) - start)
            costs[block] = mean_divergence(live.chat, keep, reference, live.adapted_head) if keep else None
    return torch.stack(gains, dim=1).numpy(), costs


@contextmanager
def _transplanted(live: InMemoryMerge, block: str, below: BlockInputs) -> Iterator[None]:
    """The model with one block of the base; the blocks below it, which are the adapted model's, do not run again."""
    layer = live.layer_of(block)
    with ExitStack() as stack:
        if below.works and layer is not None:
            below.advance(layer)
            stack.enter_context(below.beginning_there())
        stack.enter_context(live.at({block: {SOURCE: 1.0}}))
        yield


def _rank_correlation(one: Sequence[float], other: Sequence[float]) -> float | None:
    if len(set(one)) < 2 or len(set(other)) < 2:
        return None
    return float(spearmanr(one, other).statistic)


def _ceiling(live: InMemoryMerge, working: WorkingSet, adapted: float, graft: float) -> Ceiling:
    """Refusal log-odds of adapted and graft, and the share of the base's refusals that each begins greedily."""
    refusals = evenly_spaced(working.refuse, MAX_LOST)
    prompts = [prompt for prompt, _ in refusals]
    batches = scored_answers(live.chat, prompts, [refusal[:OPENING_TOKENS] for _, refusal in refusals])
    requests = [prompt.request for prompt in prompts]
    before = greedy_matches(live.chat, batches).tolist()
    with live.at(live.everywhere(**{SOURCE: 1.0})):
        after = greedy_matches(live.chat, batches).tolist()
    return Ceiling(
        adapted=adapted,
        graft=graft,
        adapted_refused=rate(before, requests),
        graft_refused=rate(after, requests),
    )
