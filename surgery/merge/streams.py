"""The tensors of one site in several checkpoints, read stretch by stretch into memory that is used again."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Final, TypeVar

import numpy as np

from vlsurgery.surgery.alignment import Alignment
from vlsurgery.surgery.merge.plan import SiteMerge
from vlsurgery.surgery.methods.method import Chunk, ChunkScratch, chunk_size, width_of
from vlsurgery.surgery.runtime.arrays import compute_dtype, upcast
from vlsurgery.surgery.runtime.buffers import new_buffer
from vlsurgery.surgery.runtime.worker_pool import cores, map_ordered

Made = TypeVar("Made")

# Entries read of each tensor at a time: large enough that reading is sequential, small enough for any memory.
STRETCH: Final = 1 << 21

# Bytes that are set aside at least. What nothing is put into costs nothing, and what was used once is not taken anew.
ROOMY: Final = 1 << 27


@dataclass(frozen=True)
class SiteStream:
    """A job's site, as a method goes through it.

    origin: the role that deltas are taken from, or None. rows: whether blocks must be whole rows. seed: of the recipe.
    pool: the threads that share the work of going through the whole site; None where one thread does it alone. held:
    whether that thread reads the site once, and goes through it in memory from then on.
    """

    alignment: Alignment
    job: SiteMerge
    origin: str | None
    rows: bool
    seed: int
    pool: ThreadPoolExecutor | None = None
    held: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        return self.job.pair.shape

    @property
    def numel(self) -> int:
        return self.job.pair.numel

    @cached_property
    def chunk(self) -> int:
        """Entries a block."""
        return chunk_size(self.shape, self.rows)

    @property
    def stretch(self) -> int:
        """Entries that are read at once: whole blocks."""
        return max(1, STRETCH // self.chunk) * self.chunk

    @property
    def roles(self) -> list[str]:
        """Everyone who is read."""
        return [*self.job.settings.coefficients, *([] if self.origin is None else [self.origin])]

    def map(self, function: Callable[[Chunk], Made]) -> Iterator[Made]:
        """`function` of every block, in order."""

        def together(start: int) -> list[Made]:
            return [function(chunk) for chunk in self.chunks(start, min(start + self.stretch, self.numel))]

        starts = range(0, self.numel, self.stretch)
        done = map(together, starts) if self.pool is None else map_ordered(self.pool, together, starts, 2 * cores())
        return (made for stretch in done for made in stretch)

    def chunks(self, start: int, stop: int) -> Iterator[Chunk]:
        """The blocks of the entries `start` to `stop`, which are read once; `start` is the start of a block."""
        for first in range(start, stop, self.stretch):
            last = min(first + self.stretch, stop)
            rows = self._whole.rows(first, last) if self.held else self._rows(first, last)
            memory = self._memory()
            for begin in range(first, last, self.chunk):
                yield self._block(rows[:, begin - first : min(begin + self.chunk, last) - first], begin, memory)

    def read(self, start: int, stop: int) -> Chunk:
        """The entries `start` to `stop`, in memory of their own: what reads here and there keeps what it has read."""
        return self._block(self._rows(start, stop, reuse=False), start)

    def _block(self, stored: np.ndarray, start: int, memory: ChunkScratch | None = None) -> Chunk:
        return Chunk(self._names, stored, start, width_of(self.shape), self.seed, self._key, memory)

    def _memory(self) -> ChunkScratch:
        """What this thread's blocks compute in."""
        models, rows = len(self._names), len(self.roles)
        return ChunkScratch(
            _SCRATCH.matrix("exact", rows, self.chunk, self._exact),
            _SCRATCH.matrix("made", models, self.chunk, self._exact),
        )

    @cached_property
    def _names(self) -> tuple[str, ...]:
        return tuple(self.job.settings.coefficients)

    @cached_property
    def _key(self) -> str:
        return self.job.pair.site.key

    def _rows(self, start: int, stop: int, reuse: bool = True) -> np.ndarray:
        """The entries `start` to `stop` of everyone who is read, as the rows of a matrix: in this thread's scratch
        memory, or in memory of their own."""
        shape = (len(self.roles), stop - start)
        rows = _SCRATCH.matrix("stored", *shape, self._stored) if reuse else np.empty(shape, self._stored)
        self.fill(start, stop, rows)
        return rows

    def fill(self, start: int, stop: int, rows: np.ndarray) -> None:
        """Read the entries `start` to `stop` of everyone who is read into the rows of a matrix."""
        for role, row in zip(self.roles, rows, strict=True):
            self._fill(role, start, stop, row)

    def _fill(self, role: str, start: int, stop: int, row: np.ndarray) -> None:
        """Read entries of one role into `row`."""
        if role in self._scattered:
            row[:] = self._scattered[role][start:stop]
        elif self._dtype(role) == row.dtype:
            self.alignment.array(self.job.pair, role, start, stop, row)
        else:
            upcast(self.alignment.array(self.job.pair, role, start, stop), row)

    @cached_property
    def _stored(self) -> np.dtype:
        """What entries are read as: as they are stored where all are stored alike, and so that compiled code knows it,
        else as they are computed with."""
        stored = self._dtypes
        return next(iter(stored)) if len(stored) == 1 and np.dtype(np.float16) not in stored else self._exact

    @cached_property
    def _exact(self) -> np.dtype:
        """What entries are computed with."""
        return compute_dtype(self._dtypes)

    @property
    def _dtypes(self) -> set[np.dtype]:
        return {self._dtype(role) for role in self.roles}

    def _dtype(self, role: str) -> np.dtype:
        return self.alignment.tensor(self.job.pair, role).array_dtype

    @property
    def nbytes(self) -> int:
        """What everyone who is read takes in memory."""
        return self.numel * len(self.roles) * self._stored.itemsize

    @cached_property
    def _whole(self) -> "_Whole":
        return _Whole(self, _SCRATCH.matrix("stored", len(self.roles), self.numel, self._stored))

    @cached_property
    def _scattered(self) -> dict[str, np.ndarray]:
        """Parts whose entries are no run of their tensor's, each read once as a whole."""
        pair, found = self.job.pair, {}
        for role in self.roles:
            if not pair.parts[role].is_contiguous(self.alignment.tensor(pair, role).shape):
                stored = self.alignment.array(pair, role, 0, self.numel)
                alike = stored.dtype == self._stored
                found[role] = stored if alike else upcast(stored, np.empty(self.numel, self._exact))
        return found


@dataclass
class _Whole:
    """A site that is read once into one thread's memory, when it is first gone through: what looks at it then finds it
    in the processor's cache."""

    stream: SiteStream
    matrix: np.ndarray
    known: int = 0

    def rows(self, start: int, stop: int) -> np.ndarray:
        if self.known < stop:
            self.stream.fill(self.known, stop, self.matrix[:, self.known : stop])
            self.known = stop
        return self.matrix[:, start:stop]


class _Scratch(threading.local):
    """Each thread's memory for what it reads and for what it computes with: taking fresh memory for each stretch would
    cost as much as reading it does."""

    def __init__(self) -> None:
        self._held: dict[str, np.ndarray] = {}

    def matrix(self, use: str, height: int, width: int, dtype: np.dtype) -> np.ndarray:
        """A matrix whose memory is the caller's until this thread asks for another one for the same use."""
        nbytes = height * width * dtype.itemsize
        if use not in self._held or len(self._held[use]) < nbytes:
            self._held.pop(use, None)
            self._held[use] = np.frombuffer(new_buffer(max(nbytes, ROOMY)), np.uint8)
        return self._held[use][:nbytes].view(dtype).reshape(height, width)


_SCRATCH: Final = _Scratch()
