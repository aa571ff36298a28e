"""Rates with 95% intervals. The unit is the request, not the prompt.

Every interval here obeys one law: more evidence for the same rate never widens it. That is why requests with several
prompts are counted by an effective number of requests (`effective_requests`) and not resampled: a bootstrap gives an
interval of width 0 to requests that agree.
"""

import math
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from vlsurgery.probes.results import Rate

Floats = NDArray[np.float64]
RESAMPLES = 1000  # bootstrap draws
Z = 1.959963984540054  # the normal quantile of a two-sided 95% interval
ONE_REQUEST = "one request shows nothing: an interval takes two"


def wilson(successes: float, n: float) -> tuple[float, float]:
    """Wilson's 95% score interval of a proportion from n independent trials, within [0, 1] (Wilson 1927).

    Both may be fractions: an effective number of trials and the successes among them. At n = 0 it is [0, 1].
    """
    if n == 0:
        return 0.0, 1.0
    share = successes / n
    centre = (share + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * math.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def effective_requests(values: Sequence[float] | Floats, clusters: NDArray[np.int64]) -> float:
    """How many independent prompts tell as much about the mean as these prompts do, of which some share a request.

    values: whole numbers, such as 0 and 1, or differences of these; [prompts]. clusters: the request of each, from 0.

    With one prompt a request it is the number of requests; with several that always agree, the same; with several that
    are independent, the number of prompts. Between these it is Kish's effective number under a design effect (Kish
    1965): K / (1 - u), where K = (sum of sizes)^2 / (sum of squared sizes) and u is the share of the variance that lies
    within requests. Beyond u = 1/2 it follows the tangent, 4 K u: there, one more request whose prompts agree would
    else lower it, and an interval would narrow as evidence shrinks. Where requests have equally many prompts, leaving
    requests out at the same mean never raises it. The price: of requests with five and more prompts that do not
    correlate, it counts fewer than there are.
    """
    known = np.asarray(values, dtype=np.float64)
    sums, squares, sizes = (np.bincount(clusters, weights) for weights in (known, known**2, np.ones_like(known)))
    prompts, spread = float(sizes.sum()), float((sizes**2).sum())
    whole = prompts * squares.sum() - sums.sum() ** 2  # the variance, times the squared number of prompts
    within = float((sizes * squares - sums**2).sum()) * prompts**2 / (spread * whole) if whole > 0 else 0.0
    gain = 1 / (1 - within) if within <= 0.5 else 4 * within
    return min(prompts, prompts**2 / spread * gain)


def rate(outcomes: Sequence[bool], requests: Sequence[Hashable]) -> Rate:
    """A share of prompts with its 95% interval: Wilson's, of the effective number of requests.

    Of the intervals that were tried (Agresti-Coull, Jeffreys, Clopper-Pearson and its mid-p form, Wilson's) Wilson's
    covers closest to 95% at its worst (`tests/benchmarks/interval_coverage.py`). Where counts are small and whole, no
    interval comes nearer: 92% at 50 requests and a rate of 2%, where the next one has 98%.
    One request has a rate, and no interval.
    """
    if not outcomes:
        return Rate(rate=None, reason="no prompt of this kind")
    clusters = cluster_ids(requests)
    count = int(clusters.max()) + 1
    share = sum(map(bool, outcomes)) / len(outcomes)
    if count == 1:
        return Rate(rate=share, n=len(outcomes), requests=1, reason=ONE_REQUEST)
    n = effective_requests(list(outcomes), clusters)
    low, high = wilson(share * n, n)
    # Rounding must not put a rate of 0 or 1 outside of its interval.
    return Rate(rate=share, low=min(low, share), high=max(high, share), n=len(outcomes), requests=count)


def unpaired_difference(first: Rate, second: Rate) -> tuple[float, float, float] | None:
    """second - first of independent requests, with a 95% interval: value, low, high, all in [-1, 1].

    Newcombe's hybrid of the two rates' own score intervals (Newcombe 1998, method 10). None where one has no interval.
    """
    if first.rate is None or first.low is None or first.high is None:
        return None
    if second.rate is None or second.low is None or second.high is None:
        return None
    value = second.rate - first.rate
    low = value - math.hypot(second.rate - second.low, first.high - first.rate)
    high = value + math.hypot(second.high - second.rate, first.rate - first.low)
    return value, low, high


def requests_to_show(bound: float, share: float = 1.0) -> int | None:
    """How many requests at this share it takes until the lower end of the interval reaches `bound`.

    Without a failure (share 1), 73 requests show a rate of at least .95. For an upper bound ask for 1 - bound and
    1 - share. None where no number of requests shows it: the share is not above the bound, or the bound is 1.
    """
    if bound <= 0:
        return 1
    if share <= bound or bound >= 1:
        return None
    return max(1, math.ceil(trials_behind(share, bound) - 1e-9))


def trials_behind(share: float, bound: float) -> float:
    """The number of independent trials whose score interval of `share` ends at `bound`, which differs from it."""
    return Z**2 * bound * (1 - bound) / (share - bound) ** 2


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
