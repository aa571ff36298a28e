"""The part of a matrix's delta that lies where alignment changed the matrix: Safe LoRA's projection, in little memory.

V is what alignment changed, base - unaligned, and the projection of a delta D is C D with C = V V^T / norm(V) (Hsu et
al. 2024, "Safe LoRA", arXiv 2405.16833, eq. 2). Whichever is smaller of V^T D and V V^T is held; rows are gone through
in groups, so that no matrix is held as a whole.
"""

import math
import threading
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Final

import numpy as np

from vlsurgery.surgery.methods.method import Chunk, Stream

if TYPE_CHECKING:
    from torch import Tensor

# Entries of a group of rows. A thread has some ten vectors of as many.
GROUP: Final = 1 << 18

# Groups that are kept once they are projected: threads work at neighbouring ones.
GROUPS: Final = 6

ADAPTED: Final = "adapted"
UNALIGNED: Final = "unaligned"


class Projection:
    """The projected delta of one site, and how it lies to the delta."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._height, self._width = stream.shape
        self._rows = max(1, GROUP // self._width)
        self._lock = threading.Lock()
        self._held: dict[int, Tensor] = {}

    @cached_property
    def cosine(self) -> float | None:
        """Between the delta and its projection, in [0, 1]; None where either is 0."""
        shared = projected = delta = 0.0
        for first, chunk in self._groups():
            moved = _delta(chunk)
            rows = self._group(first)
            shared += _dot(rows, moved)
            projected += _dot(rows, rows)
            delta += _dot(moved, moved)
        return shared / math.sqrt(projected * delta) if projected and delta else None

    def of(self, chunk: Chunk) -> np.ndarray:
        """The projected delta, for the rows of a block."""
        if self._is_narrow:
            projected: np.ndarray = (_vector(chunk) @ self._inner).div_(self._norm).view(-1).numpy()
            return projected
        start, stop = chunk.start // self._width, (chunk.start + len(chunk)) // self._width
        done = []
        while start < stop:
            first = start - start % self._rows
            end = min(stop, first + self._rows)
            with self._lock:
                if first not in self._held:
                    self._held[first] = self._group(first)
                    for old in list(self._held)[:-GROUPS]:
                        del self._held[old]
                done.append(self._held[first][start - first : end - first].reshape(-1).numpy())
            start = end
        return np.concatenate(done)

    @property
    def _is_narrow(self) -> bool:
        return self._width <= self._height

    @cached_property
    def _norm(self) -> float:
        return math.sqrt(math.fsum(_dot(_vector(chunk), _vector(chunk)) for _, chunk in self._groups()))

    @cached_property
    def _inner(self) -> "Tensor":
        """V^T D, [width, width]."""
        inner = self._zeros(self._width)
        for _, chunk in self._groups():
            inner.addmm_(_vector(chunk).T, _delta(chunk))
        return inner

    @cached_property
    def _outer(self) -> "Tensor":
        """V V^T, [height, height]."""
        outer = self._zeros(self._height)
        for first, chunk in self._groups():
            rows = _vector(chunk)
            for other, against in self._groups(first):
                part = rows @ _vector(against).T
                outer[first : first + part.shape[0], other : other + part.shape[1]] = part
                outer[other : other + part.shape[1], first : first + part.shape[0]] = part.T
        return outer

    def _zeros(self, size: int) -> "Tensor":
        return _tensor(np.zeros((size, size), self._stream.read(0, 1).origin.dtype))

    def _group(self, first: int) -> "Tensor":
        """The projected delta of a group of rows, the first of them `first`."""
        if self._is_narrow:
            return (_vector(self._read(first)) @ self._inner).div_(self._norm)
        outer = self._outer[first : first + self._rows]
        total = outer.new_zeros(len(outer), self._width)
        for other, chunk in self._groups():
            total.addmm_(outer[:, other : other + self._rows], _delta(chunk))
        return total.div_(self._norm)

    def _groups(self, first: int = 0) -> Iterator[tuple[int, Chunk]]:
        """Groups of rows from row `first` on, each with its first row."""
        return ((start, self._read(start)) for start in range(first, self._height, self._rows))

    def _read(self, first: int) -> Chunk:
        return self._stream.read(first * self._width, min(first + self._rows, self._height) * self._width)


def _vector(chunk: Chunk) -> "Tensor":
    """What alignment changed, as rows."""
    return _tensor(chunk.origin - chunk.models[UNALIGNED]).view(-1, chunk.width)


def _delta(chunk: Chunk) -> "Tensor":
    """What adaptation changed, as rows."""
    return _tensor(chunk.models[ADAPTED] - chunk.origin).view(-1, chunk.width)


def _tensor(array: np.ndarray) -> "Tensor":
    """For torch, which multiplies matrices in place."""
    import torch

    return torch.from_numpy(array)


def _dot(first: "Tensor", second: "Tensor") -> float:
    import torch

    return float((first * second).sum(dtype=torch.float64))
