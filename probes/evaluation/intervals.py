"""Rates and paired differences with 95% intervals. The unit is the request, not the prompt."""

import math
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from vlsurgery.probes.results import Rate

Floats = NDArray[np.float64]
RESAMPLES = 1000  # bootstrap draws
Z = 1.959963984540054  # the normal quantile of a two-sided 95% interval


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

    Wilson's, with n the number of requests, where each prompt is a request of its own or all requests have the same
    share (resampling those would give an interval of width 0). Otherwise a percentile bootstrap over requests.
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
        low, high = percentiles(weights @ sums / (weights @ sizes))
    return Rate(rate=share, low=low, high=high, n=len(values), requests=count)


def paired_difference(
    ours: Sequence[bool], theirs: Sequence[bool], requests: Sequence[Hashable]
) -> tuple[float, float, float]:
    """Mean of ours - theirs on the same prompts, with its 95% interval: value, low, high, all in [-1, 1].

    A percentile bootstrap over requests. Where the difference is the same in every request, resampling would give an
    interval of width 0, although exceptions may exist; the half-width is then `zero_count_bound`.
    """
    values = np.asarray(ours, dtype=np.float64) - np.asarray(theirs, dtype=np.float64)
    clusters = cluster_ids(requests)
    count = int(clusters.max()) + 1
    sums = np.bincount(clusters, values, minlength=count)
    sizes = np.bincount(clusters, minlength=count)
    value = float(values.mean())
    if np.ptp(sums / sizes) == 0:
        return value, max(-1.0, value - zero_count_bound(count)), min(1.0, value + zero_count_bound(count))
    weights = resample(count)
    return value, *percentiles(weights @ sums / (weights @ sizes))


def zero_count_bound(n: int) -> float:
    """Upper 95% bound (Wilson) of the share of exceptions, when n independent requests showed none."""
    return wilson(0, n)[1]


def cluster_ids(requests: Sequence[Hashable]) -> NDArray[np.int64]:
    """Requests as integers from 0, in order of first appearance."""
    seen: dict[Hashable, int] = {}
    return np.array([seen.setdefault(request, len(seen)) for request in requests], dtype=np.int64)


def resample(clusters: int, seed: int = 0) -> Floats:
    """Bootstrap weights [RESAMPLES, clusters]: how often each draw contains each cluster."""
    generator = np.random.default_rng(seed)
    return generator.multinomial(clusters, np.full(clusters, 1 / clusters), size=RESAMPLES).astype(np.float64)


def percentiles(draws: Floats) -> tuple[float, float]:
    """The percentile interval (95%) of bootstrap draws."""
    low, high = np.quantile(draws, (0.025, 0.975))
    return float(low), float(high)
