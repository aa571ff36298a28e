"""Low-rank changes of a weight, worked out row by row: the numbers of a LoRA adapter, without its names.

A tensor is seen as a matrix of rows: the last dimension across, all others down; of a convolution, all but the
first across; a bias has rows of one entry. Whatever an adapter does to it is a list of patches, each of which turns
some rows of that matrix into others. So a tensor of any size is folded in pieces, and no folded model is ever in
memory.

W' = W + s B A with s = alpha / r (Hu et al., "LoRA", arXiv 2106.09685), s = alpha / sqrt(r) (Kalajdzievski, "rsLoRA",
arXiv 2312.03732); W' = m V / |V| with V = W + s B A and norms per output (Liu et al., "DoRA", arXiv 2402.09353).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from vlsurgery.surgery.checkpoint.lazy_tensor import ComputedTensor, LazyTensor

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# Entries folded at a time where a norm needs the whole tensor.
NORM_CHUNK: Final = 1 << 22


class Patch(Protocol):
    """A change of a matrix's rows."""

    def apply(self, rows: "Tensor", first: int) -> "Tensor":
        """The changed rows. rows: [n, width], from row number `first` on, float32 or float64; may be overwritten."""
        ...


@dataclass(frozen=True)
class Factors:
    """The two factors of one low-rank change B A, of one expert where they hold those of many.

    down: A, [r, in], or [experts r, in]. up: B, [out, r], or [out, r experts] with the expert running fastest.
    """

    down: LazyTensor
    up: LazyTensor
    expert: int = 0
    experts: int = 1

    @property
    def rank(self) -> int:
        return self.down.shape[0] // self.experts

    @property
    def inputs(self) -> int:
        return math.prod(self.down.shape[1:])

    @property
    def outputs(self) -> int:
        return self.up.shape[0]

    def load(self, dtype: "torch.dtype", start: int, stop: int) -> tuple["Tensor", "Tensor"]:
        """A as [r, in], and the rows `start` to `stop` (of outputs) of B as [stop - start, r]."""
        width, rank = self.inputs, self.rank
        down = self.down.read(self.expert * rank * width, (self.expert + 1) * rank * width).view(rank, width)
        across = math.prod(self.up.shape[1:])
        up = self.up.read(start * across, stop * across).view(stop - start, rank, self.experts)
        return down.to(dtype), up[:, :, self.expert].to(dtype)


@dataclass(frozen=True)
class LowRank:
    """Adds s B A, or its transpose, to the rows `start` to `stop`.

    output: the output (row of B) that meets row `start`. transposed: the matrix has inputs down and outputs across.
    """

    factors: Factors
    scale: float
    start: int
    stop: int
    output: int = 0
    transposed: bool = False

    def apply(self, rows: "Tensor", first: int) -> "Tensor":
        low, high = max(self.start, first), min(self.stop, first + len(rows))
        if low >= high:
            return rows
        if self.transposed:
            down, up = self.factors.load(rows.dtype, self.output, self.output + rows.shape[1])
            delta = (up @ down[:, low - self.start : high - self.start]).T
        else:
            shift = self.output - self.start
            down, up = self.factors.load(rows.dtype, low + shift, high + shift)
            delta = up @ down
        rows[low - first : high - first] += delta * self.scale
        return rows


class Overlap(NamedTuple):
    """The rows of a stretch that a patch changes (a view), and the outputs `first` to `last` that they meet."""

    rows: "Tensor"
    first: int
    last: int


def _overlap(start: int, stop: int, output: int, rows: "Tensor", first: int) -> Overlap | None:
    """What a patch of the rows `start` to `stop`, whose first meets `output`, changes of `rows`, which begin at row
    number `first`; None where it changes nothing of them."""
    low, high = max(start, first), min(stop, first + len(rows))
    shift = output - start
    return Overlap(rows[low - first : high - first], low + shift, high + shift) if low < high else None


