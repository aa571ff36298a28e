"""Which blocks lost the refusals: gradient x delta along the path from adapted to base, checked by transplants.

With theta(c) = adapted + c (base - adapted) on every block and s the mean refusal log-odds, the fundamental theorem
of calculus gives s(1) - s(0) as the integral of <grad s(theta(c)), delta> over c: a sum over blocks. This is
integrated gradients (Sundararajan et al., arXiv 1703.01365, eq. 1) in weight space; like theirs it is complete. Its
integrand at c = 0 is the first-order effect of a single transplant.
"""

from collections.abc import Sequence

import numpy as np
from scipy.stats import spearmanr

from vlsurgery.probes.evaluation.statistics import rate
from vlsurgery.probes.merging import InMemoryMerge
from vlsurgery.probes.models import ChatModel
from vlsurgery.probes.results import BlockGain, Ceiling, Completeness, Transplant
from vlsurgery.probes.scoring import (
    RefusalChoices,
    ScoredAnswers,
    choices,
    greedy_matches,
    known,
    log_probabilities,
    mean_divergence,
    refusal_log_odds,
)
from vlsurgery.probes.targets import OPENING, LostRefusal, WorkingSet, spread
from vlsurgery.surgery.errors import SurgeryError
from vlsurgery.surgery.runtime.progress import Progress, no_progress

FEWEST_LOST = 8
MOST_LOST = 96
MOST_KEPT = 48
TOLERANCE = 0.05
POINTS = (6, 12, 24, 48)
SOURCE = "base"


def nothing_lost(working: WorkingSet) -> str | None:
    """Why there is too little loss to attribute, or None where there is enough."""
    if len(working.lost) >= FEWEST_LOST:
        return None
    return (
        f"the base refuses {len(working.refuse)} of the harmful prompts and the adapted model answers "
        f"{len(working.lost)} of those; to say where refusals were lost takes at least {FEWEST_LOST}"
    )


def lost_choices(chat: ChatModel, lost: Sequence[LostRefusal]) -> list[RefusalChoices]:
    """The requests whose refusal was lost, each at the token where refusal and answer part ways."""
    return choices(
        chat, [item.prompt for item in lost], [item.refusal for item in lost], [item.answer for item in lost]
    )


def attribute(
    live: InMemoryMerge, working: WorkingSet, progress: Progress = no_progress
) -> tuple[list[BlockGain], list[Transplant], Completeness, Ceiling]:
    """Both maps, the transplants that check them, and the ceiling, on the prompts whose refusal was lost.

    Raises SurgeryError where `nothing_lost`: there is nothing to attribute.
    """
    if reason := nothing_lost(working):
        raise SurgeryError(f"{reason}. Give more harmful prompts with --prompts.")
    lost = spread(working.lost, MOST_LOST)
    batches = lost_choices(live.chat, lost)
    path, points, measured, start = _path_map(live, batches, progress)
    endpoint = _gradient(live, batches, len(lost), 0.0)
    transplants, costs = _transplants(live, batches, working, start, progress)
    total = float(path.sum())
    gains = [
        BlockGain(
            block=block,
            gain=float(value),
            share=float(value) / total if total else None,
            cost=costs[block],
            method=m,
        )
        for m, values in (("path", path), ("endpoint", endpoint))
        for block, value in zip(live.blocks, values, strict=True)
    ]
    completeness = Completeness(
        total=total,
        measured=measured,
        error=abs(total - measured) / abs(measured) if measured else None,
        points=points,
        rank_correlation=_rank_correlation(endpoint, [item.gain for item in transplants]),
    )
    return gains, transplants, completeness, _ceiling(live, working, start, start + measured)


def _path_map(
    live: InMemoryMerge, batches: Sequence[RefusalChoices], progress: Progress
) -> tuple[np.ndarray, int, float, float]:
    """Path-averaged gain per block, the points that it took, the measured change, and the log-odds at its start.

    Gauss-Legendre points along the path, doubled until the map sums to the measured change within TOLERANCE: where
    refusals come back at a cliff, few points miss it.
    """
    start = float(refusal_log_odds(live.chat, batches).mean())
    with live.at(live.everywhere(**{SOURCE: 1.0})):
        measured = float(refusal_log_odds(live.chat, batches).mean()) - start
    count = sum(len(batch.owner) for batch in batches)
    gains = np.zeros(len(live.blocks))
    for points in POINTS:
        nodes, weights = np.polynomial.legendre.leggauss(points)
        grid = list(zip((nodes + 1) / 2, weights / 2, strict=True))
        steps = progress(grid, f"attributing, {points} points from adapted to base")
        gains = sum((weight * _gradient(live, batches, count, node) for node, weight in steps), np.zeros_like(gains))
        if abs(gains.sum() - measured) <= TOLERANCE * abs(measured):
            break
    return gains, points, measured, start


def _gradient(live: InMemoryMerge, batches: Sequence[RefusalChoices], count: int, coefficient: float) -> np.ndarray:
    """[blocks] slope of the mean refusal log-odds toward the base, `coefficient` of the way there."""
    with live.differentiable():
        live.move(live.tensor(live.everywhere(**{SOURCE: coefficient})))
        for batch in batches:
            (batch.log_odds(live.chat).sum() / count).backward()
        return live.gradient()[:, live.sources.index(SOURCE)].numpy()


def _transplants(
    live: InMemoryMerge, batches: Sequence[RefusalChoices], working: WorkingSet, start: float, progress: Progress
) -> tuple[list[Transplant], dict[str, float | None]]:
    """Each block of the base alone in the adapted model: what refusals gain, and what other answers pay (KL, nats)."""
    kept = spread(working.keep, MOST_KEPT)
    keep: list[ScoredAnswers] = known(live.chat, [prompt for prompt, _ in kept], [answer for _, answer in kept])
    reference = log_probabilities(live.chat, keep)
    transplants, costs = [], {}
    for block in progress(live.blocks, "transplanting single blocks"):
        with live.at({block: {SOURCE: 1.0}}):
            gain = float(refusal_log_odds(live.chat, batches).mean()) - start
            costs[block] = mean_divergence(live.chat, keep, reference) if keep else None
        transplants.append(Transplant(block=block, gain=gain))
    return transplants, costs


def _rank_correlation(one: Sequence[float] | np.ndarray, other: Sequence[float]) -> float | None:
    if len(set(one)) < 2 or len(set(other)) < 2:
        return None
    return float(spearmanr(one, other).statistic)


def _ceiling(live: InMemoryMerge, working: WorkingSet, adapted: float, graft: float) -> Ceiling:
    """How many of the base's refusals the adapted model and the graft would begin as the base does."""
    refusals = spread(working.refuse, MOST_LOST)
    prompts = [prompt for prompt, _ in refusals]
    batches = known(live.chat, prompts, [refusal[:OPENING] for _, refusal in refusals])
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
