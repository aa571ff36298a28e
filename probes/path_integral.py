"""The integral of a gradient along a straight path, in few points: each stretch is held against the change it must sum
to.

By the fundamental theorem of calculus the slopes' integral over a stretch of the path, summed over all coefficients, is
the change of the number from the stretch's start to its end, which the same passes tell. So the error of every stretch
is known, and points go where it is largest (adaptive Simpson quadrature; Press et al., Numerical Recipes, section 4.7).
"""

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
# Of a place on the path, 0 to 1: [prompts] numbers and [prompts, coefficients] slopes.
Slopes = Callable[[float], tuple[Array, Array]]
# Of [prompts, ...] values the mean that a user is told, [...].
Mean = Callable[[Array], Array]


@dataclass(order=True)
class _Stretch:
    """A part of the path, read at its ends and its middle. order: the worst comes first. error: sum less change."""

    order: float
    error: float = field(compare=False)
    start: float = field(compare=False)
    end: float = field(compare=False)
    integral: Array = field(compare=False)


class PathIntegral:
    """Integrates slopes from 0 to 1.

    slopes: called once for every place. mean: over prompts; errors are told of the means.
    """

    def __init__(self, slopes: Slopes, mean: Mean) -> None:
        self._slopes, self._mean = slopes, mean
        self._known: dict[float, tuple[Array, Array]] = {}
        self._stretches: list[_Stretch] = []

    def refine(self, tolerance: float, points: int) -> Iterator[float]:
        """Read places until the sum, and that of every stretch, is off by at most `tolerance` of the change.

        points: at most so many are read, 5 at least. Yields each place that was read.
        """
        for start, end in ((0.0, 0.5), (0.5, 1.0)):
            yield from self._add(start, end)
        change = abs(self._of_means(1.0) - self._of_means(0.0))
        while self._off() > tolerance * change and len(self._known) + 2 <= points:
            worst = heapq.heappop(self._stretches)
            middle = (worst.start + worst.end) / 2
            yield from self._add(worst.start, middle)
            yield from self._add(middle, worst.end)

    @property
    def total(self) -> Array:
        """[prompts, coefficients] integrals."""
        return np.sum([each.integral for each in self._stretches], axis=0)

    @property
    def start(self) -> Array:
        """[prompts, coefficients] slopes at 0."""
        return self._known[0.0][1]

    @property
    def points(self) -> int:
        """How many places were read."""
        return len(self._known)

    def _add(self, start: float, end: float) -> Iterator[float]:
        places = (start, (start + end) / 2, end)
        for place in places:
            if place not in self._known:
                self._known[place] = self._slopes(place)
                yield place
        first, middle, last = (self._known[place][1] for place in places)
        integral = (end - start) * (first + 4 * middle + last) / 6
        error = float(self._mean(integral).sum()) - (self._of_means(end) - self._of_means(start))
        heapq.heappush(self._stretches, _Stretch(-abs(error), error, start, end, integral))

    def _off(self) -> float:
        """By how much the sum is off, or the worst stretch where that is more. Errors of all stretches are not added
        up: what rounding does to each would count as often as there are stretches."""
        return max(abs(sum(each.error for each in self._stretches)), -self._stretches[0].order)

    def _of_means(self, place: float) -> float:
        return float(self._mean(self._known[place][0]))
