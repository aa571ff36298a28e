"""The tensors of one site in several checkpoints, read stretch by stretch into memory that is used again."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Final, TypeVar

import torch
from torch import Tensor

from surgery.alignment import Alignment
from surgery.memory import new_buffer
from surgery.merging.jobs import Job
from surgery.methods.method import Block, block_size, precise, width_of
from surgery.workers import cores, in_order

Made = TypeVar("Made")

# Entries read of each tensor at a time: large enough that reading is sequential, small enough for any memory.
STRETCH: Final = 1 << 21


@dataclass(frozen=True)
class SiteStream:
    """A job's site, as a method goes through it.

    origin: the role that deltas are taken from, or None. rows: whether blocks must be whole rows. seed: of the recipe.
    pool: the threads that share the work of going through the whole site; None where one thread does it alone. held:
    whether that thread reads the site once, and goes through it in memory from then on.
    """

    alignment: Alignment
    job: Job
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
    def block(self) -> int:
        """Entries a block."""
        return block_size(self.shape, self.rows)

    @property
    def stretch(self) -> int:
        """Entries that are read at once: whole blocks."""
        return max(1, STRETCH // self.block) * self.block

    @property
    def roles(self) -> list[str]:
        """Everyone who is read."""
        return [*self.job.settings.weights, *([] if self.origin is None else [self.origin])]

    def map(self, function: Callable[[Block], Made]) -> Iterator[Made]:
        """`function` of every block, in order."""

        def together(start: int) -> list[Made]:
            return [function(block) for block in self.blocks(start, min(start + self.stretch, self.numel))]

        starts = range(0, self.numel, self.stretch)
        done = map(together, starts) if self.pool is None else in_order(self.pool, together, starts, 2 * cores())
        return (made for stretch in done for made in stretch)

    def blocks(self, start: int, stop: int) -> Iterator[Block]:
        """The blocks of the entries `start` to `stop`, which are read once; `start` is the start of a block."""
        for first in range(start, stop, self.stretch):
            last = min(first + self.stretch, stop)
            read = {role: self._read(role, first, last) for role in self.roles}
            for begin in range(first, last, self.block):
                end = min(begin + self.block, last)
                yield self._block({role: vector[begin - first : end - first] for role, vector in read.items()}, begin)

    def read(self, start: int, stop: int) -> Block:
        """The entries `start` to `stop`, in memory of their own: what reads here and there keeps what it has read."""
        return self._block({role: self._read(role, start, stop, reuse=False) for role in self.roles}, start)

    def _block(self, vectors: dict[str, Tensor], start: int) -> Block:
        exact = precise(vectors)
        models = {role: exact[role] for role in self.job.settings.weights}
        base = None if self.origin is None else exact[self.origin]
        return Block(models, base, start, width_of(self.shape), self.seed, self.job.pair.site.key)

    def _read(self, role: str, start: int, stop: int, reuse: bool = True) -> Tensor:
        if role in self._whole:
            return self._whole[role][start:stop]
        return self._read_file(role, start, stop, reuse)

    def _read_file(self, role: str, start: int, stop: int, reuse: bool) -> Tensor:
        itemsize = self.alignment.tensor(self.job.pair, role).dtype.itemsize
        buffer = _SCRATCH.buffer(role, (stop - start) * itemsize) if reuse else None
        return self.alignment.read(self.job.pair, role, start, stop, buffer)

    @property
    def nbytes(self) -> int:
        """What everyone who is read takes in memory."""
        return sum(self.numel * self.alignment.tensor(self.job.pair, role).dtype.itemsize for role in self.roles)

    @cached_property
    def _whole(self) -> dict[str, Tensor]:
        """Who is read once, as a whole: parts whose entries are no run of their tensor's; where the site is held, the
        others too, into this thread's scratch memory."""
        pair, found = self.job.pair, {}
        for role in self.roles:
            if not pair.parts[role].is_run(self.alignment.tensor(pair, role).shape):
                found[role] = self.alignment.load(pair, role).reshape(-1)
            elif self.held:
                found[role] = self._read_file(role, 0, self.numel, reuse=True)
        return found


class _Scratch(threading.local):
    """Each thread's memory for what it reads, by role: taking fresh memory for each stretch would cost as much as
    reading it does."""

    def __init__(self) -> None:
        self._buffers: dict[str, Tensor] = {}

    def buffer(self, role: str, nbytes: int) -> Tensor:
        held = self._buffers.get(role)
        if held is None or len(held) < nbytes:
            held = self._buffers[role] = torch.frombuffer(new_buffer(nbytes), dtype=torch.uint8)
        return held[:nbytes]


_SCRATCH: Final = _Scratch()