@dataclass(frozen=True)
class RowMagnitude:
    """DoRA where each row is an output: gives the rows `start` to `stop` the lengths that were learned for them.

    vector: m, one a output. output: the one that meets row `start`.
    """

    vector: LazyTensor
    start: int
    stop: int
    output: int = 0

    def apply(self, rows: "Tensor", first: int) -> "Tensor":
        overlap = _overlap(self.start, self.stop, self.output, rows, first)
        if overlap is not None:
            wanted = self.vector.read(overlap.first, overlap.last).to(rows.dtype)
            overlap.rows.mul_((wanted / overlap.rows.norm(dim=1))[:, None])
        return rows


@dataclass(frozen=True)
class ColumnMagnitude:
    """DoRA where outputs run across: their lengths take a pass over the whole tensor, made once and remembered.

    vector: m, one a column. whole: V = W + s B A.
    """

    vector: LazyTensor
    whole: "FoldedTensor"

    def apply(self, rows: "Tensor", first: int) -> "Tensor":  # noqa: ARG002
        return rows.mul_(self._factor.to(rows.dtype))

    @cached_property
    def _factor(self) -> "Tensor":
        return self.vector.load().double().reshape(-1) / self.whole.column_norms()


@dataclass(frozen=True)
class AddBias:
    """Adds s b to the rows `start` to `stop` of a bias, whose rows are its single entries."""

    vector: LazyTensor
    scale: float
    start: int
    stop: int
    output: int = 0

    def apply(self, rows: "Tensor", first: int) -> "Tensor":
        overlap = _overlap(self.start, self.stop, self.output, rows, first)
        if overlap is not None:
            overlap.rows[:, 0] += self.vector.read(overlap.first, overlap.last).to(rows.dtype) * self.scale
        return rows


@dataclass(frozen=True)
class ReplaceRows:
    """Puts the rows of `source` in the place of the rows `start` to `stop`; `output`: the one that meets `start`."""

    source: LazyTensor
    start: int
    stop: int
    output: int = 0

    def apply(self, rows: "Tensor", first: int) -> "Tensor":
        overlap = _overlap(self.start, self.stop, self.output, rows, first)
        if overlap is not None:
            width = rows.shape[1]
            new = self.source.read(overlap.first * width, overlap.last * width)
            overlap.rows.copy_(new.view(-1, width))
        return rows


@dataclass(frozen=True)
class TokenRows:
    """Puts the rows of `source`, one a token, in the place of the rows of `tokens`."""

    source: LazyTensor
    tokens: tuple[int, ...]

    def apply(self, rows: "Tensor", first: int) -> "Tensor":
        new = self.source.load()
        for number, token in enumerate(self.tokens):
            if first <= token < first + len(rows):
                rows[token - first] = new[number].to(rows.dtype)
        return rows


@dataclass(frozen=True, slots=True)
class FoldedTensor(ComputedTensor):
    """The tensor `base` with patches applied as it is read; name, shape and dtype are those of `base`.

    width: entries of a row. Computed in float32 (float64 where `base` is), and rounded to the dtype of `base`.
    """

    base: LazyTensor
    width: int
    patches: tuple[Patch, ...]

    @classmethod
    def of(cls, base: LazyTensor, width: int, patches: Sequence[Patch]) -> "FoldedTensor":
        return cls(base.entry, base.shard, base, width, tuple(patches))

    def compute(self, start: int, stop: int) -> "Tensor":
        """Entries `start` to `stop` of the folded tensor in row-major order, as a vector in memory of its own."""
        first, last = start // self.width, -(-stop // self.width)
        rows = self.rows(first, last).to(self.dtype)
        return rows.view(-1)[start - first * self.width : stop - first * self.width]

    def rows(self, first: int, last: int) -> "Tensor":
        """The folded rows `first` to `last`, [last - first, width], before they are rounded to the tensor's dtype."""
        import torch

        exact = torch.float64 if self.dtype == torch.float64 else torch.float32
        rows = self.base.read(first * self.width, last * self.width).to(exact).view(last - first, self.width)
        for patch in self.patches:
            rows = patch.apply(rows, first)
        return rows

    def column_norms(self) -> "Tensor":
        """The length of every column, [width], in float64."""
        import torch

        height, step = self.numel // self.width, max(1, NORM_CHUNK // self.width)
        squares = torch.zeros(self.width, dtype=torch.float64)
        for first in range(0, height, step):
            squares += self.rows(first, min(first + step, height)).double().square().sum(dim=0)
        return squares.sqrt()
