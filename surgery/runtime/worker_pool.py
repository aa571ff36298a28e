"""A pool of one thread per core, and results in the order of their inputs."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Final, TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")

# Threads at most; more would only wait for the memory bus.
MAX_WORKERS: Final = 16


_limit = MAX_WORKERS


def cores() -> int:
    """The number of cores that this process may use, at most `MAX_WORKERS`."""
    return min(_limit, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def limit_cores(most: int) -> None:
    """Let this process use at most so many cores from now on. For the process of a worker, which shares the machine
    with others; a library never calls it in its host."""
    global _limit
    _limit = min(MAX_WORKERS, most)


@contextmanager
def worker_pool() -> Iterator[ThreadPoolExecutor]:
    """A thread per core. Reading, hashing, compiled loops and torch's kernels all release the interpreter's lock.

    Tasks that have not begun when the block ends are dropped.
    """
    pool = ThreadPoolExecutor(cores())
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def map_ordered(
    pool: ThreadPoolExecutor, function: Callable[[Item], Made], items: Iterable[Item], max_pending: int
) -> Iterator[Made]:
    """Yield `function` of every item, in the items' order.

    max_pending: results that are being computed or wait to be yielded, at most, which bounds their memory.

    An error is raised in its item's place. If the iterator is closed early, calls that have not begun are dropped.
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
