"""Reading what a pair holds, a stretch at a time, into memory that each thread uses again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Self

import numpy as np

from vlsurgery.surgery.alignment import Aligned, Alignment
from vlsurgery.surgery.runtime.arrays import kernel_input, upcast
from vlsurgery.surgery.runtime.jit import subtract
from vlsurgery.surgery.runtime.scratch import ScratchBuffers

# Entries read of each tensor at a time: few enough to take little memory, so many that threads seldom wait for each
# other to get hold of Python.
STRETCH: Final = 1 << 20

FLOAT32: Final = np.dtype(np.float32)


class PairReader:
    """The shared entries of one pair, of some roles.

    A part whose entries are scattered over its tensor (one expert's columns) is read once, as a whole; the others are
    read as they are asked for.
    """

    def __init__(self, alignment: Alignment, pair: Aligned, roles: Sequence[str], memory: ScratchBuffers) -> None:
        self.pair, self.roles, self.numel = pair, tuple(roles), pair.numel
        self._memory = memory
        self._tensors = {role: alignment.tensor(pair, role) for role in roles}
        scattered = [role for role in roles if not is_contiguous(alignment, pair, role)]
        self._whole = {role: kernel_input(alignment.array(pair, role, 0, pair.numel)) for role in scattered}

    def read(self, start: int, stop: int, roles: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """Entries `start` to `stop` in row-major order, role -> vector, as they are stored and compiled code reads
        them; good until this thread reads again."""
        return {role: self._read(role, start, stop) for role in roles or self.roles}

    def load(self, role: str, before: str | None = None) -> np.ndarray:
        """All entries of a role in float32, or how far they are from those of the role `before`; good until this
        thread loads again."""
        for start in range(0, self.numel, STRETCH):
            stop = min(start + STRETCH, self.numel)
            self.fill(start, stop, self._loaded[start:stop], role, before)
        return self._loaded

    @cached_property
    def _loaded(self) -> np.ndarray:
        return self._memory.vector("loaded", self.numel, FLOAT32)

    def fill(self, start: int, stop: int, out: np.ndarray, role: str, before: str | None = None) -> None:
        """Put entries into `out` as `load` has them."""
        found = self.read(start, stop, [role] if before is None else [role, before])
        if before is None:
            upcast(found[role], out)
        else:
            subtract(found[before], found[role], out)

    def _read(self, role: str, start: int, stop: int) -> np.ndarray:
        tensor = self._tensors[role]
        first, _ = self.pair.parts[role].span(tensor.shape)
        if role in self._whole:
            return self._whole[role][start:stop]
        raw = self._memory.vector(f"of {role}", stop - start, tensor.array_dtype)
        return kernel_input(tensor.array(first + start, first + stop, raw))


@dataclass(frozen=True)
class Gathered:
    """What the spectra of a pair are of, put together while the pair is summed up.

    start: the entries that the first delta starts from, in float32, or bfloat16 by its bits. deltas: role that a delta
    ends in -> its entries in float32.
    """

    start: np.ndarray
    deltas: Mapping[str, np.ndarray]

    def part(self, start: int, stop: int) -> Self:
        """Entries `start` to `stop`, in the same memory."""
        return type(self)(self.start[start:stop], {role: delta[start:stop] for role, delta in self.deltas.items()})

    def begin(self, stored: np.ndarray) -> None:
        """Put in what the first delta starts from."""
        if self.start.dtype == stored.dtype:
            self.start[:] = stored
        else:
            upcast(stored, self.start)


def is_contiguous(alignment: Alignment, pair: Aligned, role: str) -> bool:
    """Whether a role's shared entries lie one behind the other in its file."""
    return pair.parts[role].is_contiguous(alignment.tensor(pair, role).shape)
