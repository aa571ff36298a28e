"""How far tensors moved, and how two deltas relate: sums, which add up over pairs, and the metrics made of them.

A layer or a tower is summarised as one long vector without reading its tensors again.
`vlsurgery.surgery.diff.accumulator` takes the sums.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import Any, Final, Self, TypeVar

from vlsurgery.surgery.diff import nulls
from vlsurgery.surgery.results import BetweenMetrics, DeltaMetrics, PairMetrics

UNMOVED: Final = "a delta is 0"

# Delta, by its name in `PairMetrics` -> the roles that it starts from and ends in.
DELTAS: Final = {"vl": ("base", "adapted"), "safety": ("adapted", "safety")}


def deltas_of(roles: Iterable[str]) -> dict[str, tuple[str, str]]:
    """The deltas between some of base, adapted and safety."""
    held = set(roles)
    return {delta: ends for delta, ends in DELTAS.items() if held.issuperset(ends)}


@dataclass(frozen=True)
class DeltaSums:
    """The sums that DeltaMetrics is made of, over some entries; `+` gives those over two disjoint sets of entries.

    entries: their number. moved: how many differ. shift: sum of the delta. largest: the largest |delta|.
    """

    entries: int = 0
    delta_squared: float = 0.0
    before_squared: float = 0.0
    after_squared: float = 0.0
    moved: float = 0.0
    shift: float = 0.0
    largest: float = 0.0

    def __add__(self, other: "DeltaSums") -> "DeltaSums":
        return replace(_added(self, other), largest=max(self.largest, other.largest))

    @property
    def relative(self) -> float | None:
        return math.sqrt(self.delta_squared / self.before_squared) if self.before_squared else None

    @property
    def cosine(self) -> float | None:
        norms = math.sqrt(self.before_squared) * math.sqrt(self.after_squared)
        # The inner product by the law of cosines, which needs no sum of its own.
        product = (self.before_squared + self.after_squared - self.delta_squared) / 2
        return nulls.clamp(product / norms, -1.0) if norms else None

    @property
    def rms(self) -> float:
        return math.sqrt(self.delta_squared / self.entries) if self.entries else 0.0

    def metrics(self) -> DeltaMetrics:
        why = {"relative": "it started from 0"} if self.relative is None else {}
        if self.cosine is None:
            why["cosine"] = "it is 0 before or after"
        return DeltaMetrics(
            relative=self.relative,
            cosine=self.cosine,
            rms=self.rms,
            max_abs=self.largest,
            changed=self.moved / self.entries if self.entries else 0.0,
            mean_shift=self.shift / self.entries if self.entries else 0.0,
            why=why,
        )


@dataclass(frozen=True)
class BetweenSums:
    """The sums that BetweenMetrics is made of, d1 being the VL delta and d2 the safety delta.

    first_squared, second_squared: ||d1||^2, ||d2||^2. both: entries that both change. opposed: those that they change
    in opposite directions. product: <d1, d2>. weight: sum of |d1 d2|.

    The rest is expected of deltas whose moves are independent. shared, unshared: <d1, d2> where all of the noise of
    `adapted` is in both deltas, and where none is. opposed_shared, opposed_unshared: `opposed` in these two cases.
    variance: of <d1, d2> if the sign of every product were random, the sum of (d1 d2)^2.
    """

    first_squared: float = 0.0
    second_squared: float = 0.0
    both: float = 0.0
    opposed: float = 0.0
    product: float = 0.0
    weight: float = 0.0
    shared: float = 0.0
    unshared: float = 0.0
    opposed_shared: float = 0.0
    opposed_unshared: float = 0.0
    variance: float = 0.0

    def __add__(self, other: "BetweenSums") -> "BetweenSums":
        return _added(self, other)

    def metrics(self) -> BetweenMetrics:
        norms = math.sqrt(self.first_squared) * math.sqrt(self.second_squared)
        if not norms:
            reasons = dict.fromkeys(("cosine", "sign_conflict", "sign_conflict_weighted", "reversal"), UNMOVED)
            return BetweenMetrics(cosine=None, sign_conflict=None, why=reasons)
        cosine = nulls.clamp(self.product / norms, -1.0)
        cosines = nulls.cosine_null(self.shared, self.unshared, self.variance, norms)
        return BetweenMetrics(
            cosine=cosine,
            cosine_null=cosines,
            reversal=nulls.reversal(cosine),
            reversal_null=nulls.reversal_null(cosines),
            **self._conflict(),
        )

    def _conflict(self) -> dict[str, Any]:
        """Both sign conflicts and their nulls, or the reason why there are none."""
        if not self.both or not self.weight:
            reason = "no entry is changed by both deltas"
            return {"sign_conflict": None, "why": dict.fromkeys(("sign_conflict", "sign_conflict_weighted"), reason)}
        return {
            "sign_conflict": self.opposed / self.both,
            "sign_conflict_null": nulls.conflict_null(self.opposed_shared, self.opposed_unshared, self.both),
            "sign_conflict_weighted": nulls.weighted_conflict(self.product, self.weight),
            "sign_conflict_weighted_null": nulls.weighted_conflict_null(
                self.shared, self.unshared, self.variance, self.weight
            ),
        }


@dataclass(frozen=True)
class PairStatistics:
    """The sums of one pair, or of many pairs taken as one long vector; None where a role is missing."""

    vl: DeltaSums | None = None
    safety: DeltaSums | None = None
    between: BetweenSums | None = None

    def __add__(self, other: Self) -> Self:
        return type(self)(
            _either(self.vl, other.vl), _either(self.safety, other.safety), _either(self.between, other.between)
        )

    def metrics(self) -> PairMetrics:
        return PairMetrics(
            vl=self.vl and self.vl.metrics(),
            safety=self.safety and self.safety.metrics(),
            between=self.between and self.between.metrics(),
        )


Addable = TypeVar("Addable", DeltaSums, BetweenSums)


def _added(first: Addable, second: Addable) -> Addable:
    return type(first)(*(getattr(first, each.name) + getattr(second, each.name) for each in fields(first)))


def _either(first: Addable | None, second: Addable | None) -> Addable | None:
    return first or second if first is None or second is None else first + second
