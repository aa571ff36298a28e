"""What two deltas have in common when they have nothing to do with each other.

The VL delta (adapted - base) and the safety delta (safety - adapted) both contain `adapted`. Whatever of `adapted` is
noise enters the one with a plus and the other with a minus, so that their inner product is negative before either
means anything. The nulls here say how negative.

Kin (fine-tuned from one another): the noise is what storing `adapted` in its dtype left, at most half a unit in the
last place (ulp) per entry. If safety tuning went on from weights that were never rounded, or from the base, all of it
is shared; if it started from the stored checkpoint, none is. The null is the range between the two, and its mean the
end where all is shared.

No kin (`adapted` has a cosine below .5 with both others): all of `adapted` is noise, and the null of three
independent models of one size is -.5.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Final, Self

import torch
from torch import Tensor

from surgery.results import Null

if TYPE_CHECKING:
    from surgery.metrics import DeltaSums

# Bits of the significand, the leading one included, and the exponent of the smallest normal number.
PRECISION: Final = {"BF16": (8, -126), "F16": (11, -14), "F32": (24, -126), "F64": (53, -1022)}
STORED_BITS: Final = 23  # of float32's significand; the exponent stands above them
EXPONENTS: Final = 256
BIAS: Final = 127

# Rounding costs are measured on every 17th entry of large tensors: a stride that is prime to the sizes of rows and
# heads, so that no row and no column is left out.
STRIDE: Final = 17
ALL_BELOW: Final = 1 << 16

# Below this cosine between two versions of a tensor, the one is hardly made from the other: unrelated models have 0,
# fine-tuned ones .99 and more. Norms do not count: they are near 1 in every model.
KIN: Final = 0.5
SPREAD: Final = 1.96  # standard deviations in which 95% of a normal variable lie


@dataclass(frozen=True)
class Sample:
    """What the nulls need of a pair's entries, taken of every 17th where there are many.

    entries: how many there are in all. counts, first, second: [256] float64, by the binary exponent in `adapted` as
    float32 stores it: sampled entries, and the sums of their squared VL deltas d1 and safety deltas d2. first_both,
    second_both: sums of d1^2 and of d2^2 over the entries that both change. variance: sum of (d1 d2)^2.
    """

    entries: int
    counts: Tensor
    first: Tensor
    second: Tensor
    first_both: float
    second_both: float
    variance: float

    @classmethod
    def of(cls, base: Tensor, adapted: Tensor, safety: Tensor, entries: int) -> Self:
        """Of a stretch of three tensors that have so many entries in all."""
        stride = 1 if entries <= ALL_BELOW else STRIDE
        start, middle, end = (tensor[::stride].double() for tensor in (base, adapted, safety))
        exponents = ((middle.float().view(torch.int32) >> STORED_BITS) & (EXPONENTS - 1)).long()
        first, second = (middle - start).square(), (end - middle).square()
        return cls(
            len(adapted),
            torch.bincount(exponents, minlength=EXPONENTS).double(),
            torch.bincount(exponents, first, EXPONENTS),
            torch.bincount(exponents, second, EXPONENTS),
            float(first[second > 0].sum()),
            float(second[first > 0].sum()),
            float(torch.dot(first, second)),
        )

    def __add__(self, other: Self) -> Self:
        return type(self)(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(self)))

    @property
    def scale(self) -> float:
        """Entries for every sampled one."""
        sampled = float(self.counts.sum())
        return self.entries / sampled if sampled else 0.0

    def shared_product(self, code: str, first_on_grid: bool, second_on_grid: bool) -> float:
        """The deltas' expected inner product where the moves are independent and all rounding is shared; never above 0.

        code: the dtype of `adapted`. first_on_grid, second_on_grid: whether the other tensor of each delta is stored
            no finer than `adapted`, so that small moves are rounded away.

        With u an entry's ulp, moves much larger than u leave -u^2/12 (Widrow and Kollar 2008, "Quantization Noise"):
        the rounding error is uniform and independent of them. Of moves much smaller than u, only the rare ones that
        cross to the next value are left. They are just over the threshold, so the next move takes half of them back:
        -s/2, where s is the mean squared delta. (1 - exp(-6 s/u^2)) u^2/12 joins the two, s being the smaller of the
        two deltas' mean squares at entries of that ulp. In simulations of normal moves of all sizes it is within 20%
        wherever a tenth of the entries or more change; of heavy-tailed moves it overstates by up to a factor of two.
        """
        bits, lowest = PRECISION[code]
        exponents = torch.arange(EXPONENTS, dtype=torch.float64) - BIAS
        squared_ulp = torch.exp2(2 * (exponents.clamp_min(lowest) - (bits - 1)))
        moved = torch.full_like(squared_ulp, torch.inf)
        for on_grid, sums in ((first_on_grid, self.first), (second_on_grid, self.second)):
            if on_grid:
                moved = torch.minimum(moved, sums / self.counts.clamp_min(1) / squared_ulp)
        lost = self.counts * squared_ulp * (-torch.expm1(-6 * moved)) / 12
        return -float(lost.sum()) * self.scale


def are_kin(vl: "DeltaSums", safety: "DeltaSums") -> bool:
    """Whether `adapted` looks like base or safety in this pair."""
    return max(0.0 if delta.cosine is None else delta.cosine for delta in (vl, safety)) >= KIN


def noise(vl: "DeltaSums", safety: "DeltaSums", sample: Sample, codes: Mapping[str, str]) -> tuple[float, float]:
    """The inner product of the two deltas of a pair that is expected of independent moves: with all of the noise of
    `adapted` shared, and with none of it.

    codes: role -> dtype by the format's own name.
    """
    if not are_kin(vl, safety):
        return -vl.after_squared, -vl.after_squared
    bits = {role: PRECISION[code][0] for role, code in codes.items()}
    own = bits["adapted"]
    return sample.shared_product(codes["adapted"], bits["base"] <= own, bits["safety"] <= own), 0.0


def cosine_null(shared: float, unshared: float, variance: float, norms: float) -> Null:
    """The cosine that independent moves leave.

    shared, unshared: expected inner product of the deltas with all and with none of the noise shared. variance: of
    their inner product if every entry's sign were a coin's (the sum of d1^2 d2^2). norms: product of their norms.
    """
    spread = SPREAD * math.sqrt(variance)
    low, mean, high = (min(1.0, max(-1.0, x / norms)) for x in (shared - spread, shared, unshared + spread))
    return Null(mean=mean, low=low, high=high)


def undoes(cosine: float) -> float:
    """Share of the safety delta's squared norm that points straight back along the VL delta: max(0, -cosine)^2."""
    return min(0.0, cosine) ** 2


