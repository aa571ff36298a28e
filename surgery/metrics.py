"""How far tensors moved, and how two moves relate: tensors in, numbers out.

Every number comes from sums that add up, so that a layer or a tower is summarised as one long vector without reading
its tensors again, and a large tensor is read in chunks. Elementwise work is in float32 (float64 where the weights
are), sums are in float64.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Final, Self

import torch
from torch import Tensor

from surgery.errors import CheckpointError
from surgery.results import BetweenMetrics, DeltaMetrics

Names = Sequence[str]
ROLES: Final = ("base", "adapted", "safety")


@dataclass(frozen=True)
class DeltaSums:
    """What DeltaMetrics is made of. Sums of two disjoint sets of entries are added with `+`."""

    entries: int = 0
    moved: int = 0
    delta_squared: float = 0.0
    before_squared: float = 0.0
    after_squared: float = 0.0
    product: float = 0.0
    largest: float = 0.0

    @classmethod
    def of(cls, before: Tensor, after: Tensor, names: Names = ("before", "after")) -> Self:
        """The sums of one tensor or chunk. `names`: what an error calls the two."""
        first, second = tensors = _comparable(before, after)
        if not first.numel():
            return cls()
        delta = second - first
        sums = cls(
            entries=delta.numel(),
            moved=int(torch.count_nonzero(delta)),
            delta_squared=_dot(delta, delta),
            before_squared=_dot(first, first),
            after_squared=_dot(second, second),
            product=_dot(first, second),
            largest=float(delta.abs().max()),
        )
        _check_finite(sums, tensors, names)
        return sums

    def __add__(self, other: Self) -> Self:
        merged = {field.name: getattr(self, field.name) + getattr(other, field.name) for field in fields(self)}
        return type(self)(**{**merged, "largest": max(self.largest, other.largest)})

    def metrics(self) -> DeltaMetrics:
        norms = math.sqrt(self.before_squared) * math.sqrt(self.after_squared)
        return DeltaMetrics(
            relative=math.sqrt(self.delta_squared / self.before_squared) if self.before_squared else None,
            cosine=_within(self.product / norms) if norms else None,
            rms=math.sqrt(self.delta_squared / self.entries) if self.entries else 0.0,
            max_abs=self.largest,
            changed=self.moved / self.entries if self.entries else 0.0,
        )


@dataclass(frozen=True)
class BetweenSums:
    """What BetweenMetrics is made of. `both`: entries that both deltas change; `opposed`: in opposite ways."""

    both: int = 0
    opposed: int = 0
    first_squared: float = 0.0
    second_squared: float = 0.0
    product: float = 0.0

    @classmethod
    def of(cls, base: Tensor, adapted: Tensor, safety: Tensor, names: Names = ROLES) -> Self:
        """The sums of the VL delta (adapted - base) and the safety delta (safety - adapted)."""
        start, middle, end = tensors = _comparable(base, adapted, safety)
        first, second = middle - start, end - middle
        signs = torch.sign(first) * torch.sign(second)
        sums = cls(
            both=int(torch.count_nonzero(signs)),
            opposed=int(torch.count_nonzero(signs < 0)),
            first_squared=_dot(first, first),
            second_squared=_dot(second, second),
            product=_dot(first, second),
        )
        _check_finite(sums, tensors, names)
        return sums

    def __add__(self, other: Self) -> Self:
        return type(self)(
            **{field.name: getattr(self, field.name) + getattr(other, field.name) for field in fields(self)}
        )

    def metrics(self) -> BetweenMetrics:
        norms = math.sqrt(self.first_squared) * math.sqrt(self.second_squared)
        return BetweenMetrics(
            cosine=_within(self.product / norms) if norms else None,
            sign_conflict=self.opposed / self.both if self.both else None,
        )


def delta_metrics(before: Tensor, after: Tensor, names: Names = ("before", "after")) -> DeltaMetrics:
    """How far a tensor moved from `before` to `after`, of the same shape.

    Raises CheckpointError that names the tensor when a value is NaN or infinite.
    """
    return DeltaSums.of(before, after, names).metrics()


def between_metrics(base: Tensor, adapted: Tensor, safety: Tensor, names: Names = ROLES) -> BetweenMetrics:
    """How adapted - base and safety - adapted relate. Both contain `adapted`: three unrelated tensors give -.5.

    Raises CheckpointError that names the tensor when a value is NaN or infinite.
    """
    return BetweenSums.of(base, adapted, safety, names).metrics()


def _comparable(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors as vectors of one dtype, float32 or more, in which differences are taken."""
    if len({tensor.shape for tensor in tensors}) != 1:
        raise ValueError(f"shapes differ: {[tuple(tensor.shape) for tensor in tensors]}")
    dtype = torch.float32
    for tensor in tensors:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return tuple(tensor.to(dtype).reshape(-1) for tensor in tensors)


def _dot(first: Tensor, second: Tensor) -> float:
    return float(torch.dot(first.double(), second.double()))


def _within(cosine: float) -> float:
    """Rounding can carry a cosine a hair outside of [-1, 1]."""
    return min(1.0, max(-1.0, cosine))


def _check_finite(sums: DeltaSums | BetweenSums, tensors: tuple[Tensor, ...], names: Names) -> None:
    """One NaN or infinity among the entries makes a sum NaN or infinite, so the sums tell for nothing."""
    if all(math.isfinite(getattr(sums, field.name)) for field in fields(sums)):
        return
    broken = [name for tensor, name in zip(tensors, names, strict=True) if not tensor.isfinite().all()]
    raise CheckpointError(
        f"{' and '.join(broken) or ' or '.join(names)}: holds NaN or infinite values, or differences too large for "
        "float32. Such a checkpoint is broken; get it again."
    )
