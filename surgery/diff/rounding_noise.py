"""What storing `adapted` rounded away, and its effect on the two deltas of a pair, estimated from a sample of entries.

The sample is binned by the binary exponent that an entry has in `adapted`: [7, 256] float64, over the exponent as
float32 stores it. Rows: number of entries, sums of d1^2 and of d2^2; of the entries that both deltas change, number,
sums of d1^2, of d2^2 and of |d1 d2|. `kernels.add_sample` fills the bins.
"""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import numpy as np

from vlsurgery.surgery.diff.nulls import RELATED_COSINE

if TYPE_CHECKING:
    from vlsurgery.surgery.diff.metrics import DeltaSums

# Bits of the significand, the leading one included, and the exponent of the smallest normal number.
PRECISION: Final = {"BF16": (8, -126), "F16": (11, -14), "F32": (24, -126), "F64": (53, -1022)}
EXPONENTS: Final = 256
BIAS: Final = 127

# Of tensors with more entries than MAX_UNSAMPLED every 17th is sampled: 17 is prime to the sizes of rows and heads, so
# that no row and no column is left out.
STRIDE: Final = 17
MAX_UNSAMPLED: Final = 1 << 16


def independent_sums(
    bins: np.ndarray,
    variance: float,
    entries: int,
    vl: "DeltaSums",
    safety: "DeltaSums",
    safetensors_dtypes: Mapping[str, str],
) -> dict[str, float]:
    """What is expected of two deltas whose moves are independent, by the names that `BetweenSums` has for it.

    bins: of the sample. variance: the sample's sum of (d1 d2)^2. entries: of the pair. vl, safety: the sums of both
    deltas over all entries. safetensors_dtypes: role -> dtype by the format's own name.
    """
    sampled = float(bins[0].sum())
    scale = entries / sampled if sampled else 0.0
    both = float(bins[3].sum()) * scale
    if are_related(vl, safety):
        products = _products(bins, safetensors_dtypes)
        shared, unshared = float(products.sum()) * scale, 0.0
        opposed, other = float((bins[3] * _conflict(products, *bins[4:])).sum()) * scale, both / 2
    else:
        norms = math.sqrt(vl.delta_squared * safety.delta_squared)
        rho = max(-1.0, -vl.after_squared / norms) if norms else 0.0
        shared = unshared = -vl.after_squared
        opposed = other = both * (0.5 - math.asin(rho) / math.pi)
    return {
        "shared": shared,
        "unshared": unshared,
        "opposed_shared": opposed,
        "opposed_unshared": other,
        "variance": variance * scale,
    }


def _products(bins: np.ndarray, safetensors_dtypes: Mapping[str, str]) -> np.ndarray:
    """Per bin, the expected inner product of two deltas whose moves are independent and share all rounding; never
    above 0.

    With u an entry's ulp, moves much larger than u leave -u^2/12 (Widrow and Kollar 2008, "Quantization Noise"): the
    rounding error is uniform and independent of them. Of moves much smaller than u, only the rare ones that cross to
    the next value are left. They end just over the threshold, so the next move takes half of them back: -s/2, where s
    is the mean squared delta. (1 - exp(-6 s/u^2)) u^2/12 joins the two, s being the smaller of the
    two deltas' mean squares at entries of that ulp. In simulations of normal moves of all sizes it is within 20%
    wherever a tenth of the entries or more change; of heavy-tailed moves it overstates by up to a factor of two.

    A tensor that is stored in a finer dtype than `adapted` keeps even its smallest moves, so its delta sets no limit.
    """
    bits, lowest = PRECISION[safetensors_dtypes["adapted"]]
    exponents = np.maximum(np.arange(EXPONENTS, dtype=np.float64) - BIAS, lowest)
    squared_ulp = np.exp2(2 * (exponents - (bits - 1)))
    moved = np.full(EXPONENTS, np.inf)
    for role, sums in (("base", bins[1]), ("safety", bins[2])):
        if PRECISION[safetensors_dtypes[role]][0] <= bits:
            moved = np.minimum(moved, sums / np.maximum(bins[0], 1) / squared_ulp)
    return bins[0] * squared_ulp * np.expm1(-6 * moved) / 12


def are_related(vl: "DeltaSums", safety: "DeltaSums") -> bool:
    """Whether `adapted` is related to base or to safety, by the cosines of this pair's tensors."""
    return max(0.0 if delta.cosine is None else delta.cosine for delta in (vl, safety)) >= RELATED_COSINE


def _conflict(product: np.ndarray, first: np.ndarray, second: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """The share of opposed signs among entries that both deltas change, from the expected <d1, d2> and the sums of
    d1^2, d2^2 and |d1 d2| over them.

    For normal entries of correlation rho it is 1/2 - asin(rho)/pi (Sheppard 1899). Coarse deltas, of few distinct
    sizes, oppose each other as often as their weighted share says, (1 - <d1, d2> / weight) / 2. K = weight / norms
    tells which they are: it is 1 for deltas of one size, and (2/pi)(sqrt(1 - rho^2) + rho asin(rho)) for normal ones.
    """
    norms = np.sqrt(first * second)
    rho = np.clip(_over(product, norms, 0.0), -1, 1)
    normal = 2 / math.pi * (np.sqrt(1 - np.square(rho)) + rho * np.arcsin(rho))
    coarse = np.clip(_over(weight - normal * norms, norms * np.maximum(1 - normal, 1e-9), 0.0), 0, 1)
    weighted = np.clip((1 - _over(product, weight, 0.0)) / 2, 0, 1)
    plain = 0.5 - np.arcsin(rho) / math.pi
    return plain + coarse * (weighted - plain)


def _over(above: np.ndarray, below: np.ndarray, otherwise: float) -> np.ndarray:
    """above / below, or `otherwise` where `below` is 0."""
    return np.divide(above, below, out=np.full_like(above, otherwise), where=below > 0)
