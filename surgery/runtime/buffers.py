"""Memory that is used again: the first touch of a fresh page costs as much as computing what comes into it."""

import contextlib
import ctypes
import mmap
import sys
from typing import Final

# glibc's numbers for what is set, from malloc.h.
TRIM_THRESHOLD: Final = -1
MMAP_THRESHOLD: Final = -3
ARENA_MAX: Final = -8

# Freed memory at the heap's end that is not given back, and the size up to which memory comes from the heap: the
# largest that glibc takes.
KEPT: Final = 1 << 28
FROM_HEAP: Final = 1 << 25


def keep_freed() -> None:
    """From now on let this process keep freed memory for the next use, and all threads share it.

    Left alone, glibc gives a heap of its own to every thread, and heaps back to the system as soon as they are empty,
    so that temporary tensors are taken from there anew. Other C libraries are left as they are.
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if set_option is not None:
        for option, value in ((ARENA_MAX, 1), (TRIM_THRESHOLD, KEPT), (MMAP_THRESHOLD, FROM_HEAP)):
            set_option(option, value)


def new_buffer(nbytes: int) -> mmap.mmap:
    """Memory of its own, in large pages where the system has such."""
    if sys.platform != "linux":
        return mmap.mmap(-1, nbytes)
    memory = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):  # A kernel built without large pages says so; ordinary ones do.
        memory.madvise(mmap.MADV_HUGEPAGE)
    return memory
