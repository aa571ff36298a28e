"""The tensors of one site in several checkpoints, read range by range into scratch memory."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Final, TypeVar

import numpy as np

from vlsurgery.surgery.alignment import Alignment
from vlsurgery.surgery.merge.kept_ranges import KeptRanges
from vlsurgery.surgery.merge.plan import SiteMerge
from vlsurgery.surgery.methods.method import Chunk, ChunkScratch, chunk_size, width_of
from vlsurgery.surgery.runtime.arrays import compute_dtype, upcast
from vlsurgery.surgery.runtime.scratch import ScratchBuffers
from vlsurgery.surgery.runtime.worker_pool import cores, map_ordered

Made = TypeVar("Made")

# Entries read of each tensor at a time: enough that reading is sequential, few enough for any memory.
READ_SIZE: Final = 1 << 21

# Bytes that each thread keeps for the next range or site.
_SCRATCH: Final = ScratchBuffers(max_bytes=1 << 28)


@dataclass(frozen=True)
class SiteStream:
    """A site in all models that are merged there, and in the origin, as a method goes through it.

    origin: the role that deltas are taken from, or None. whole_rows: whether chunks must be whole rows. seed: of the
    recipe. pool: the threads that go through the whole site together; None where one thread does it alone. resident:
    whether that thread reads the site once, and from then on goes through it in memory. kept: where ranges are kept
    from the first pass to the next, of a site in a store; None of one on disk.
    """

    alignment: Alignment
    merge: SiteMerge
    origin: str | None
    whole_rows: bool
    seed: int
    pool: ThreadPoolExecutor | None = None
    resident: bool = False
    kept: KeptRanges | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.merge.pair.shape

    @property
    def numel(self) -> int:
        return self.merge.pair.numel

    @property
    def nbytes(self) -> int:
        """Bytes that the site takes in memory, of all roles that are read."""
        return self.numel * len(self.roles) * self._read_dtype.itemsize

    @cached_property
    def chunk(self) -> int:
        """Entries a chunk."""
        return chunk_size(self.shape, self.whole_rows)

    @property
    def read_size(self) -> int:
        """Entries that are read at a time: whole chunks."""
        return max(1, READ_SIZE // self.chunk) * self.chunk

    @cached_property
    def roles(self) -> list[str]:
        """The roles that are read: the models, then the origin."""
        return [*self.merge.settings.coefficients, *([] if self.origin is None else [self.origin])]

    def map(self, function: Callable[[Chunk], Made]) -> Iterator[Made]:
        """Yield `function` of every chunk, in order."""

        def of_range(start: int) -> list[Made]:
            return [function(chunk) for chunk in self.chunks(start, min(start + self.read_size, self.numel))]

        starts = range(0, self.numel, self.read_size)
        done = map(of_range, starts) if self.pool is None else map_ordered(self.pool, of_range, starts, 2 * cores())
        return (made for each in done for made in each)

    def chunks(self, start: int, stop: int) -> Iterator[Chunk]:
        """Yield the chunks of the entries `start` to `stop`; `start` is the start of a chunk.

        Each holds until this thread asks for the next one: they share its scratch memory.
        """
        for first in range(start, stop, self.read_size):
            last = min(first + self.read_size, stop)
            rows = self._resident.rows(first, last) if self.resident else self.read_rows(first, last)
            scratch = ChunkScratch(
                _matrix("upcast", len(self.roles), self.chunk, self._compute_dtype),
                _matrix("made", len(self._models), self.chunk, self._compute_dtype),
            )
            for begin in range(first, last, self.chunk):
                yield self._chunk(rows[:, begin - first : min(begin + self.chunk, last) - first], begin, scratch)

    def read(self, start: int, stop: int) -> Chunk:
        """The entries `start` to `stop`, in memory of their own."""
        rows = np.empty((len(self.roles), stop - start), self._read_dtype)
        return self._chunk(self.read_rows(start, stop, rows), start)

    def _chunk(self, rows: np.ndarray, start: int, scratch: ChunkScratch | None = None) -> Chunk:
        return Chunk(self._models, rows, start, width_of(self.shape), self.seed, self._key, scratch)

    def read_rows(self, start: int, stop: int, out: np.ndarray | None = None) -> np.ndarray:
        """The entries `start` to `stop`, a row for each of `roles`: in `out`, or in this thread's scratch memory."""
        rows = _matrix("read", len(self.roles), stop - start, self._read_dtype) if out is None else out
        kept = self.kept if out is None else None
        if kept is not None and kept.read_into(rows, start):
            return rows
        for role, row in zip(self.roles, rows, strict=True):
            if role in self._scattered:
                row[:] = self._scattered[role][start:stop]
            elif self._dtype(role) == row.dtype:
                self.alignment.array(self.merge.pair, role, start, stop, row)
            else:
                upcast(self.alignment.array(self.merge.pair, role, start, stop), row)
        if kept is not None:
            kept.keep(rows, start)
        return rows

    @property
    def is_remote(self) -> bool:
        """Whether some role is read from a store."""
        return any(self.alignment.checkpoints[role].remote is not None for role in self.roles)

    @cached_property
    def _models(self) -> tuple[str, ...]:
        return tuple(self.merge.settings.coefficients)

    @cached_property
    def _key(self) -> str:
        return self.merge.pair.site.key

    @cached_property
    def _read_dtype(self) -> np.dtype:
        """The stored dtype, where all roles share one that compiled code knows; else the one that is computed in."""
        stored = {self._dtype(role) for role in self.roles}
        return next(iter(stored)) if len(stored) == 1 and np.dtype(np.float16) not in stored else self._compute_dtype

    @cached_property
    def _compute_dtype(self) -> np.dtype:
        return compute_dtype({self._dtype(role) for role in self.roles})

    def _dtype(self, role: str) -> np.dtype:
        return self.alignment.tensor(self.merge.pair, role).array_dtype

    @cached_property
    def _resident(self) -> "_ResidentSite":
        return _ResidentSite(self, _matrix("read", len(self.roles), self.numel, self._read_dtype))

    @cached_property
    def _scattered(self) -> dict[str, np.ndarray]:
        """Role -> all entries, where they are not contiguous in the role's tensor; each is read once."""
        pair, found = self.merge.pair, {}
        for role in self.roles:
            if not pair.parts[role].is_contiguous(self.alignment.tensor(pair, role).shape):
                stored = self.alignment.array(pair, role, 0, self.numel)
                same = stored.dtype == self._read_dtype
                found[role] = stored if same else upcast(stored, np.empty(self.numel, self._compute_dtype))
        return found


@dataclass
class _ResidentSite:
    """A site in one thread's memory, read as the thread first goes through it: what is read is then still in the
    processor's cache."""

    stream: SiteStream
    matrix: np.ndarray
    num_read: int = 0

    def rows(self, start: int, stop: int) -> np.ndarray:
        if self.num_read < stop:
            self.stream.read_rows(self.num_read, stop, self.matrix[:, self.num_read : stop])
            self.num_read = stop
        return self.matrix[:, start:stop]


def _matrix(use: str, height: int, width: int, dtype: np.dtype) -> np.ndarray:
    """Scratch memory that is the caller's until this thread asks for the same use again."""
    return _SCRATCH.vector(use, height * width, dtype).reshape(height, width)
