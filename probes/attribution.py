"""Attribution of lost refusals to blocks: gradient x delta along the path from adapted to base, and transplants.

With theta(c) = adapted + c (base - adapted) on every block and s the mean refusal log-odds, the fundamental theorem
of calculus gives s(1) - s(0) as the integral of <grad s(theta(c)), delta> over c: a sum over blocks. This is
integrated gradients (Sundararajan et al., arXiv 1703.01365, eq. 1) in weight space; like theirs it is complete. Its
integrand at c = 0 is the first-order effect of a single transplant. Gradients are each prompt's own, so that gains have
intervals over requests.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor

from vlsurgery.probes.evaluation.intervals import rate
from vlsurgery.probes.evaluation.mean_intervals import mean_estimate, request_means
from vlsurgery.probes.gradients import Gradients
from vlsurgery.probes.in_memory_merge import InMemoryMerge
from vlsurgery.probes.models import ChatModel
from vlsurgery.probes.models.forward import keeping_pictures
from vlsurgery.probes.models.reuse import BlockInputs
from vlsurgery.probes.path_integral import PathIntegral
from vlsurgery.probes.results import BlockGain, Ceiling, Completeness, Transplant
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
from vlsurgery.surgery.errors import SurgeryError
from vlsurgery.surgery.runtime.progress import Progress, no_progress

MIN_LOST = 4  # lost refusals, fewer are not attributed
MAX_LOST = 96  # prompts with a refusal that are scored
MAX_KEPT = 48  # prompts with an answer to keep that are scored
MAX_COMPLETENESS_ERROR = 0.05  # of the path map's sum, as a share of the measured change
MAX_PATH_POINTS = 33  # gradients taken along the path
MAX_KEPT_TOKENS = 32  # of an answer to keep that are scored, from its beginning
SOURCE = "base"


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


def attribute(
    live: InMemoryMerge, working: WorkingSet, progress: Progress = no_progress
) -> tuple[list[BlockGain], list[Transplant], Completeness, Ceiling]:
    """Path and endpoint maps, single transplants, completeness and ceiling, on the prompts whose refusal was lost.

    Raises SurgeryError where `too_few_lost`.
    """
    if reason := too_few_lost(working):
        raise SurgeryError(f"{reason}. Give more harmful prompts with --prompts.")
    with keeping_pictures(live.chat):
        return _attributed(live, working, progress)


def _attributed(
    live: InMemoryMerge, working: WorkingSet, progress: Progress
) -> tuple[list[BlockGain], list[Transplant], Completeness, Ceiling]:
    lost = evenly_spaced(working.lost, MAX_LOST)
    requests = [item.prompt.request for item in lost]
    batches = lost_choices(live.chat, lost)
    start = refusal_log_odds(live.chat, batches)
    with live.at(live.everywhere(**{SOURCE: 1.0})):
        change = refusal_log_odds(live.chat, batches) - start
    measured = request_means(change.numpy(), requests).mean()
    path, endpoint, points = _maps(live, batches, lost, progress)
    moved, costs = _transplants(live, batches, working, start, progress)
    total = float(request_means(path, requests).mean(0).sum())
    maps = {"path": path, "endpoint": endpoint}
    gains = [
        BlockGain(
            block=block,
            gain=gain,
            low=low,
            high=high,
            share=gain / total if total else None,
            cost=costs[block],
            method=method,
        )
        for method, values in maps.items()
        for block, (gain, low, high) in zip(live.blocks, _estimates(values, requests), strict=True)
    ]
    transplants = [
        Transplant(block=block, gain=gain, low=low, high=high)
        for block, (gain, low, high) in zip(live.blocks, _estimates(moved, requests), strict=True)
    ]
    completeness = Completeness(
        total=total,
        measured=measured,
        error=abs(total - measured) / abs(measured) if measured else None,
        points=points,
        rank_correlation=_rank_correlation(
            [gain.gain for gain in gains if gain.method == "endpoint"], [item.gain for item in transplants]
        ),
    )
    adapted = float(request_means(start.numpy(), requests).mean())
    return gains, transplants, completeness, _ceiling(live, working, adapted, adapted + measured)


def _estimates(values: np.ndarray, requests: Sequence[str]) -> list[tuple[float, float | None, float | None]]:
    """Per column of values [prompts, blocks] the mean over requests, and its interval."""
    found = [mean_estimate(column.tolist(), requests) for column in values.T]
    return [(0.0 if each.value is None else each.value, each.low, each.high) for each in found]


def _maps(
    live: InMemoryMerge,
    batches: Sequence[RefusalChoices],
    lost: Sequence[LostRefusal],
    progress: Progress,
) -> tuple[np.ndarray, np.ndarray, int]:
    """[prompts, blocks] path-averaged gains and those at the adapted point, and the number of points of the path.

    Points are added until the map sums to the measured change within MAX_COMPLETENESS_ERROR: few miss a steep rise.
    """
    gradients, source = Gradients(live), live.sources.index(SOURCE)
    ids, requests = [item.prompt.id for item in lost], [item.prompt.request for item in lost]

    def slopes(coefficient: float) -> tuple[np.ndarray, np.ndarray]:
        found = gradients.at(live.everywhere(**{SOURCE: coefficient}), batches, ids)
        return found.z.numpy(), found.jacobian[..., source].double().numpy()

    path = PathIntegral(slopes, lambda values: request_means(values, requests).mean(0))
    steps = path.refine(MAX_COMPLETENESS_ERROR, MAX_PATH_POINTS)
    with live.staying():
        for _ in progress(steps, "attributing along the path from adapted to base", MAX_PATH_POINTS):
            pass
    return path.total, path.start, path.points


def _transplants(
    live: InMemoryMerge, batches: Sequence[RefusalChoices], working: WorkingSet, start: Tensor, progress: Progress
) -> tuple[np.ndarray, dict[str, float | None]]:
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
