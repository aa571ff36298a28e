"""Reading the tensors of a pair, a range of entries at a time, into memory that each thread uses again."""

from collections.abc import Mapping
from functools import cached_property
from typing import Final

import numpy as np

from vlsurgery.surgery.alignment import Aligned, Alignment
from vlsurgery.surgery.runtime.arrays import kernel_input, upcast
from vlsurgery.surgery.runtime.jit import subtract
from vlsurgery.surgery.runtime.scratch import ScratchBuffers

# Entries read of each tensor at a time: few enough to take little memory, so many that threads seldom wait for the
# interpreter's lock.
READ_SIZE: Final = 1 << 20

FLOAT32: Final = np.dtype(np.float32)


class PairReader:
    """The shared entries of one pair. roles: base, adapted and safety, as far as the pair has them -> the alignment's
    names for them.

    A part whose entries are scattered over its tensor (one expert's columns) is read once, as a whole; the others are
    read on demand.
    """

    def __init__(self, alignment: Alignment, pair: Aligned, roles: Mapping[str, str], scratch: ScratchBuffers) -> None:
        self.pair, self.roles, self.numel = pair, dict(roles), pair.numel
        self._scratch = scratch
        self._tensors = {role: alignment.tensor(pair, name) for role, name in roles.items()}
        scattered = {role: name for role, name in roles.items() if not is_contiguous(alignment, pair, name)}
        self._whole = {
            role: kernel_input(alignment.array(pair, name, 0, pair.numel)) for role, name in scattered.items()
        }

    def read(self, role: str, start: int, stop: int) -> np.ndarray:
        """Entries `start` to `stop` of a role in row-major order, as they are stored and compiled code reads them;
        valid until this thread reads that role again."""
        if role in self._whole:
            return self._whole[role][start:stop]
        tensor = self._tensors[role]
        first, _ = self.pair.parts[self.roles[role]].span(tensor.shape)
        raw = self._scratch.vector(f"of {role}", stop - start, tensor.array_dtype)
        return kernel_input(tensor.array(first + start, first + stop, raw))

    def load(self, role: str, before: str | None = None) -> np.ndarray:
        """All entries of a role in float32, or their difference from those of the role `before`; valid until this
        thread loads again."""
        for start in range(0, self.numel, READ_SIZE):
            stop = min(start + READ_SIZE, self.numel)
            self.fill(start, stop, self._loaded[start:stop], role, before)
        return self._loaded

    @cached_property
    def _loaded(self) -> np.ndarray:
        """The memory of every `load`: a buffer that is too large for the scratch to keep is not made twice."""
        return self._scratch.vector("loaded", self.numel, FLOAT32)

    def fill(self, start: int, stop: int, out: np.ndarray, role: str, before: str | None = None) -> None:
        """Put entries `start` to `stop` of what `load` returns into `out`."""
        after = self.read(role, start, stop)
        if before is None:
            upcast(after, out)
        else:
            subtract(self.read(before, start, stop), after, out)


def is_contiguous(alignment: Alignment, pair: Aligned, name: str) -> bool:
    """Whether the shared entries of one role of the alignment are one range of its file."""
    return pair.parts[name].is_contiguous(alignment.tensor(pair, name).shape)
