"""A limit on the memory that threads take at once, on a machine of any number of cores."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class MemoryBudget:
    """So many bytes, lent out: who finds too little left waits until enough is given back."""

    def __init__(self, nbytes: int) -> None:
        self._all = self._left = nbytes
        self._changed = threading.Condition()

    @contextmanager
    def reserve(self, nbytes: int) -> Iterator[None]:
        """Hold so many bytes while the block runs; who needs more than there is has all of it alone."""
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
