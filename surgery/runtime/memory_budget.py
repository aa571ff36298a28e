"""A limit on the memory that all threads take at once, whatever their number."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class MemoryBudget:
    """A number of bytes that threads reserve parts of; a thread waits until enough is left."""

    def __init__(self, nbytes: int) -> None:
        self._all = self._left = nbytes
        self._changed = threading.Condition()

    @contextmanager
    def reserve(self, nbytes: int) -> Iterator[None]:
        """Reserve so many bytes while the block runs, or the whole budget where that is less."""
        taken = min(nbytes, self._all)
        with self._changed:
            self._changed.wait_for(lambda: self._left >= taken)
            self._left -= taken
        try:
            yield
        finally:
            with self._changed:
                self._left += taken
                self._changed.notify_all()
