"""How tasks of known sizes fall to workers, before any is done."""

import heapq
from collections.abc import Iterable, Sequence
from typing import TypeVar

T = TypeVar("T")


def loads(sizes: Iterable[float], num_workers: int) -> list[float]:
    """What each worker has to do in all, the most first: the largest task is next, and goes to whoever is free first.

    No worker has more than 4/3 of what the best division would give it (Graham, SIAM J. Appl. Math. 17, 1969).
    """
    free = [0.0] * max(1, num_workers)
    for size in sorted(sizes, reverse=True):
        heapq.heappush(free, heapq.heappop(free) + size)
    return sorted(free, reverse=True)


def evenly_divided(items: Sequence[T], parts: int) -> list[Sequence[T]]:
    """The items in order, in at most so many runs that differ in length by one at most; none of them is empty."""
    parts = min(parts, len(items))
    return [items[len(items) * at // parts : len(items) * (at + 1) // parts] for at in range(parts)]
