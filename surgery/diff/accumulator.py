"""Sums over the entries of two or three tensors, in float64, stretch by stretch."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import numpy as np

from vlsurgery.surgery.diff import kernels
from vlsurgery.surgery.diff.metrics import BetweenSums, DeltaSums, Sums
from vlsurgery.surgery.diff.rounding_noise import Sample
from vlsurgery.surgery.errors import CheckpointError
from vlsurgery.surgery.results import BetweenMetrics, DeltaMetrics
from vlsurgery.surgery.runtime.arrays import as_numpy, kernel_input, upcast

if TYPE_CHECKING:
    from torch import Tensor

ROLES: Final = ("base", "adapted", "safety")
NOWHERE: Final = np.empty(0, np.float32)


class _Delta:
    """The sums of one delta so far. squares: per part, of delta^2, before^2 and after^2. others: how many entries it
    changes, their sum, and the largest."""

    def __init__(self, parts: int) -> None:
        self.squares = np.zeros((parts, 3))
        self.others = np.zeros(3)

    def add(self, other: "_Delta") -> None:
        self.squares += other.squares
        self.others[:2] += other.others[:2]
        self.others[2] = max(self.others[2], other.others[2])

    def part(self, number: int, entries: int) -> DeltaSums:
        """The sums of one part, which has its squares alone."""
        delta, before, after = self.squares[number].tolist()
        return DeltaSums(entries, delta_squared=delta, before_squared=before, after_squared=after)

    def whole(self, entries: int) -> DeltaSums:
        delta, before, after = self.squares.sum(0).tolist()
        moved, shift, largest = self.others.tolist()
        return DeltaSums(entries, int(moved), shift, delta, before, after, largest)


class Tally:
    """Takes the sums of one pair, or of a stretch of it; stretches are joined by `join`.

    entries: of the whole pair. roles: which of base, adapted and safety it has. parts: how many heads or experts.
    row: where a part is a run of columns, how many entries a row has; 0 where a part is a run of rows.
    """

    def __init__(self, entries: int, roles: Sequence[str], parts: int = 1, row: int = 0) -> None:
        self.entries, self.parts, self.row = entries, parts, row
        self.counts = [0] * parts
        self.vl = _Delta(parts) if "base" in roles else None
        self.safety = _Delta(parts) if "safety" in roles else None
        self._cross = np.zeros(4) if self.vl and self.safety else None
        self._sample: Sample | None = None

    def add(
        self,
        chunk: Mapping[str, np.ndarray],
        names: Mapping[str, str],
        part: int = 0,
        deltas: Mapping[str, np.ndarray] = MappingProxyType({}),
    ) -> None:
        """Add vectors of one length, role -> entries as they are stored. names: what an error calls them. part: where a
        part is a run of rows, the one that the first of these entries belongs to; they may go on into further parts
        where they begin with a part's first entry. deltas: role that a delta ends in -> float32 vector that it is put
        in.

        Raises CheckpointError that names the tensor when a value is NaN or infinite.
        """
        adapted = chunk["adapted"]
        extent = max(1, (self.row or self.entries) // self.parts)
        taken = slice(None) if self.row else slice(part, None)
        if self.vl is not None:
            out = deltas.get("adapted", NOWHERE)
            kernels.add_delta(chunk["base"], adapted, extent, self.vl.squares[taken], self.vl.others, out)
        if self.safety is not None:
            out = deltas.get("safety", NOWHERE)
            kernels.add_delta(adapted, chunk["safety"], extent, self.safety.squares[taken], self.safety.others, out)
        self._check_finite(chunk, names)
        if self.row:
            self.counts = [count + len(adapted) // self.parts for count in self.counts]
        else:
            for place in range(0, len(adapted), extent):
                self.counts[part + place // extent] += min(extent, len(adapted) - place)
        if self._cross is not None:
            three = (chunk["base"], adapted, chunk["safety"])
            self._cross += kernels.cross(*three)
            sample = Sample.of(*three, self.entries)
            self._sample = sample if self._sample is None else self._sample + sample

    def join(self, other: "Tally") -> None:
        """Add another stretch of the same pair."""
        self.counts = [first + second for first, second in zip(self.counts, other.counts, strict=True)]
        for mine, theirs in ((self.vl, other.vl), (self.safety, other.safety)):
            if mine is not None and theirs is not None:
                mine.add(theirs)
        if self._cross is not None and other._cross is not None:
            self._cross += other._cross
        if other._sample is not None:
            self._sample = other._sample if self._sample is None else self._sample + other._sample

    def sums(self, safetensors_dtypes: Mapping[str, str]) -> Sums:
        """What was summed up. codes: role -> dtype by the format's own name, which settles what rounding costs."""
        entries = sum(self.counts)
        vl = None if self.vl is None else self.vl.whole(entries)
        safety = None if self.safety is None else self.safety.whole(entries)
        between = None
        if vl is not None and safety is not None and self._cross is not None and self._sample is not None:
            both, opposed, product, weight = self._cross.tolist()
            between = BetweenSums(
                both=int(both),
                opposed=int(opposed),
                first_squared=vl.delta_squared,
                second_squared=safety.delta_squared,
                product=product,
                weight=weight,
                **self._sample.noise(vl, safety, safetensors_dtypes)._asdict(),
            )
        return Sums(vl, safety, between)

    def energies(self) -> dict[str, float]:
        """Squared norms: of each delta by the role that it ends in, and of what the first one starts from ("start")."""
        deltas = {role: each.squares.sum(0) for role, each in (("adapted", self.vl), ("safety", self.safety)) if each}
        start = next(iter(deltas.values()), None)
        return {role: float(sums[0]) for role, sums in deltas.items()} | (
            {} if start is None else {"start": float(start[1])}
        )

    def part_sums(self, role: str) -> list[DeltaSums]:
        """The sums of every head or expert, of the delta that ends in `role`."""
        delta = self.vl if role == "adapted" else self.safety
        return [] if delta is None else [delta.part(number, count) for number, count in enumerate(self.counts)]

    def _check_finite(self, chunk: Mapping[str, np.ndarray], names: Mapping[str, str]) -> None:
        """One NaN or infinity among the entries makes a sum NaN or infinite, so the sums tell for nothing."""
        if all(np.isfinite(delta.squares).all() for delta in (self.vl, self.safety) if delta is not None):
            return
        broken = [names[role] for role, vector in chunk.items() if not np.isfinite(upcast(vector)).all()]
        raise CheckpointError(
            f"{' and '.join(broken) or ' or '.join(names.values())}: holds NaN or infinite values, or values whose "
            "squares are too large for float64. Such a checkpoint is broken; get it again."
        )


