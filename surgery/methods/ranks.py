"""Which entries of a tensor are the largest, exactly, without holding it in memory.

The magnitude of a float32 orders like its bits read as an integer. So the entry of a given rank is found digit by
digit: one pass counts the upper 16 bits of all entries, a second one the lower 16 bits of those that share the upper.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from surgery.methods.method import Block, Stream

if TYPE_CHECKING:
    from torch import Tensor

# Values of 16 bits; the upper half of a magnitude has no sign and takes half as many.
_DIGITS: Final = 1 << 16

Deltas = Callable[[Block], Iterator[tuple[str, "Tensor"]]]


@dataclass(frozen=True)
class Cut:
    """Where a tensor's magnitudes, in rising order and equal ones in file order, are cut in two.

    threshold: entries above it are on the upper side, those below it on the lower. until: those equal to it are on one
    side up to this place in the tensor and on the other from it on.
    """

    threshold: float
    until: int


def largest(stream: Stream, counts: Mapping[str, int]) -> dict[str, Cut]:
    """For each model, the cut above which the `counts` largest entries of its delta lie; of equal ones, the first."""
    places = {name: stream.numel - count for name, count in counts.items()}
    return _cuts(stream, places, lambda name, found: counts[name] - (stream.numel - found.below - found.equal))


def smallest(stream: Stream, counts: Mapping[str, int]) -> dict[str, Cut]:
    """For each model, the cut below which the `counts` smallest entries of its delta lie; of equal ones, the first."""
    places = {name: count - 1 for name, count in counts.items()}
    return _cuts(stream, places, lambda name, found: counts[name] - found.below)


def above(delta: "Tensor", start: int, cut: Cut, first: bool) -> "Tensor":
    """The delta where it is above the cut, 0 elsewhere. start: its place in the tensor. first: whether the entries
    equal to the threshold are kept before `until`, or from there on."""
    import torch

    stop = start + len(delta)
    if start < cut.until < stop:
        inside = cut.until - start
        return torch.cat([above(delta[:inside], start, cut, first), above(delta[inside:], cut.until, cut, first)])
    with_equal = (stop <= cut.until) == first
    if with_equal and cut.threshold == 0:
        return delta
    bound = np.nextafter(np.float32(cut.threshold), np.float32(0)) if with_equal else cut.threshold
    return torch.nn.functional.hardshrink(delta, float(bound))


@dataclass(frozen=True)
class _Found:
    """The entry of one rank: its bits, and how many entries are smaller and how many equal."""

    bits: int
    below: int
    equal: int


def _cuts(stream: Stream, places: Mapping[str, int], share: Callable[[str, _Found], int]) -> dict[str, Cut]:
    """The cut at the entry of each model that has `places` smaller ones before it. share: how many of the entries equal
    to it are on the side of the first ones."""
    found = _ranked(stream, places)
    cuts = {}
    for name, entry in found.items():
        some = share(name, entry)
        until = stream.numel if some == entry.equal else _place_after(stream, name, entry.bits, some)
        cuts[name] = Cut(float(np.uint32(entry.bits).view(np.float32)), until)
    return cuts


def _ranked(stream: Stream, places: Mapping[str, int]) -> dict[str, _Found]:
    upper = _summed(stream, places, lambda bits, _: bits >> 16, _DIGITS // 2)
    leading, before = {}, {}
    for name, place in places.items():
        leading[name], before[name] = _digit(upper[name], place)
    lower = _summed(stream, places, lambda bits, name: bits[bits >> 16 == leading[name]] & (_DIGITS - 1), _DIGITS)
    found = {}
    for name, place in places.items():
        digit, less = _digit(lower[name], place - before[name])
        found[name] = _Found(leading[name] << 16 | digit, before[name] + less, int(lower[name][digit]))
    return found


def _summed(
    stream: Stream, names: Mapping[str, int], digits: Callable[[np.ndarray, str], np.ndarray], count: int
) -> dict[str, np.ndarray]:
    """How often each digit occurs in each model's delta."""

    def counted(block: Block) -> dict[str, np.ndarray]:
        return {
            name: np.bincount(digits(_bits(delta), name), minlength=count)
            for name, delta in block.deltas()
            if name in names
        }

    totals = {name: np.zeros(count, dtype=np.int64) for name in names}
    for part in stream.map(counted):
        for name, counts in part.items():
            totals[name] += counts
    return totals


def _bits(delta: "Tensor") -> np.ndarray:
    """The magnitudes as integers of the same order."""
    import torch

    return delta.float().abs().view(torch.int32).numpy()


def _digit(counts: np.ndarray, place: int) -> tuple[int, int]:
    """The digit of the entry with `place` smaller ones, and how many entries have a smaller digit."""
    reached = np.cumsum(counts)
    digit = int(np.searchsorted(reached, place, side="right"))
    return digit, int(reached[digit] - counts[digit])


def _place_after(stream: Stream, name: str, bits: int, count: int) -> int:
    """The place behind the first `count` entries of these bits."""

    def equal(block: Block) -> tuple[int, np.ndarray]:
        delta = next(delta for each, delta in block.deltas() if each == name)
        return block.start, np.flatnonzero(_bits(delta) == bits)

    if not count:
        return 0
    for start, places in stream.map(equal):
        if len(places) >= count:
            return start + int(places[count - 1]) + 1
        count -= len(places)
    raise AssertionError(f"{name}: fewer entries of one value than were counted before")
