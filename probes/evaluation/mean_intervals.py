"""Means of a continuous measure, such as log-odds, with intervals over requests."""

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from vlsurgery.probes.evaluation.intervals import ONE_REQUEST, cluster_ids
from vlsurgery.probes.results import Estimate

CONFIDENCE = 0.95


def mean_estimate(values: Sequence[float], requests: Sequence[Hashable], looks: int = 1) -> Estimate:
    """The mean over requests of each request's mean, with Student's 95% interval over requests.

    values: one a prompt. requests: the request of each. looks: how many such intervals are read for one finding; each
    is then at level 1 - .05 / looks (Bonferroni), so that all hold at once in 95% of cases. `n` is the number of
    requests. From one request there is a mean and no interval.
    """
    if not values:
        return Estimate(value=None, reason="no prompt of this kind")
    means = request_means(np.asarray(values, dtype=np.float64), requests)
    count, value = len(means), float(means.mean())
    if count == 1:
        return Estimate(value=value, n=1, reason=ONE_REQUEST)
    quantile = float(stdtrit(count - 1, 1 - (1 - CONFIDENCE) / (2 * looks)))
    half = quantile * float(means.std(ddof=1)) / count**0.5
    return Estimate(value=value, low=value - half, high=value + half, n=count)


def mean_bounds(
    means: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | tuple[None, None]:
    """The same interval for many columns at once: [n] lower and upper bounds. means: [requests, n]. None from one
    request."""
    count = len(means)
    if count < 2:
        return None, None
    half = float(stdtrit(count - 1, 1 - (1 - CONFIDENCE) / 2)) * means.std(0, ddof=1) / count**0.5
    return means.mean(0) - half, means.mean(0) + half


def request_means(values: NDArray[np.float64], requests: Sequence[Hashable]) -> NDArray[np.float64]:
    """[requests, ...] the mean of each request's rows of values [prompts, ...]."""
    clusters = cluster_ids(requests)
    sizes = np.bincount(clusters)
    means = np.zeros((len(sizes), *values.shape[1:]))
    np.add.at(means, clusters, values)
    return means / sizes.reshape(-1, *(1,) * (values.ndim - 1))
