"""What storing `adapted` rounded away, and what that does to the two deltas of a pair, estimated from its entries."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, Self

import torch
from torch import Tensor

from surgery.measuring.nulls import KIN

if TYPE_CHECKING:
    from surgery.metrics import DeltaSums

# Bits of the significand, the leading one included, and the exponent of the smallest normal number.
PRECISION: Final = {"BF16": (8, -126), "F16": (11, -14), "F32": (24, -126), "F64": (53, -1022)}
STORED_BITS: Final = 23  # of float32's significand; the exponent stands above them
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
    bins: Tensor
    variance: float

    @classmethod
    def of(cls, base: Tensor, adapted: Tensor, safety: Tensor, entries: int) -> Self:
        """Of a stretch of three tensors that have so many entries in all."""
        stride = 1 if entries <= ALL_BELOW else STRIDE
        start, middle, end = (tensor[::stride].double() for tensor in (base, adapted, safety))
        exponents = ((middle.float().view(torch.int32) >> STORED_BITS) & (EXPONENTS - 1)).long()
        first, second = middle - start, end - middle
        product = first * second
        first, second = first.square(), second.square()
        both = ((first > 0) & (second > 0)).double()
        rows = (torch.ones_like(first), first, second, both, first * both, second * both, product.abs())
        bins = torch.stack([torch.bincount(exponents, row, EXPONENTS) for row in rows])
        return cls(len(adapted), bins, float(torch.dot(product, product)))

    def __add__(self, other: Self) -> Self:
        return type(self)(self.entries + other.entries, self.bins + other.bins, self.variance + other.variance)

    def noise(self, vl: "DeltaSums", safety: "DeltaSums", codes: Mapping[str, str]) -> Noise:
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
        products = self._products(codes)
        opposed = float((self.bins[3] * _conflict(products, *self.bins[4:])).sum()) * scale
        return Noise(float(products.sum()) * scale, 0.0, opposed, both / 2, self.variance * scale)

    def _products(self, codes: Mapping[str, str]) -> Tensor:
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
        bits, lowest = PRECISION[codes["adapted"]]
        exponents = torch.arange(EXPONENTS, dtype=torch.float64) - BIAS
        squared_ulp = torch.exp2(2 * (exponents.clamp_min(lowest) - (bits - 1)))
        moved = torch.full_like(squared_ulp, torch.inf)
        for role, sums in (("base", self.bins[1]), ("safety", self.bins[2])):
            if PRECISION[codes[role]][0] <= bits:
                moved = torch.minimum(moved, sums / self.bins[0].clamp_min(1) / squared_ulp)
        return self.bins[0] * squared_ulp * torch.expm1(-6 * moved) / 12


def are_kin(vl: "DeltaSums", safety: "DeltaSums") -> bool:
    """Whether `adapted` looks like base or safety in this pair."""
    return max(0.0 if delta.cosine is None else delta.cosine for delta in (vl, safety)) >= KIN


def _conflict(product: Tensor, first: Tensor, second: Tensor, weight: Tensor) -> Tensor:
    """The share of opposed signs among entries that both deltas change, from the expected <d1, d2> and the sums of
    d1^2, d2^2 and |d1 d2| over them.

    For normal entries of correlation rho it is 1/2 - asin(rho)/pi (Sheppard 1899). Coarse deltas, of few distinct
    sizes, oppose each other as often as their weighted share says, (1 - <d1, d2> / weight) / 2. K = weight / norms
    tells which they are: it is 1 for deltas of one size, and (2/pi)(sqrt(1 - rho^2) + rho asin(rho)) for normal ones.
    """
    norms = (first * second).sqrt()
    rho = torch.where(norms > 0, product / norms, 0.0).clamp(-1, 1)
    normal = 2 / math.pi * ((1 - rho.square()).sqrt() + rho * rho.asin())
    coarse = torch.where(norms > 0, (weight / norms - normal) / (1 - normal).clamp_min(1e-9), 0.0).clamp(0, 1)
    weighted = torch.where(weight > 0, (1 - product / weight) / 2, 0.5).clamp(0, 1)
    return torch.lerp(0.5 - rho.asin() / math.pi, weighted, coarse)
