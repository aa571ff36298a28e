"""Memory that comes straight from the system, in whole pages."""

import contextlib
import mmap
import sys


def new_buffer(nbytes: int) -> mmap.mmap:
    """Anonymous memory of so many zero bytes, in huge pages where the system has them."""
    if sys.platform != "linux":
        return mmap.mmap(-1, nbytes)
    memory = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):  # The kernel was built without huge pages.
        memory.madvise(mmap.MADV_HUGEPAGE)
    return memory
