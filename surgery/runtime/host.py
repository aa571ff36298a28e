"""Settings of the whole process that make work on weights faster. The library leaves the process as its host has it:
only the program may call these."""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

# glibc's numbers for what is set, from malloc.h.
TRIM_THRESHOLD: Final = -1
MMAP_THRESHOLD: Final = -3
ARENA_MAX: Final = -8

# Freed bytes at the heap's end that are not given back, and the size up to which memory comes from the heap: the
# largest that glibc takes.
MAX_KEPT_BYTES: Final = 1 << 28
MAX_HEAP_ALLOCATION: Final = 1 << 25


def keep_freed_memory() -> None:
    """Let this process keep freed memory for the next use, shared by all threads, from now on.

    By default glibc gives every thread a heap of its own and returns empty heaps to the system, so that each temporary
    tensor costs page faults. Other C libraries are left as they are.
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if set_option is not None:
        for option, value in (
            (ARENA_MAX, 1),
            (TRIM_THRESHOLD, MAX_KEPT_BYTES),
            (MMAP_THRESHOLD, MAX_HEAP_ALLOCATION),
        ):
            set_option(option, value)


@contextmanager
def torch_in_one_thread() -> Iterator[None]:
    """Keep torch's operations on their calling thread: one thread a core is at work already, and pieces of work that
    fit the cache run faster side by side than one after another on all cores. Imports torch."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
