"""Settings of the whole process, which belong to the program: library code never calls these."""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

# Numbers of glibc's options, from malloc.h.
M_TRIM_THRESHOLD: Final = -1
M_MMAP_THRESHOLD: Final = -3
M_ARENA_MAX: Final = -8

# Bytes of freed memory at the heap's end that are kept, and the size in bytes up to which memory comes from the heap
# (the largest that glibc takes).
MAX_FREE_BYTES: Final = 1 << 28
MAX_HEAP_BLOCK_BYTES: Final = 1 << 25


def keep_freed_memory() -> None:
    """Let this process keep freed memory for the next use from now on, shared by all of its threads.

    By default glibc gives every thread a heap of its own, and returns a heap to the system as soon as it is empty, so
    that the pages of every temporary tensor are fresh. Other C libraries are left as they are.
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if set_option is not None:
        set_option(M_ARENA_MAX, 1)
        set_option(M_TRIM_THRESHOLD, MAX_FREE_BYTES)
        set_option(M_MMAP_THRESHOLD, MAX_HEAP_BLOCK_BYTES)


@contextmanager
def torch_in_one_thread() -> Iterator[None]:
    """Keep torch to one thread while the block runs: tasks of a worker pool that fit the cache run faster side by side
    than one after another on all cores."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
