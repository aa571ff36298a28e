"""Sums over the entries of two or three tensors, block by block in buffers that are used again.

Elementwise work is in float32 and sums are in float64. Small tensors, and tensors stored in float64, are worked on in
float64 throughout, so that no square of a tiny or a huge entry is lost.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import torch
from torch import Tensor

from surgery.errors import CheckpointError
from surgery.measuring.rounding import Sample
from surgery.metrics import BetweenSums, DeltaSums, Sums
from surgery.results import BetweenMetrics, DeltaMetrics

# Entries worked on at a time: what is computed of them stays in the processor's cache.
BLOCK: Final = 1 << 15

# Tensors with fewer entries are worked on in float64.
SMALL: Final = 1 << 14

CODES: Final = {torch.bfloat16: "BF16", torch.float16: "F16", torch.float32: "F32", torch.float64: "F64"}
ROLES: Final = ("base", "adapted", "safety")


class Buffers:
    """Memory for one block at a time. One thread uses it at a time."""

    def __init__(self) -> None:
        self._kept: dict[torch.dtype, Tensor] = {}

    def views(self, dtype: torch.dtype, entries: int) -> list[Tensor]:
        """Six vectors: for base, adapted, safety, both deltas, and products."""
        kept = self._kept.get(dtype)
        if kept is None or kept.shape[1] < entries:
            kept = self._kept[dtype] = torch.empty(6, max(entries, BLOCK), dtype=dtype)
        return list(kept[:, :entries])


class _Delta:
    """The sums of one delta so far. squares: per part, of delta^2, before^2 and after^2."""

    def __init__(self, parts: int) -> None:
        self.squares = torch.zeros(parts, 3, dtype=torch.float64)
        self.moved = 0
        self.shift = 0.0
        self.largest = 0.0

    def add(self, other: "_Delta") -> None:
        self.squares += other.squares
        self.moved += other.moved
        self.shift += other.shift
        self.largest = max(self.largest, other.largest)

    def add_delta(self, delta: Tensor, scratch: Tensor) -> None:
        """What is counted of the delta alone; `scratch` is written over."""
        low, high = torch.aminmax(delta)
        # Ones and zeros of one block: their sum is exact in float32, and sooner had than by count_nonzero.
        self.moved += int(torch.ne(delta, 0, out=scratch).sum())
        self.shift += float(delta.sum(dtype=torch.float64))
        self.largest = max(self.largest, -float(low), float(high))

    def part(self, number: int, entries: int) -> DeltaSums:
        """The sums of one part, which has its squares alone."""
        delta, before, after = self.squares[number].tolist()
        return DeltaSums(entries, delta_squared=delta, before_squared=before, after_squared=after)

    def whole(self, entries: int) -> DeltaSums:
        delta, before, after = self.squares.sum(0).tolist()
        return DeltaSums(entries, self.moved, self.shift, delta, before, after, self.largest)


class Tally:
    """Takes the sums of one pair, or of a stretch of it; stretches are joined by `join`.

    entries: of the whole pair. roles: which of base, adapted and safety it has. parts: how many heads or experts.
    row: where a part is a run of columns, how many entries a row has; 0 where a part is a run of rows.
    """

    def __init__(self, entries: int, roles: Sequence[str], parts: int = 1, row: int = 0) -> None:
        self.entries, self.parts, self.row = entries, parts, row
        self.block = BLOCK if not row else max(1, BLOCK // row) * row
        self.counts = [0] * parts
        self.vl = _Delta(parts) if "base" in roles else None
        self.safety = _Delta(parts) if "safety" in roles else None
        self._cross = torch.zeros(4, dtype=torch.float64) if self.vl and self.safety else None
        self._sample: Sample | None = None

    def add(self, chunk: Mapping[str, Tensor], names: Mapping[str, str], buffers: Buffers, part: int = 0) -> None:
        """Add vectors of one length, role -> entries. names: what an error calls them. part: where a part is a run of
        rows, the one that all of these entries belong to.

        Raises CheckpointError that names the tensor when a value is NaN or infinite.
        """
        dtype = torch.float64 if self.entries < SMALL else torch.float32
        for vector in chunk.values():
            dtype = torch.promote_types(dtype, vector.dtype)
        length = len(chunk["adapted"])
        for start in range(0, length, self.block):
            block = {role: vector[start : start + self.block] for role, vector in chunk.items()}
            self._add_block(block, buffers.views(dtype, len(block["adapted"])), part)
        self._check_finite(chunk, names)
        if self.row:
            self.counts = [count + length // self.parts for count in self.counts]
        else:
            self.counts[part] += length
        if self._cross is not None:
            sample = Sample.of(chunk["base"], chunk["adapted"], chunk["safety"], self.entries)
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

    def sums(self, codes: Mapping[str, str]) -> Sums:
        """What was summed up. codes: role -> dtype by the format's own name, which settles what rounding costs."""
        entries = sum(self.counts)
        vl = None if self.vl is None else self.vl.whole(entries)
        safety = None if self.safety is None else self.safety.whole(entries)
        between = None
        if vl is not None and safety is not None and self._cross is not None and self._sample is not None:
            both, signs, product, weight = self._cross.tolist()
            between = BetweenSums(
                both=round(both),
                opposed=round((both - signs) / 2),
                first_squared=vl.delta_squared,
                second_squared=safety.delta_squared,
                product=product,
                weight=weight,
                **self._sample.noise(vl, safety, codes)._asdict(),
            )
        return Sums(vl, safety, between)

    def part_sums(self, role: str) -> list[DeltaSums]:
        """The sums of every head or expert, of the delta that ends in `role`."""
        delta = self.vl if role == "adapted" else self.safety
        return [] if delta is None else [delta.part(number, count) for number, count in enumerate(self.counts)]

    def _add_block(self, block: Mapping[str, Tensor], buffers: Sequence[Tensor], part: int) -> None:
        base, adapted, safety, first, second, scratch = buffers
        adapted.copy_(block["adapted"])
        after = self._square(adapted, scratch)
        where = slice(None) if self.row else part
        if self.vl is not None:
            base.copy_(block["base"])
            torch.sub(adapted, base, out=first)
            squares = (self._square(first, scratch), self._square(base, scratch), after)
            self.vl.squares[where] += torch.stack(squares, -1)
            self.vl.add_delta(first, scratch)
        if self.safety is not None:
            safety.copy_(block["safety"])
            torch.sub(safety, adapted, out=second)
            squares = (self._square(second, scratch), after, self._square(safety, scratch))
            self.safety.squares[where] += torch.stack(squares, -1)
            self.safety.add_delta(second, scratch)
        if self._cross is not None:
            self._cross += _cross(first, second, base, scratch)

    def _square(self, vector: Tensor, scratch: Tensor) -> Tensor:
        """The sum of squares; of every part apart where parts are columns."""
        torch.mul(vector, vector, out=scratch)
        if not self.row:
            return scratch.sum(dtype=torch.float64)
        return scratch.view(-1, self.parts, self.row // self.parts).sum((0, 2), dtype=torch.float64)

    def _check_finite(self, chunk: Mapping[str, Tensor], names: Mapping[str, str]) -> None:
        """One NaN or infinity among the entries makes a sum NaN or infinite, so the sums tell for nothing."""
        if all(bool(delta.squares.isfinite().all()) for delta in (self.vl, self.safety) if delta is not None):
            return
        broken = [names[role] for role, vector in chunk.items() if not vector.isfinite().all()]
        raise CheckpointError(
            f"{' and '.join(broken) or ' or '.join(names.values())}: holds NaN or infinite values, or values whose "
            "squares are too large for float32. Such a checkpoint is broken; get it again."
        )


def _cross(first: Tensor, second: Tensor, spare: Tensor, scratch: Tensor) -> Tensor:
    """Of two deltas: entries changed by both, sum of the signs of the products, sum of the products and of their
    sizes. `spare` and `scratch` are written over."""
    # The sign of one times the other has the product's sign, and never underflows.
    torch.mul(torch.sign(first, out=spare), second, out=scratch)
    both = torch.ne(scratch, 0, out=spare).sum()
    signs = torch.sign(scratch, out=spare).sum()
    product = torch.mul(first, second, out=scratch).sum(dtype=torch.float64)
    weight = torch.abs(scratch, out=spare).sum(dtype=torch.float64)
    return torch.stack((both.double(), signs.double(), product, weight))


def delta_metrics(before: Tensor, after: Tensor, names: Sequence[str] = ("before", "after")) -> DeltaMetrics:
    """How far a tensor moved from `before` to `after`, of the same shape: all that is not of its spectrum.

    names: what an error calls the two. Raises CheckpointError that names the tensor when a value is NaN or infinite.
    """
    metrics = _tallied({"base": before, "adapted": after}, names).vl
    assert metrics is not None
    return metrics.metrics()


def between_metrics(base: Tensor, adapted: Tensor, safety: Tensor, names: Sequence[str] = ROLES) -> BetweenMetrics:
    """How adapted - base and safety - adapted relate: all that is not of their spectra.

    names: what an error calls the three. Raises CheckpointError that names the tensor when a value is NaN or infinite.
    """
    sums = _tallied({"base": base, "adapted": adapted, "safety": safety}, names).between
    assert sums is not None
    return sums.metrics()


def _tallied(tensors: Mapping[str, Tensor], names: Sequence[str]) -> Sums:
    if len({tensor.shape for tensor in tensors.values()}) != 1:
        raise ValueError(f"shapes differ: {[tuple(tensor.shape) for tensor in tensors.values()]}")
    tally = Tally(tensors["adapted"].numel(), list(tensors))
    vectors = {role: tensor.reshape(-1) for role, tensor in tensors.items()}
    tally.add(vectors, dict(zip(tensors, names, strict=True)), Buffers())
    return tally.sums({role: CODES[tensor.dtype] for role, tensor in tensors.items()})
