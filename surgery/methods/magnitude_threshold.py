"""Which entries of a tensor are the largest, exactly, without holding it in memory.

A magnitude orders like its bits read as an integer. A sample tells nearly how large the entry of a given rank is, a
span of integers; one pass over the tensor counts what is smaller, and how often each integer of the span occurs. Should
the span be too wide for that, or the entry outside of it, the next pass knows where to look: the result is exact.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Final, NamedTuple

import numpy as np

from vlsurgery.surgery.methods.method import Chunk, Stream

# How many stretches are sampled, and how many entries each has.
_PLACES: Final = 64
_RUN: Final = 1 << 10

# How far around the expected rank a span reaches, as a share of all entries: five deviations of a sample's rank.
_MARGIN: Final = 0.01

# How many numbers a pass counts for each span, and the largest magnitude's bits, a NaN's.
_BINS: Final = 1 << 20
_MOST: Final = 0x7FFFFFFF


class Wanted(NamedTuple):
    """The `size` largest entries of a model's delta, or its smallest; of equal ones those that come first."""

    model: str
    size: int
    largest: bool


@dataclass(frozen=True)
class Cut:
    """Where a tensor's magnitudes, in rising order and equal ones in file order, are cut in two.

    bits: those of the threshold; entries above it are on the upper side, those below it on the lower. until: those
    equal to it are on one side up to this place in the tensor and on the other from it on.
    """

    bits: int
    until: int


def cut(stream: Stream, wanted: list[Wanted]) -> list[Cut]:
    """The cut that parts each wanted set of entries from the rest.

    A set has an entry at least, and at most all of the tensor's.
    """
    sample = _sample(stream, {target.model for target in wanted})
    searches = [_Search(target, stream.numel, sample[target.model]) for target in wanted]
    while looking := [search for search in searches if search.found is None]:
        _pass(stream, looking)
    return [_cut(stream, search.wanted, search.found) for search in searches if search.found is not None]


def between(chunk: Chunk, name: str, low: Cut | None = None, high: Cut | None = None, first: bool = False) -> None:
    """Put a model's move into its room, but 0 where it is on the lower side of `low` or the upper side of `high`.

    first: whether entries that equal the lower threshold count as above it before `until`, or from there on. Those that
    equal the upper one count as below it before `until`.
    """
    from vlsurgery.surgery.methods import kernels

    made, stop = chunk.room(name), chunk.start + len(chunk)
    inner = {end.until for end in (low, high) if end is not None and chunk.start < end.until < stop}
    for begin, end in pairwise(sorted({chunk.start, stop, *inner})):
        part = slice(begin - chunk.start, end - chunk.start)
        least = 0 if low is None else low.bits + ((end <= low.until) != first)
        most = _MOST if high is None else high.bits - (end > high.until)
        kernels.between(chunk.base[part], chunk.vectors[name][part], np.int32(least), np.int32(most), made[part])


class _Found(NamedTuple):
    """The entry of one rank: the bits of its magnitude, and how many entries are smaller and how many equal."""

    bits: int
    below: int
    equal: int


class _Part(NamedTuple):
    """What a block holds of a span: how many are smaller, how many are its first number and how many its last, and the
    bins of all between."""

    below: int
    first: int
    last: int
    bins: np.ndarray


