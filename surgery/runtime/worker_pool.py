"""Work on all cores without oversubscribing them: a few threads, each with its own piece of work."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from typing import Final, TypeVar

from vlsurgery.surgery.runtime.buffers import keep_freed

Item = TypeVar("Item")
Made = TypeVar("Made")

# More would only wait for the memory bus.
MAX_WORKERS: Final = 16


def cores() -> int:
    """How many cores this process may use, at most `MAX_WORKERS`."""
    return min(MAX_WORKERS, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


@contextmanager
def worker_pool(with_torch: bool = True) -> Iterator[ThreadPoolExecutor]:
    """A thread per core. Reading, hashing, compiled loops and torch's kernels all let go of the interpreter's lock.

    with_torch: whether the work is torch's. Its own threads are off meanwhile: pieces of work that fit the cache run
    faster side by side than one after another on all cores. Work that does without it need not wait for its import.

    What was submitted and has not begun is dropped when the block ends by an error.
    """
    keep_freed()
    pool = ThreadPoolExecutor(cores())
    with _torch_in_one_thread() if with_torch else nullcontext():
        try:
            yield pool
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _torch_in_one_thread() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def map_ordered(
    pool: ThreadPoolExecutor, function: Callable[[Item], Made], items: Iterable[Item], max_pending: int
) -> Iterator[Made]:
    """Yield `function` of every item, in the items' order.

    max_pending: results that are being computed or wait to be taken, at most; it bounds the memory that they hold. An
        error is raised in its item's place.

    An iterator that is left early drops what has not begun.
    """
    waiting: deque[Future[Made]] = deque()
    try:
        for item in items:
            if len(waiting) >= max_pending:
                yield waiting.popleft().result()
            waiting.append(pool.submit(function, item))
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
