"""Safe LoRA's projection of a matrix's delta onto what alignment changed, in little memory.

V = base - unaligned is what alignment changed, and the projection of a delta D is C D with C = V V^T / norm(V) (Hsu et
al. 2024, "Safe LoRA", arXiv 2405.16833, eq. 2). The smaller of V^T D and V V^T is kept; rows are read in groups, so
that no other matrix is held whole.
"""

import math
import threading
from collections.abc import Iterator
from functools import cached_property
from typing import Final

import numpy as np
import torch
from torch import Tensor

from vlsurgery.surgery.methods.method import Chunk, Stream

# Entries of a group of rows, of which a thread holds some ten vectors.
GROUP_SIZE: Final = 1 << 18

# Projected groups that are kept for other threads, which work on neighbouring rows.
MAX_CACHED_GROUPS: Final = 6


class Projection:
    """The projected delta of one site, and its cosine with the delta."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._height, self._width = stream.shape
        self._is_narrow = self._width <= self._height
        self._rows = max(1, GROUP_SIZE // self._width)
        self._lock = threading.Lock()
        self._cached: dict[int, Tensor] = {}

    @cached_property
    def cosine(self) -> float | None:
        """Between the delta and its projection, in [0, 1]; None where either is 0."""
        product = projected = delta = 0.0
        for first, chunk in self._groups():
            moved = _delta(chunk)
            rows = self._group(first)
            product += _dot(rows, moved)
            projected += _dot(rows, rows)
            delta += _dot(moved, moved)
        return product / math.sqrt(projected * delta) if projected and delta else None

    def of(self, chunk: Chunk) -> np.ndarray:
        """The projected delta of a chunk of whole rows."""
        if self._is_narrow:
            projected: np.ndarray = (_alignment_delta(chunk) @ self._inner).div_(self._norm).view(-1).numpy()
            return projected
        start, stop = chunk.start // self._width, (chunk.start + len(chunk)) // self._width
        done = []
        while start < stop:
            first = start - start % self._rows
            end = min(stop, first + self._rows)
            with self._lock:
                if first not in self._cached:
                    self._cached[first] = self._group(first)
                    for old in list(self._cached)[:-MAX_CACHED_GROUPS]:
                        del self._cached[old]
                done.append(self._cached[first][start - first : end - first].reshape(-1).numpy())
            start = end
        return np.concatenate(done)

    @cached_property
    def _norm(self) -> float:
        """norm(V)."""
        return math.sqrt(math.fsum(_dot(v := _alignment_delta(chunk), v) for _, chunk in self._groups()))

    @cached_property
    def _inner(self) -> Tensor:
        """V^T D, [width, width]."""
        inner = self._zeros(self._width)
        for _, chunk in self._groups():
            inner.addmm_(_alignment_delta(chunk).T, _delta(chunk))
        return inner

    @cached_property
    def _outer(self) -> Tensor:
        """V V^T, [height, height]."""
        outer = self._zeros(self._height)
        for first, chunk in self._groups():
            rows = _alignment_delta(chunk)
            for other, other_chunk in self._groups(first):
                part = rows @ _alignment_delta(other_chunk).T
                outer[first : first + part.shape[0], other : other + part.shape[1]] = part
                outer[other : other + part.shape[1], first : first + part.shape[0]] = part.T
        return outer

    def _zeros(self, size: int) -> Tensor:
        return torch.from_numpy(np.zeros((size, size), self._stream.read(0, 1).origin.dtype))

    def _group(self, first: int) -> Tensor:
        """The projected delta of the group of rows that starts at row `first`."""
        if self._is_narrow:
            return (_alignment_delta(self._read(first)) @ self._inner).div_(self._norm)
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


def _alignment_delta(chunk: Chunk) -> Tensor:
    """base - unaligned, as rows."""
    return torch.from_numpy(chunk.origin - chunk.models["unaligned"]).view(-1, chunk.width)


def _delta(chunk: Chunk) -> Tensor:
    """adapted - base, as rows."""
    return torch.from_numpy(chunk.models["adapted"] - chunk.origin).view(-1, chunk.width)


def _dot(first: Tensor, second: Tensor) -> float:
    return float((first * second).sum(dtype=torch.float64))
