"""Intervals and separations whose unit is the request, not the prompt."""

import math
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from vlsurgery.probes.results import Estimate, Rate

Floats = NDArray[np.float64]
RESAMPLES = 1000
Z = 1.959963984540054  # two-sided 95%
ROUNDING = 1e-12  # two AUROCs that are nearer than this are the same


def wilson(successes: float, n: int) -> tuple[float, float]:
    """Wilson's 95% interval of a proportion from n independent trials, within [0, 1] (Wilson 1927)."""
    if n == 0:
        return 0.0, 1.0
    share = successes / n
    centre = (share + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * math.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def rate(outcomes: Sequence[bool], requests: Sequence[Hashable]) -> Rate:
    """A rate with its 95% interval.

    Wilson's where each prompt is a request of its own, or where all requests have the same share (resampling them
    would give an interval of no width); there n is the number of requests. Otherwise a percentile bootstrap over
    requests.
    """
    if not outcomes:
        return Rate(rate=None, reason="no prompt of this kind")
    values = np.asarray(outcomes, dtype=np.float64)
    clusters = cluster_ids(requests)
    count = int(clusters.max()) + 1
    share = float(values.mean())
    sums = np.bincount(clusters, values, minlength=count)
    sizes = np.bincount(clusters, minlength=count)
    if count == len(values) or np.ptp(sums / sizes) == 0:
        low, high = wilson(share * count, count)
    else:
        weights = resample(count)
        low, high = np.quantile(weights @ sums / (weights @ sizes), (0.025, 0.975))
    return Rate(rate=share, low=float(low), high=float(high), n=len(values), requests=count)


def paired_difference(
    ours: Sequence[bool], theirs: Sequence[bool], requests: Sequence[Hashable]
) -> tuple[float, float, float]:
    """Mean of ours - theirs on the same prompts, with its 95% interval: value, low, high, all in [-1, 1].

    A percentile bootstrap over requests. Where the difference is the same in every request, resampling would give an
    interval of no width; but no discordant request among n does not show that there is none, so the interval is then
    as wide as `unseen` allows.
    """
    values = np.asarray(ours, dtype=np.float64) - np.asarray(theirs, dtype=np.float64)
    clusters = cluster_ids(requests)
    count = int(clusters.max()) + 1
    sums = np.bincount(clusters, values, minlength=count)
    sizes = np.bincount(clusters, minlength=count)
    value = float(values.mean())
    if np.ptp(sums / sizes) == 0:
        return value, max(-1.0, value - unseen(count)), min(1.0, value + unseen(count))
    weights = resample(count)
    low, high = np.quantile(weights @ sums / (weights @ sizes), (0.025, 0.975))
    return value, float(low), float(high)


def unseen(n: int) -> float:
    """How large the share of exceptions may be when n independent requests showed none: Wilson's upper bound."""
    return wilson(0, n)[1]


def cluster_ids(requests: Sequence[Hashable]) -> NDArray[np.int64]:
    """Requests as integers from 0, in order of first appearance."""
    seen: dict[Hashable, int] = {}
    return np.array([seen.setdefault(request, len(seen)) for request in requests], dtype=np.int64)


def resample(clusters: int, seed: int = 0) -> Floats:
    """How often each cluster is drawn in each of RESAMPLES bootstrap draws: [RESAMPLES, clusters]."""
    generator = np.random.default_rng(seed)
    return generator.multinomial(clusters, np.full(clusters, 1 / clusters), size=RESAMPLES).astype(np.float64)


def auroc(scores: Floats, positive: NDArray[np.bool_]) -> Floats:
    """Probability that a positive scores above a negative, ties counting half: [columns] for scores [n, columns]."""
    return _wins(scores, positive).mean(axis=(0, 1))


def _wins(scores: Floats, positive: NDArray[np.bool_]) -> Floats:
    """[positives, negatives, columns]: 1 where the positive wins, .5 at a tie."""
    above = scores[positive][:, None] - scores[~positive][None]
    return (np.sign(above) + 1) / 2


def separation(
    scores: Floats, positive: NDArray[np.bool_], requests: Sequence[Hashable]
) -> list[tuple[Estimate, Estimate]]:
    """AUROC and d' of each column of scores [n, columns], with intervals from resampled requests.

    Where every draw has the same AUROC (1 when the classes do not overlap), its interval is as wide as `unseen` allows
    with the requests of the class that has fewer.
    d' = (mean of positives - mean of negatives) / sqrt(mean of their variances); `None` with a reason where both
    variances are 0.
    """
    clusters = cluster_ids(requests)
    count = int(clusters.max()) + 1
    weights = resample(count)[:, clusters]
    both = (weights[:, positive].sum(1) > 0) & (weights[:, ~positive].sum(1) > 0)
    fewer = min(len(set(clusters[side].tolist())) for side in (positive, ~positive))
    return [
        (
            _area(scores[:, column], positive, weights[both], count, unseen(fewer)),
            _distance(scores[:, column], positive, weights[both], count),
        )
        for column in range(scores.shape[1])
    ]


def _area(scores: Floats, positive: NDArray[np.bool_], weights: Floats, n: int, margin: float) -> Estimate:
    """AUROC of one column. margin: half the width of an interval that resampling leaves without any."""
    wins = _wins(scores[:, None], positive)[..., 0]
    ours, theirs = weights[:, positive], weights[:, ~positive]
    areas = ((ours @ wins) * theirs).sum(1) / (ours.sum(1) * theirs.sum(1))
    value, low, high = float(wins.mean()), _low(areas), _high(areas)
    if high - low < ROUNDING:
        low, high = max(0.0, value - margin), min(1.0, value + margin)
    return Estimate(value=value, low=low, high=high, n=n)


def _distance(scores: Floats, positive: NDArray[np.bool_], weights: Floats, n: int) -> Estimate:
    """d' of one column."""
    value = _dprime(scores, positive, np.ones((1, len(scores))))
    if not np.isfinite(value).all():
        return Estimate(value=None, n=n, reason="the scores do not vary within either class")
    spread = _dprime(scores, positive, weights)
    spread = spread[np.isfinite(spread)]
    return Estimate(value=float(value[0]), low=_low(spread), high=_high(spread), n=n)


def _low(draws: Floats) -> float:
    return float(np.quantile(draws, 0.025))


def _high(draws: Floats) -> float:
    return float(np.quantile(draws, 0.975))


def _dprime(scores: Floats, positive: NDArray[np.bool_], weights: Floats) -> Floats:
    means, variances = [], []
    for side in (positive, ~positive):
        share = weights[:, side] / weights[:, side].sum(1, keepdims=True)
        mean = share @ scores[side]
        means.append(mean)
        variances.append(share @ scores[side] ** 2 - mean**2)
    with np.errstate(divide="ignore", invalid="ignore"):
        return (means[0] - means[1]) / np.sqrt(np.maximum(sum(variances) / 2, 0))


def best_by_chance(scores: Floats, positive: NDArray[np.bool_], requests: Sequence[Hashable], seed: int = 0) -> float:
    """95th percentile of the best AUROC over all columns when labels are shuffled: the null of a maximum.

    scores: [n, columns]. Labels move by request, since prompts of one request are no independent evidence
    (`_shuffled`).
    """
    from scipy.stats import rankdata

    labels = _shuffled(positive, cluster_ids(requests), np.random.default_rng(seed)).astype(np.float64)
    hits = labels.sum(axis=1, keepdims=True)
    wins = labels @ rankdata(scores, axis=0) - hits * (hits + 1) / 2
    best = (wins / (hits * (len(scores) - hits))).max(axis=1)
    return float(np.quantile(best, 0.95))


def _shuffled(
    positive: NDArray[np.bool_], clusters: NDArray[np.int64], generator: np.random.Generator
) -> NDArray[np.bool_]:
    """RESAMPLES relabellings under which scores that ignore the label look as before: [RESAMPLES, prompts].

    A request with both classes (a harmful prompt and its harmless twin) swaps them as a whole, or not, with even odds;
    requests of one class exchange their labels. Where requests differ in size, the number of positives varies.
    """
    sizes = np.bincount(clusters)
    share = np.bincount(clusters, positive) / sizes
    alone = (share == 0) | (share == 1)
    swapped = ~alone & (generator.random((RESAMPLES, len(sizes))) < 0.5)
    exchanged = np.zeros((RESAMPLES, len(sizes)), dtype=bool)
    exchanged[:, alone] = generator.permuted(np.tile(share[alone] == 1, (RESAMPLES, 1)), axis=1)
    return np.where(alone[clusters], exchanged[:, clusters], positive ^ swapped[:, clusters])
