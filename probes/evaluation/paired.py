"""Differences between two models on the same prompts: the exact McNemar test, and a paired score interval."""

import math
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from vlsurgery.probes.evaluation.intervals import Z, cluster_ids, effective_requests

NEAR = 1e-12  # how far beside the difference itself a bound is looked for


class PairedTest(NamedTuple):
    """A difference on the same prompts. value, low, high: in [-1, 1], the last two a 95% interval. p: two-sided.

    low, high and p are None where there is one request, which shows nothing.
    """

    value: float
    low: float | None
    high: float | None
    p: float | None


def paired_difference(ours: Sequence[bool], theirs: Sequence[bool], requests: Sequence[Hashable]) -> PairedTest:
    """The share of ours minus that of theirs on the same prompts, its 95% interval, and p of no difference.

    Interval: Tango's score interval, with the effective number of requests in place of that of prompts. p: the exact
    McNemar test; where requests have several prompts, its generalisation (`sign_flip_p`).
    """
    values = np.asarray(ours, dtype=np.int64) - np.asarray(theirs, dtype=np.int64)
    clusters = cluster_ids(requests)
    value = float(values.mean())
    if clusters.max() == 0:
        return PairedTest(value, None, None, None)
    n = effective_requests(values.astype(np.float64), clusters)
    low, high = tango(n * float((values > 0).mean()), n * float((values < 0).mean()), n)
    sums = np.bincount(clusters, values).astype(np.int64)
    return PairedTest(value, min(low, value), max(high, value), sign_flip_p(sums))


def sign_flip_p(sums: NDArray[np.int64]) -> float:
    """The exact two-sided p that requests differ in neither direction, from each request's sum of differences.

    If neither model does it more often, every sum is as likely with the other sign. p is the share, of all ways to
    choose the signs, in which the total is at least as far from 0 as it is: counted, not drawn. With one prompt a
    request this is the exact McNemar test, a binomial test of the discordant requests (McNemar 1947).
    """
    sizes = np.abs(sums[sums != 0])
    reach = int(sizes.sum())
    chances = np.zeros(reach + 1)  # of each total of those with a plus
    chances[0] = 1.0
    for size in sizes:
        moved = np.zeros_like(chances)
        moved[size:] = chances[: reach + 1 - size]
        chances = (chances + moved) / 2
    totals = np.abs(2 * np.arange(reach + 1) - reach)
    return min(1.0, float(chances[totals >= abs(int(sums.sum()))].sum()))


def tango(ours_only: float, theirs_only: float, n: float) -> tuple[float, float]:
    """Tango's 95% score interval of the difference (ours_only - theirs_only) / n of n pairs, within [-1, 1].

    ours_only, theirs_only: the two kinds of discordant pairs. All three may be fractions, of an effective n.

    A difference belongs to it where the score test does not reject it (Tango 1998): |ours_only - theirs_only - n d| <=
    Z sqrt(n v), with v the variance of one pair's difference under d (`pair_variance`). It has a width where no pair
    is discordant too.
    """
    value = (ours_only - theirs_only) / n

    def beyond(difference: float) -> float:
        """Positive where the score test rejects the difference."""
        variance = pair_variance(ours_only / n, theirs_only / n, difference)
        return n * (value - difference) ** 2 - Z**2 * variance

    return _root(beyond, value, -1.0), _root(beyond, value, 1.0)


def _root(beyond: Callable[[float], float], value: float, end: float) -> float:
    """Where between the difference and the end of its range the score test begins to reject."""
    near = value + math.copysign(NEAR, end)
    return end if abs(end - value) <= NEAR else float(brentq(beyond, near, end, xtol=1e-14, rtol=1e-14))


def pair_variance(ours_only: float, theirs_only: float, difference: float) -> float:
    """Variance of one pair's difference, at the likeliest shares of pairs under which the true one is `difference`.

    ours_only, theirs_only: the shares of discordant pairs that were seen.
    """
    # The likeliest share q of "theirs only" solves 2 q^2 + b q + c = 0.
    b = difference * (2 - ours_only + theirs_only) - ours_only - theirs_only
    c = -theirs_only * difference * (1 - difference)
    root = math.sqrt(max(0.0, b * b - 8 * c))
    # Of the two forms of the solution, the one that does not subtract nearly equal numbers.
    share = -2 * c / (b + root) if b > 0 else (root - b) / 4
    return max(0.0, 2 * share + difference * (1 - difference))


def requests_to_show_difference(bound: float, value: float, low: float, requests: int) -> int | None:
    """How many requests it takes until the lower end of a paired interval reaches `bound`.

    value, low: the difference and the lower end that so many requests gave. The share of discordant pairs, which these
    imply, is taken to stay. None where no number of requests shows it: the difference is not above the bound.
    """
    if value <= bound:
        return None
    if bound <= -1 or low <= -1:
        return requests if low >= bound else None
    seen = requests * (value - low) ** 2 / Z**2  # the variance of a pair's difference at the lower end

    def variance(discordant: float, at: float) -> float:
        return pair_variance((discordant + value) / 2, (discordant - value) / 2, at)

    least, most = abs(value), 1.0
    if seen <= variance(least, low):
        discordant = least
    elif seen >= variance(most, low):
        discordant = most
    else:
        discordant = float(brentq(lambda each: variance(each, low) - seen, least, most))
    return max(1, math.ceil(Z**2 * variance(discordant, bound) / (value - bound) ** 2 - 1e-9))
