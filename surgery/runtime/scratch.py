"""Memory that each thread reads into and computes in, again and again: a fresh page costs as much as filling it."""

import threading
from typing import Final

import numpy as np

from vlsurgery.surgery.runtime.buffers import new_buffer
from vlsurgery.surgery.runtime.worker_pool import cores

# Bytes that the scratch buffers of all threads together keep for the next use.
MAX_SCRATCH_BYTES: Final = 1 << 28


class ScratchBuffers(threading.local):
    """One buffer per thread and use, kept for the next call until a thread would keep more than its part.

    max_bytes: that part; by default MAX_SCRATCH_BYTES over the number of threads.
    """

    def __init__(self, max_bytes: int | None = None) -> None:
        self._max_bytes = max_bytes
        self._bytes: dict[str, np.ndarray] = {}

    def vector(self, use: str, entries: int, dtype: np.dtype) -> np.ndarray:
        """An uninitialised vector, which is the caller's until this thread asks for the same use again."""
        nbytes = entries * dtype.itemsize
        buffer, most = self._bytes.get(use), self._max_bytes or MAX_SCRATCH_BYTES // cores()
        if buffer is None or len(buffer) < nbytes:
            self._bytes.pop(use, None)
            if nbytes + sum(map(len, self._bytes.values())) > most:
                self._bytes.clear()
            # It starts at a page: products of matrices are twice as fast from there.
            buffer = np.frombuffer(new_buffer(max(1, nbytes)), np.uint8)
            if nbytes <= most:
                self._bytes[use] = buffer
        return buffer[:nbytes].view(dtype)
