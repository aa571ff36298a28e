"""Memory that comes straight from the system, in whole pages."""

import contextlib
import mmap
import sys


def new_buffer(nbytes: int) -> mmap.mmap:
    """Memory of its own, in large pages where the system has such."""
    if sys.platform != "linux":
        return mmap.mmap(-1, nbytes)
    memory = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):  # A kernel built without large pages says so; ordinary ones do.
        memory.madvise(mmap.MADV_HUGEPAGE)
    return memory