def undoes_null(cosines: Null) -> Null:
    return Null(mean=undoes(cosines.mean), low=undoes(cosines.high), high=undoes(cosines.low))


def conflict_null(shared: float, unshared: float, variance: float, weight: float, norms: float, both: int) -> Null:
    """The share of opposed signs that independent moves leave, among the entries that both deltas change.

    weight: sum of |d1 d2|. norms: product of the deltas' norms over these entries. both: how many there are.

    For normal entries of correlation rho it is 1/2 - asin(rho)/pi (Sheppard 1899). Coarse deltas, of few distinct
    sizes, oppose each other as often as their weighted share says. K = weight / norms tells which they are: it is 1
    for deltas of one size, and (2/pi)(sqrt(1 - rho^2) + rho asin(rho)) for normal ones.
    """
    spread = SPREAD * math.sqrt(variance)
    noise = SPREAD * math.sqrt(0.25 / both)
    mean, most, least = (_conflict(product, weight, norms) for product in (shared, shared - spread, unshared + spread))
    return Null(mean=mean, low=max(0.0, min(least, mean - noise)), high=min(1.0, max(most, mean + noise)))


def _conflict(product: float, weight: float, norms: float) -> float:
    rho = min(1.0, max(-1.0, product / norms))
    normal = 2 / math.pi * (math.sqrt(1 - rho * rho) + rho * math.asin(rho))
    coarse = min(1.0, max(0.0, (weight / norms - normal) / (1 - normal))) if normal < 1 else 0.0
    smooth = 0.5 - math.asin(rho) / math.pi
    return smooth + coarse * (weighted_conflict(product, weight) - smooth)


def weighted_conflict(product: float, weight: float) -> float:
    """Share of `weight`, the sum of |d1 d2|, in entries that oppose each other: (1 - <d1, d2> / weight) / 2."""
    return min(1.0, max(0.0, (1 - product / weight) / 2))


def weighted_conflict_null(shared: float, unshared: float, variance: float, weight: float) -> Null:
    spread = SPREAD * math.sqrt(variance)
    low, mean, high = (weighted_conflict(x, weight) for x in (unshared + spread, shared, shared - spread))
    return Null(mean=mean, low=low, high=high)
