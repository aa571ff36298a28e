"""Matrices that are gone through in chunks of rows: in memory or read from files, and products by them."""

from collections.abc import Iterator
from functools import cache
from typing import Final, Protocol

import torch
from torch import Tensor

from vlsurgery.surgery.diff.reader import READ_SIZE, PairReader
from vlsurgery.surgery.runtime.jit import round_to_bfloat16, upcast_into

# Entries up to which a matrix in memory is one chunk, so that threads seldom wait for the interpreter's lock.
MAX_CHUNK: Final = 1 << 24
# Entries of other chunks, and of what is converted or summed up at a time: they stay in the processor's cache.
CHUNK: Final = 1 << 20


class Matrix(Protocol):
    """A matrix of float32 that is gone through in chunks of rows."""

    @property
    def shape(self) -> tuple[int, int]: ...

    def chunks(self) -> Iterator[tuple[int, Tensor]]:
        """The first row of each chunk, and the chunk, which is valid until the next one."""


class InMemoryMatrix:
    """A matrix in memory, of float32."""

    def __init__(self, matrix: Tensor) -> None:
        self.matrix, self.shape = matrix, (matrix.shape[0], matrix.shape[1])
        self._narrow: Tensor | None = None

    def chunks(self) -> Iterator[tuple[int, Tensor]]:
        entries = self.matrix.numel()
        return row_chunks(self.matrix, entries if entries <= MAX_CHUNK else CHUNK)

    def narrow_chunks(self) -> Iterator[Tensor]:
        """The chunks in bfloat16; a matrix of one chunk is converted once."""
        if self.matrix.numel() > MAX_CHUNK:
            return (_bfloat16(chunk) for _, chunk in self.chunks())
        if self._narrow is None:
            self._narrow = _bfloat16(self.matrix)
        return iter([self._narrow])


class BFloat16Matrix:
    """A matrix in memory, of bfloat16 by its bits."""

    def __init__(self, bits: Tensor) -> None:
        self.matrix, self.shape = bits.view(torch.bfloat16), (bits.shape[0], bits.shape[1])

    def chunks(self) -> Iterator[tuple[int, Tensor]]:
        buffer: Tensor | None = None
        for row, part in row_chunks(self.matrix, CHUNK):
            buffer = torch.empty(part.shape) if buffer is None else buffer[: len(part)]
            upcast_into(part.reshape(-1).view(torch.uint16).numpy(), buffer.view(-1).numpy())
            yield row, buffer

    def narrow_chunks(self) -> Iterator[Tensor]:
        """The whole matrix as one chunk."""
        return iter([self.matrix])


class StreamedMatrix:
    """A matrix that is read from its files for every pass: a role, or the difference of two."""

    def __init__(self, reader: PairReader, after: str, before: str | None = None) -> None:
        self.reader, self.after, self.before = reader, after, before
        self.shape = (reader.pair.shape[0], reader.pair.shape[1])
        self._rows = max(1, READ_SIZE // self.shape[1])
        self._buffer = torch.empty(self._rows, self.shape[1])

    def chunks(self) -> Iterator[tuple[int, Tensor]]:
        rows, columns = self.shape
        for row in range(0, rows, self._rows):
            stop = min(row + self._rows, rows)
            chunk = self._buffer[: stop - row]
            self.reader.fill(row * columns, stop * columns, chunk.view(-1).numpy(), self.after, self.before)
            yield row, chunk


def times(matrix: Matrix, right: Tensor) -> Tensor:
    """D V."""
    found, right = torch.empty(matrix.shape[0], right.shape[1]), right.contiguous()
    for row, chunk in matrix.chunks():
        torch.mm(chunk, right, out=found[row : row + len(chunk)])
    return found


def transposed_times(matrix: Matrix, left: Tensor) -> Tensor:
    """D^T U."""
    across = left.T.contiguous()
    found = torch.zeros(len(across), matrix.shape[1])
    for row, chunk in matrix.chunks():
        for inner, part in row_chunks(chunk, CHUNK):
            found.addmm_(across[:, row + inner : row + inner + len(part)], part)
    return found.T


def gram_times(matrix: Matrix, right: Tensor) -> Tensor:
    """D^T D V in one pass over D, in bfloat16 where the processor multiplies it natively: a third of the time, and
    precise enough to find a subspace, in which values are then computed in float32."""
    found = torch.zeros(right.shape[1], matrix.shape[1])
    narrow = multiplies_bfloat16()
    right = (right.bfloat16() if narrow else right).contiguous()
    for part in _operands(matrix, narrow):
        found += (part @ right).T.contiguous() @ part
    return found.T


def _operands(matrix: Matrix, narrow: bool) -> Iterator[Tensor]:
    """The chunks of a matrix, in bfloat16 if `narrow`."""
    if narrow and isinstance(matrix, InMemoryMatrix | BFloat16Matrix):
        return matrix.narrow_chunks()
    return (_bfloat16(chunk) if narrow else chunk for _, chunk in matrix.chunks())


def _bfloat16(chunk: Tensor) -> Tensor:
    """A chunk in bfloat16, faster than by torch."""
    made = torch.empty(chunk.shape, dtype=torch.bfloat16)
    round_to_bfloat16(chunk.reshape(-1).numpy(), made.view(-1).view(torch.uint16).numpy())
    return made


@cache
def multiplies_bfloat16() -> bool:
    """Whether this processor has instructions for products of bfloat16; False where torch can't tell, because without
    them such products take many times as long."""
    tell = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return tell is not None and bool(tell())


def row_chunks(matrix: Tensor, entries: int) -> Iterator[tuple[int, Tensor]]:
    """The first row of each chunk, and the chunk, of about so many entries."""
    rows = max(1, entries // matrix.shape[1])
    return ((row, matrix[row : row + rows]) for row in range(0, len(matrix), rows))