def delta_metrics(before: "Tensor", after: "Tensor", names: Sequence[str] = ("before", "after")) -> DeltaMetrics:
    """How far a tensor moved from `before` to `after`, of the same shape: all that is not of its spectrum.

    names: what an error calls the two. Raises CheckpointError that names the tensor when a value is NaN or infinite.
    """
    metrics = _tallied({"base": before, "adapted": after}, names).vl
    assert metrics is not None
    return metrics.metrics()


def between_metrics(
    base: "Tensor", adapted: "Tensor", safety: "Tensor", names: Sequence[str] = ROLES
) -> BetweenMetrics:
    """How adapted - base and safety - adapted relate: all that is not of their spectra.

    names: what an error calls the three. Raises CheckpointError that names the tensor when a value is NaN or infinite.
    """
    sums = _tallied({"base": base, "adapted": adapted, "safety": safety}, names).between
    assert sums is not None
    return sums.metrics()


def _tallied(tensors: Mapping[str, "Tensor"], names: Sequence[str]) -> Sums:
    if len({tensor.shape for tensor in tensors.values()}) != 1:
        raise ValueError(f"shapes differ: {[tuple(tensor.shape) for tensor in tensors.values()]}")
    tally = Tally(tensors["adapted"].numel(), list(tensors))
    tally.add(
        {role: kernel_input(as_numpy(tensor)) for role, tensor in tensors.items()},
        dict(zip(tensors, names, strict=True)),
    )
    safetensors_dtypes = {"bfloat16": "BF16", "float16": "F16", "float32": "F32", "float64": "F64"}
    return tally.sums(
        {role: safetensors_dtypes[str(tensor.dtype).removeprefix("torch.")] for role, tensor in tensors.items()}
    )
