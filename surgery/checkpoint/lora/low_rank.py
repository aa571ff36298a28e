"""Low-rank changes of a weight, computed row by row: the numbers of a LoRA adapter, without its names.

A tensor is taken as a matrix: its last dimension across, all others down; of a convolution, all but the first across; a
bias has rows of one entry. An adapter is a list of patches, each of which changes some rows of that matrix, so that a
tensor of any size is folded in chunks.

W' = W + s B A with s = alpha / r (Hu et al., "LoRA", arXiv 2106.09685), s = alpha / sqrt(r) (Kalajdzievski, "rsLoRA",
arXiv 2312.03732); W' = m V / |V| with V = W + s B A and norms per output (Liu et al., "DoRA", arXiv 2402.09353).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final, Protocol

from vlsurgery.surgery.checkpoint.lazy_tensor import ComputedTensor, LazyTensor

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# Entries folded at a time for norms over a whole tensor.
NORM_CHUNK: Final = 1 << 22


@dataclass(frozen=True)
class RowRange:
    """Rows of a file's tensor that hold rows of a live parameter.

    name: in the file. width: of a row. start, stop: the rows. output: the parameter's row that `start` holds. expert:
    its number, where the parameter holds `experts`. transposed: the file stores [in, out].
    """

    name: str
    width: int
    start: int
    stop: int
    output: int = 0
    expert: int = 0
    experts: int = 1
    transposed: bool = False


class Patch(Protocol):
    """A change of a parameter's rows."""

    def apply(self, rows: "Tensor", first: int, last: int) -> None:
        """Change the rows `first` to `last` in place. rows: [last - first, width], float32 or float64."""
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
    """Adds s B A; its transpose where rows are inputs."""

    factors: Factors
    scale: float
    transposed: bool = False

    def apply(self, rows: "Tensor", first: int, last: int) -> None:
        if self.transposed:
            down, up = self.factors.load(rows.dtype, 0, rows.shape[1])
            rows += (up @ down[:, first:last]).T * self.scale
        else:
            down, up = self.factors.load(rows.dtype, first, last)
            rows += up @ down * self.scale


@dataclass(frozen=True)
class RowMagnitude:
    """Gives rows their learned norms: DoRA where each row is an output. vector: m, an entry a row."""

    vector: LazyTensor

    def apply(self, rows: "Tensor", first: int, last: int) -> None:
        wanted = self.vector.read(first, last).to(rows.dtype)
        rows.mul_((wanted / rows.norm(dim=1))[:, None])


@dataclass(frozen=True)
class ColumnMagnitude:
    """Gives columns their learned norms: DoRA where each column is an output. The norms take one pass over the tensor.

    vector: m, an entry a column. whole: V = W + s B A.
    """

    vector: LazyTensor
    whole: "FoldedTensor"

    def apply(self, rows: "Tensor", first: int, last: int) -> None:  # noqa: ARG002
        rows.mul_(self._factor.to(rows.dtype))

    @cached_property
    def _factor(self) -> "Tensor":
        return self.vector.load().double().reshape(-1) / self.whole.column_norms()


@dataclass(frozen=True)
class AddBias:
    """Adds s b to a bias, whose rows are its single entries."""

    vector: LazyTensor
    scale: float

    def apply(self, rows: "Tensor", first: int, last: int) -> None:
        rows[:, 0] += self.vector.read(first, last).to(rows.dtype) * self.scale


@dataclass(frozen=True)
class ReplaceRows:
    """Replaces rows by those of `source`."""

    source: LazyTensor

    def apply(self, rows: "Tensor", first: int, last: int) -> None:
        width = rows.shape[1]
        rows.copy_(self.source.read(first * width, last * width).view(-1, width))


@dataclass(frozen=True)
class TokenRows:
    """Replaces the rows of `tokens` by those of `source`, one a token."""

    source: LazyTensor
    tokens: tuple[int, ...]

    def apply(self, rows: "Tensor", first: int, last: int) -> None:
        new = self.source.load()
        for number, token in enumerate(self.tokens):
            if first <= token < last:
                rows[token - first] = new[number].to(rows.dtype)


@dataclass(frozen=True, slots=True)
class FoldedTensor(ComputedTensor):
    """The tensor `base` with patches applied as it is read, under its name, shape and dtype.

    width: entries of a row. Computed in float32 (float64 where `base` is), and rounded to the dtype of `base`.
    """

    base: LazyTensor
    width: int
    patches: tuple[tuple[RowRange, Patch], ...]

    @classmethod
    def of(cls, base: LazyTensor, width: int, patches: Sequence[tuple[RowRange, Patch]]) -> "FoldedTensor":
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
        for place, patch in self.patches:
            low, high, shift = max(place.start, first), min(place.stop, last), place.output - place.start
            if low < high:
                patch.apply(rows[low - first : high - first], low + shift, high + shift)
        return rows

    def column_norms(self) -> "Tensor":
        """The norm of every column, [width], in float64."""
        import torch

        height, step = self.numel // self.width, max(1, NORM_CHUNK // self.width)
        squares = torch.zeros(self.width, dtype=torch.float64)
        for first in range(0, height, step):
            squares += self.rows(first, min(first + step, height)).double().square().sum(dim=0)
        return squares.sqrt()
