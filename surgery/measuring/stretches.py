"""Reading what a pair holds, a stretch at a time, into memory that each thread uses again."""

import threading
from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from surgery.alignment import Aligned, Alignment
from surgery.measuring.tally import Buffers

# Entries read of each tensor at a time: few enough to be still in the processor's cache when they are summed up.
STRETCH: Final = 1 << 19


class Memory(threading.local):
    """What a thread reads into and computes in."""

    def __init__(self) -> None:
        self.buffers = Buffers()
        self._bytes: dict[str, Tensor] = {}

    def raw(self, role: str, nbytes: int) -> Tensor:
        """So many bytes for what is read of a role; what was read before is written over."""
        kept = self._bytes.get(role)
        if kept is None or kept.numel() < nbytes:
            kept = self._bytes[role] = torch.empty(nbytes, dtype=torch.uint8)
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
        self._whole = {role: alignment.load(pair, role).reshape(-1) for role in scattered}

    def read(self, start: int, stop: int, roles: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Entries `start` to `stop` in row-major order, role -> vector; good until this thread reads again."""
        return {role: self._read(role, start, stop) for role in roles or self.roles}

    def load(self, role: str) -> Tensor:
        """All entries of a role as a vector of float32, in memory of its own."""
        whole = torch.empty(self.numel)
        for start in range(0, self.numel, STRETCH):
            stop = min(start + STRETCH, self.numel)
            whole[start:stop].copy_(self._read(role, start, stop))
        return whole

    def _read(self, role: str, start: int, stop: int) -> Tensor:
        if role in self._whole:
            return self._whole[role][start:stop]
        tensor = self._tensors[role]
        first, _ = self.pair.parts[role].box(tensor.shape)
        itemsize = tensor.dtype.itemsize
        raw = self._memory.raw(role, (stop - start) * itemsize)
        tensor.read_into(raw.numpy().data, (first + start) * itemsize)
        return raw.view(tensor.dtype)


def is_run(alignment: Alignment, pair: Aligned, role: str) -> bool:
    """Whether a role's shared entries lie one behind the other in its file."""
    return pair.parts[role].is_run(alignment.tensor(pair, role).shape)