class _Search:
    """The entry of one rank, looked for in a span of integers, ends included.

    The ends are counted by themselves: weights of few digits have deltas of few values, and a sample's bounds are such.
    """

    def __init__(self, wanted: Wanted, numel: int, sample: np.ndarray) -> None:
        self.wanted = wanted
        self.found: _Found | None = None
        self.rank = numel - wanted.size if wanted.largest else wanted.size - 1
        share = self.rank / max(1, numel - 1)
        low, high = (int((share + side * _MARGIN) * (len(sample) - 1)) for side in (-1, 1))
        self._look(
            int(sample[low]) if share > _MARGIN else 0, int(sample[high + 1]) if high + 1 < len(sample) else _MOST
        )

    def _look(self, first: int, last: int) -> None:
        self.first, self.last = first, last
        self.shift = max(0, (last - first - 1).bit_length() - (_BINS - 1).bit_length())
        self._below = self._at_first = self._at_last = 0
        self._counts = np.zeros(((last - first) >> self.shift) + 1, dtype=np.int64)

    def count(self, chunk: Chunk) -> _Part:
        """What a block holds of the span."""
        from vlsurgery.surgery.methods import kernels

        model, span = self.wanted.model, np.array([self.first, self.last, self.shift], np.int32)
        bins = chunk.room(model).view(np.int32)
        below, first, last, inside = kernels.counted(chunk.base, chunk.vectors[model], *span, bins)
        return _Part(below, first, last if self.first < self.last else 0, bins[:inside].copy())

    def add(self, part: _Part) -> None:
        self._below += part.below
        self._at_first += part.first
        self._at_last += part.last
        np.add.at(self._counts, part.bins, 1)

    def settle(self) -> None:
        """Find the entry by what a whole pass counted, or the span in which to look next."""
        below, first, last = self._below, self._at_first, self._at_last
        ends = below + first + np.cumsum(self._counts)
        inside = int(ends[-1])
        if self.rank < below:
            self._look(0, self.first - 1)
        elif self.rank < below + first:
            self.found = _Found(self.first, below, first)
        elif self.rank >= inside + last:
            self._look(self.last + 1, _MOST)
        elif self.rank >= inside:
            self.found = _Found(self.last, inside, last)
        else:
            place = int(np.searchsorted(ends, self.rank, side="right"))
            bits, count = self.first + (place << self.shift), int(self._counts[place])
            if self.shift:
                self._look(max(bits, self.first + 1), min(bits + (1 << self.shift) - 1, self.last - 1))
            else:
                self.found = _Found(bits, int(ends[place]) - count, count)


def _pass(stream: Stream, searches: list[_Search]) -> None:
    """Go through the tensor once, for all searches together."""

    def counted(chunk: Chunk) -> list[_Part]:
        return [search.count(chunk) for search in searches]

    for parts in stream.map(counted):
        for search, part in zip(searches, parts, strict=True):
            search.add(part)
    for search in searches:
        search.settle()


def _sample(stream: Stream, models: set[str]) -> dict[str, np.ndarray]:
    """Magnitudes of each model's delta from all over the tensor, as bits, sorted."""
    few = stream.numel <= _PLACES * _RUN
    run = stream.numel if few else _RUN
    parts: dict[str, list[np.ndarray]] = {model: [] for model in models}
    for start in [0] if few else np.linspace(0, stream.numel - run, _PLACES).astype(int).tolist():
        chunk = stream.read(start, start + run)
        for model, part in parts.items():
            part.append(_sizes(chunk, model))
    return {name: np.sort(np.concatenate(each)) for name, each in parts.items()}


def _sizes(chunk: Chunk, model: str) -> np.ndarray:
    """The magnitudes of a model's move as integers of the same order."""
    from vlsurgery.surgery.methods import kernels

    found = np.empty(len(chunk), np.int32)
    kernels.sizes(chunk.move(model), found)
    return found


def _cut(stream: Stream, wanted: Wanted, found: _Found) -> Cut:
    """The cut at an entry: how many of its equals are among those that are wanted, and where the last of them is."""
    smaller = found.below
    larger = stream.numel - found.below - found.equal
    some = wanted.size - (larger if wanted.largest else smaller)
    until = stream.numel if some == found.equal else _place_after(stream, wanted.model, found.bits, some)
    return Cut(found.bits, until)


def _place_after(stream: Stream, model: str, bits: int, count: int) -> int:
    """The place behind the first `count` entries of this magnitude."""

    def equal(chunk: Chunk) -> tuple[int, np.ndarray]:
        return chunk.start, np.flatnonzero(_sizes(chunk, model) == bits)

    for start, places in stream.map(equal):
        if len(places) >= count:
            return start + int(places[count - 1]) + 1
        count -= len(places)
    raise AssertionError(f"{model}: fewer entries of one magnitude than were counted before")
