"""Reading what a pair holds, a stretch at a time, into memory that each thread uses again."""

import threading
from collections.abc import Sequence
from typing import Final

import numpy as np

from surgery.alignment import Aligned, Alignment
from surgery.vectors import computable, to_exact

# Entries read of each tensor at a time: few enough to take little memory, so many that threads seldom wait for each
# other to get hold of Python.
STRETCH: Final = 1 << 20


class Memory(threading.local):
    """What a thread reads into."""

    def __init__(self) -> None:
        self._bytes: dict[str, np.ndarray] = {}

    def raw(self, role: str, nbytes: int) -> np.ndarray:
        """So many bytes for what is read of a role; what was read before is written over."""
        kept = self._bytes.get(role)
        if kept is None or len(kept) < nbytes:
            kept = self._bytes[role] = np.empty(nbytes, np.uint8)
        return kept[:nbytes]


class Source:
    """The shared entries of one pair, of some roles.

    A part whose entries are scattered over its tensor (one expert's columns) is read once, as a whole; the others are
    read as they are asked for.
    """

    def __init__(self, alignment: Alignment, pair: Aligned, roles: Sequence[str], memory: Memory) -> None:
        self.pair, self.roles, self.numel = pair, tuple(roles), pair.numel
        self._memory = memory
        self._tensors = {role: alignment.tensor(pair, role) for role in roles}
        scattered = [role for role in roles if not is_run(alignment, pair, role)]
        self._whole = {role: computable(alignment.array(pair, role, 0, pair.numel)) for role in scattered}

    def read(self, start: int, stop: int, roles: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """Entries `start` to `stop` in row-major order, role -> vector, as they are stored and compiled code reads
        them; good until this thread reads again."""
        return {role: self._read(role, start, stop) for role in roles or self.roles}

    def load(self, role: str) -> np.ndarray:
        """All entries of a role as a vector of float32, in memory of its own."""
        whole = np.empty(self.numel, np.float32)
        for start in range(0, self.numel, STRETCH):
            stop = min(start + STRETCH, self.numel)
            to_exact(self._read(role, start, stop), whole[start:stop])
        return whole

    def _read(self, role: str, start: int, stop: int) -> np.ndarray:
        if role in self._whole:
            return self._whole[role][start:stop]
        tensor = self._tensors[role]
        first, _ = self.pair.parts[role].box(tensor.shape)
        raw = self._memory.raw(role, (stop - start) * tensor.array_dtype.itemsize).view(tensor.array_dtype)
        return computable(tensor.array(first + start, first + stop, raw))


def is_run(alignment: Alignment, pair: Aligned, role: str) -> bool:
    """Whether a role's shared entries lie one behind the other in its file."""
    return pair.parts[role].is_run(alignment.tensor(pair, role).shape)
