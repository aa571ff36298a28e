"""How tasks of known sizes fall to workers, before any is done."""

import heapq
from collections.abc import Iterable


def loads(sizes: Iterable[float], num_workers: int) -> list[float]:
    """What each worker has to do in all, the most first: the largest task is next, and goes to whoever is free first.

    No worker has more than 4/3 of what the best division would give it (Graham, SIAM J. Appl. Math. 17, 1969).
    """
    free = [0.0] * max(1, num_workers)
    for size in sorted(sizes, reverse=True):
        heapq.heappush(free, heapq.heappop(free) + size)
    return sorted(free, reverse=True)
