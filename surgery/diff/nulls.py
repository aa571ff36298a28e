"""What two deltas have in common when they have nothing to do with each other.

The VL delta d1 (adapted - base) and the safety delta d2 (safety - adapted) both contain `adapted`. Whatever of
`adapted` is noise enters the one with a plus and the other with a minus, so that their inner product is negative
before either means anything. The nulls here say how negative.

Related (fine-tuned from one another): the noise is what storing `adapted` in its dtype left, at most half a unit in the
last place (ulp) per entry. If safety tuning went on from weights that were never rounded, or from the base, all of it
is shared; if it started from the stored checkpoint, none is. The null is the range between the two, and its mean the
end where all is shared. `vlsurgery.surgery.diff.rounding_noise` estimates it.

Unrelated (`adapted` has a cosine below .5 with both others): all of `adapted` is noise, and the null of three
independent models of one size is -.5.

Beyond that a null takes the signs of the products d1 d2 to be independent: deltas that share structure for a reason
that is neither noise nor safety (one data set in both) go beyond it as well. A benign fine-tune is the control.
"""

import math
from typing import Final

from vlsurgery.surgery.results import Null

# Two versions of a tensor whose cosine is below this are unrelated: unrelated models have 0, fine-tuned ones .99 and
# more. The tensors of norms do not count: their entries are near 1 in every model.
RELATED_COSINE: Final = 0.5
NORMAL_95: Final = 1.96  # standard deviations within which 95% of a normal variable lie


def cosine_null(shared: float, unshared: float, variance: float, norms: float) -> Null:
    """The cosine of two deltas whose moves are independent.

    shared, unshared, variance: of the deltas' inner product, as `metrics.BetweenSums` has them. norms: product of
    their norms.
    """
    spread = NORMAL_95 * math.sqrt(variance)
    low, mean, high = (clamp(x / norms, -1.0) for x in (shared - spread, shared, unshared + spread))
    return Null(mean=mean, low=low, high=high)


def reversal(cosine: float) -> float:
    """Share of the safety delta's squared norm that points straight back along the VL delta: max(0, -cosine)^2."""
    return min(0.0, cosine) ** 2


def reversal_null(cosines: Null) -> Null:
    return Null(mean=reversal(cosines.mean), low=reversal(cosines.high), high=reversal(cosines.low))


def conflict_null(opposed_shared: float, opposed_unshared: float, both: float) -> Null:
    """The share of opposed signs, from the expected numbers of opposed entries among the `both` that both deltas
    change, each counted as often as a coin would give."""
    spread = NORMAL_95 * math.sqrt(0.25 / both)
    mean, other = (clamp(opposed / both, 0.0) for opposed in (opposed_shared, opposed_unshared))
    return Null(mean=mean, low=max(0.0, min(mean, other) - spread), high=min(1.0, max(mean, other) + spread))


def weighted_conflict(product: float, weight: float) -> float:
    """Share of `weight`, the sum of |d1 d2|, in entries that oppose each other: (1 - <d1, d2> / weight) / 2."""
    return clamp((1 - product / weight) / 2, 0.0)


def weighted_conflict_null(shared: float, unshared: float, variance: float, weight: float) -> Null:
    spread = NORMAL_95 * math.sqrt(variance)
    low, mean, high = (weighted_conflict(x, weight) for x in (unshared + spread, shared, shared - spread))
    return Null(mean=mean, low=low, high=high)


def clamp(value: float, lowest: float) -> float:
    """The value within [lowest, 1], which rounding may have carried it out of."""
    return min(1.0, max(lowest, value))
