"""What storing `adapted` rounded away, and what that does to the two deltas of a pair, estimated from its entries."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, Self

import numpy as np

from vlsurgery.surgery.diff import kernels
from vlsurgery.surgery.diff.nulls import KIN

if TYPE_CHECKING:
    from vlsurgery.surgery.diff.metrics import DeltaSums

# Bits of the significand, the leading one included, and the exponent of the smallest normal number.
PRECISION: Final = {"BF16": (8, -126), "F16": (11, -14), "F32": (24, -126), "F64": (53, -1022)}
EXPONENTS: Final = 256
BIAS: Final = 127

# Large tensors are sampled: every 17th entry, a stride that is prime to the sizes of rows and heads, so that no row
# and no column is left out.
STRIDE: Final = 17
ALL_BELOW: Final = 1 << 16


class Noise(NamedTuple):
    """What is expected of two deltas d1 and d2 whose moves are independent; sums, which add up over pairs.

    shared, unshared: of <d1, d2>, where all of the noise of `adapted` is in both and where none is. opposed_shared,
    opposed_unshared: of the number of entries that both change in opposite ways. variance: of <d1, d2> if every
    product's sign were a coin's, the sum of (d1 d2)^2.
    """

    shared: float
    unshared: float
    opposed_shared: float
    opposed_unshared: float
    variance: float


@dataclass(frozen=True)
class Sample:
    """Some entries of a pair, by their binary exponent in `adapted`.

    entries: how many the pair has. bins: [7, 256] float64, by the exponent as float32 stores it: sampled entries,
    sums of d1^2 and of d2^2; of those that both deltas change the number, sums of d1^2, of d2^2 and of |d1 d2|.
    variance: sum of (d1 d2)^2.
    """

    entries: int
    bins: np.ndarray
    variance: float

    @classmethod
    def of(cls, base: np.ndarray, adapted: np.ndarray, safety: np.ndarray, entries: int) -> Self:
        """Of a stretch of three tensors that have so many entries in all."""
        bins = np.zeros((7, EXPONENTS))
        variance = kernels.add_sample(base, adapted, safety, 1 if entries <= ALL_BELOW else STRIDE, bins)
        return cls(len(adapted), bins, variance)

    def __add__(self, other: Self) -> Self:
        return type(self)(self.entries + other.entries, self.bins + other.bins, self.variance + other.variance)

    def noise(self, vl: "DeltaSums", safety: "DeltaSums", safetensors_dtypes: Mapping[str, str]) -> Noise:
        """What independent moves leave. vl, safety: the sums of both deltas over all entries. codes: role -> dtype by
        the format's own name."""
        sampled = float(self.bins[0].sum())
        scale = self.entries / sampled if sampled else 0.0
        both = float(self.bins[3].sum()) * scale
        if not are_kin(vl, safety):
            norms = math.sqrt(vl.delta_squared * safety.delta_squared)
            rho = max(-1.0, -vl.after_squared / norms) if norms else 0.0
            opposed = both * (0.5 - math.asin(rho) / math.pi)
            return Noise(-vl.after_squared, -vl.after_squared, opposed, opposed, self.variance * scale)
        products = self._products(safetensors_dtypes)
        opposed = float((self.bins[3] * _conflict(products, *self.bins[4:])).sum()) * scale
        return Noise(float(products.sum()) * scale, 0.0, opposed, both / 2, self.variance * scale)

    def _products(self, safetensors_dtypes: Mapping[str, str]) -> np.ndarray:
        """Bin by bin, the deltas' expected inner product where the moves are independent and all rounding is shared;
        never above 0.

        With u an entry's ulp, moves much larger than u leave -u^2/12 (Widrow and Kollar 2008, "Quantization Noise"):
        the rounding error is uniform and independent of them. Of moves much smaller than u, only the rare ones that
        cross to the next value are left. They are just over the threshold, so the next move takes half of them back:
        -s/2, where s is the mean squared delta. (1 - exp(-6 s/u^2)) u^2/12 joins the two, s being the smaller of the
        two deltas' mean squares at entries of that ulp. In simulations of normal moves of all sizes it is within 20%
        wherever a tenth of the entries or more change; of heavy-tailed moves it overstates by up to a factor of two.

        A tensor that is stored finer than `adapted` is on no grid: then even the smallest of its moves is not rounded
        away, and its delta sets no limit.
        """
        bits, lowest = PRECISION[safetensors_dtypes["adapted"]]
        exponents = np.maximum(np.arange(EXPONENTS, dtype=np.float64) - BIAS, lowest)
        squared_ulp = np.exp2(2 * (exponents - (bits - 1)))
        moved = np.full(EXPONENTS, np.inf)
        for role, sums in (("base", self.bins[1]), ("safety", self.bins[2])):
            if PRECISION[safetensors_dtypes[role]][0] <= bits:
                moved = np.minimum(moved, sums / np.maximum(self.bins[0], 1) / squared_ulp)
        return self.bins[0] * squared_ulp * np.expm1(-6 * moved) / 12


def are_kin(vl: "DeltaSums", safety: "DeltaSums") -> bool:
    """Whether `adapted` looks like base or safety in this pair."""
    return max(0.0 if delta.cosine is None else delta.cosine for delta in (vl, safety)) >= KIN


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
    """One over the other, where there is something to divide by."""
    return np.divide(above, below, out=np.full_like(above, otherwise), where=below > 0)
