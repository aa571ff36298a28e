"""Separation of two classes by scores: AUROC and d' with intervals, and the null of the best of many AUROCs."""

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from vlsurgery.probes.evaluation.intervals import (
    RESAMPLES,
    Floats,
    cluster_ids,
    percentiles,
    resample,
    zero_count_bound,
)
from vlsurgery.probes.results import Estimate

Labels = NDArray[np.bool_]
AUROC_ROUNDING = 1e-12  # AUROCs that differ by less than this are equal


def auroc(scores: Floats, positive: Labels) -> Floats:
    """Probability that a positive scores above a negative, ties counting half: [columns] for scores [n, columns]."""
    return _aurocs(scores, positive[None])[0]


def _aurocs(scores: Floats, labels: Labels) -> Floats:
    """AUROC [labellings, columns] for labels [labellings, n], from rank sums (Mann and Whitney 1947)."""
    positives = labels.sum(axis=1, keepdims=True)
    wins = labels.astype(np.float64) @ rankdata(scores, axis=0) - positives * (positives + 1) / 2
    return wins / (positives * (len(scores) - positives))


def separation(scores: Floats, positive: Labels, requests: Sequence[Hashable]) -> list[tuple[Estimate, Estimate]]:
    """AUROC and d' of each column of scores [n, columns], with intervals from resampled requests.

    Where every draw has the same AUROC (1 when the classes do not overlap), its interval has the half-width
    `zero_count_bound` of the requests of the smaller class.
    d' = (mean of positives - mean of negatives) / sqrt(mean of their variances); `None` with a reason where both
    variances are 0.
    """
    clusters = cluster_ids(requests)
    count = int(clusters.max()) + 1
    weights = resample(count)[:, clusters]
    weights = weights[(weights[:, positive].sum(1) > 0) & (weights[:, ~positive].sum(1) > 0)]
    fewer = min(len(set(clusters[side].tolist())) for side in (positive, ~positive))
    return [
        (
            _area(column, positive, weights, count, zero_count_bound(fewer)),
            _distance(column, positive, weights, count),
        )
        for column in scores.T
    ]


def _area(scores: Floats, positive: Labels, weights: Floats, n: int, margin: float) -> Estimate:
    """AUROC of scores [n]. margin: half the width of the interval where all draws agree."""
    wins = (np.sign(scores[positive][:, None] - scores[~positive]) + 1) / 2
    ours, theirs = weights[:, positive], weights[:, ~positive]
    value = float(wins.mean())
    low, high = percentiles(((ours @ wins) * theirs).sum(1) / (ours.sum(1) * theirs.sum(1)))
    if high - low < AUROC_ROUNDING:
        low, high = max(0.0, value - margin), min(1.0, value + margin)
    return Estimate(value=value, low=low, high=high, n=n)


def _distance(scores: Floats, positive: Labels, weights: Floats, n: int) -> Estimate:
    """d' of scores [n]."""
    value = float(_dprime(scores, positive, np.ones((1, len(scores))))[0])
    if not np.isfinite(value):
        return Estimate(value=None, n=n, reason="the scores do not vary within either class")
    draws = _dprime(scores, positive, weights)
    low, high = percentiles(draws[np.isfinite(draws)])
    return Estimate(value=value, low=low, high=high, n=n)


def _dprime(scores: Floats, positive: Labels, weights: Floats) -> Floats:
    """d' under each row of weights [draws, n]; NaN or infinite where neither class varies."""
    means, variances = [], []
    for side in (positive, ~positive):
        share = weights[:, side] / weights[:, side].sum(1, keepdims=True)
        mean = share @ scores[side]
        means.append(mean)
        variances.append(share @ scores[side] ** 2 - mean**2)
    with np.errstate(divide="ignore", invalid="ignore"):
        return (means[0] - means[1]) / np.sqrt(np.maximum(sum(variances) / 2, 0))


def best_by_chance(scores: Floats, positive: Labels, requests: Sequence[Hashable], seed: int = 0) -> float:
    """95th percentile of the best AUROC over all columns when labels are shuffled: the null of the maximum.

    scores: [n, columns]. Labels move by request (`_shuffled`), since prompts of one request are not independent.
    """
    labels = _shuffled(positive, cluster_ids(requests), np.random.default_rng(seed))
    return float(np.quantile(_aurocs(scores, labels).max(axis=1), 0.95))


def _shuffled(positive: Labels, clusters: NDArray[np.int64], generator: np.random.Generator) -> Labels:
    """Labels [RESAMPLES, prompts], shuffled so that scores which ignore the label keep their distribution.

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
