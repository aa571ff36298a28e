"""Exact thresholds of magnitude, for the k largest or smallest entries of a tensor that is not held in memory.

Magnitudes order like their bits read as integers. A sample bounds the entry of a given rank to an interval of integers;
one pass over the tensor counts the smaller entries, and those at each integer of the interval. Where the interval is
too wide to count each integer, or the entry lies outside, the next pass searches a better interval until one is found.
"""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, NamedTuple, TypeVar

import numpy as np

from vlsurgery.surgery.methods.method import Chunk, Stream

Key = TypeVar("Key", bound=Hashable)

# Runs of entries that are sampled, and the entries in each.
SAMPLE_RUNS: Final = 64
SAMPLE_RUN_SIZE: Final = 1 << 10

# Half the width of the first interval, as a fraction of all ranks: five standard deviations of a sampled rank.
RANK_MARGIN: Final = 0.01

# Bins that a pass counts into, for each interval.
MAX_BINS: Final = 1 << 20

# The largest magnitude's bits: a NaN's.
MAX_BITS: Final = 0x7FFFFFFF


class Extremes(NamedTuple):
    """The `size` largest entries of a model's delta, or its smallest; of equal ones those that come first."""

    model: str
    size: int
    largest: bool


@dataclass(frozen=True)
class MagnitudeThreshold:
    """What splits a tensor's entries, ordered by magnitude and equal ones by position, in two.

    bits: the threshold's own: larger entries are on the upper side, smaller ones on the lower. until: the position at
    which entries equal to it change sides.
    """

    bits: int
    until: int


# The thresholds below and above the entries that are kept; None where nothing is dropped on that side.
Band = tuple[MagnitudeThreshold | None, MagnitudeThreshold | None]


def find_thresholds(stream: Stream, wanted: Mapping[Key, Extremes]) -> dict[Key, MagnitudeThreshold]:
    """The threshold that separates each set of entries from the rest. A set has at least one entry, and at most all."""
    if not wanted:
        return {}
    sample = _sample(stream, {target.model for target in wanted.values()})
    searches = {key: _RankSearch(target, stream.numel, sample[target.model]) for key, target in wanted.items()}
    while unfinished := [search for search in searches.values() if search.found is None]:
        _pass(stream, unfinished)
    return {key: _threshold(stream, search.wanted, *search.found) for key, search in searches.items() if search.found}


def keep_band(chunk: Chunk, name: str, band: Band, first: bool = False) -> None:
    """Put a model's delta into its buffer, with 0 for entries outside the band.

    first: whether entries equal to the lower threshold count as above it before `until`, rather than from there on.
    Entries equal to the upper threshold count as below it before `until`.
    """
    from vlsurgery.surgery.methods import kernels

    low, high = band
    base, model, out = chunk.stored_base, chunk.stored_models[name], chunk.buffer(name)
    stop = chunk.start + len(chunk)
    inner = {end.until for end in band if end is not None and chunk.start < end.until < stop}
    for begin, end in pairwise(sorted({chunk.start, stop, *inner})):
        part = slice(begin - chunk.start, end - chunk.start)
        least = 0 if low is None else low.bits + ((end <= low.until) != first)
        most = MAX_BITS if high is None else high.bits - (end > high.until)
        kernels.delta_between(base[part], model[part], np.int32(least), np.int32(most), out[part])


class _RankSearch:
    """The search for the entry of one rank in an interval of integers, ends included.

    The ends are counted apart from the bins: coarsely rounded weights have deltas of few values, and a sample's bounds
    are often exactly the threshold.
    """

    def __init__(self, wanted: Extremes, numel: int, sample: np.ndarray) -> None:
        self.wanted = wanted
        # The bits of the entry's magnitude, and how many entries are smaller and how many equal.
        self.found: tuple[int, int, int] | None = None
        self.rank = numel - wanted.size if wanted.largest else wanted.size - 1
        quantile = self.rank / max(1, numel - 1)
        low, high = (int((quantile + side * RANK_MARGIN) * (len(sample) - 1)) for side in (-1, 1))
        first = int(sample[low]) if quantile > RANK_MARGIN else 0
        self._restart(first, int(sample[high + 1]) if high + 1 < len(sample) else MAX_BITS)

    def _restart(self, first: int, last: int) -> None:
        """Set the interval that the next pass counts."""
        self.first, self.last = first, last
        self.shift = max(0, (last - first - 1).bit_length() - (MAX_BINS - 1).bit_length())
        self._ends = np.zeros(3, dtype=np.int64)
        self._counts = np.zeros(((last - first) >> self.shift) + 1, dtype=np.int64)

    def count(self, chunk: Chunk) -> tuple[list[int], np.ndarray]:
        """How many of a chunk's entries are below the interval, at its first integer and at its last; and the bin of
        each one between."""
        from vlsurgery.surgery.methods import kernels

        base, model = chunk.stored_base, chunk.stored_models[self.wanted.model]
        interval = np.array([self.first, self.last, self.shift], np.int32)
        bins = chunk.buffer(self.wanted.model).view(np.int32)
        below, first, last, inside = kernels.count_magnitudes(base, model, *interval, bins)
        return [below, first, last if self.first < self.last else 0], bins[:inside].copy()

    def add(self, ends: list[int], bins: np.ndarray) -> None:
        """Add a chunk's counts to the pass's."""
        self._ends += ends
        np.add.at(self._counts, bins, 1)

    def settle(self) -> None:
        """Find the entry from a whole pass's counts, or the interval for the next pass."""
        below, first, last = self._ends.tolist()
        ends = below + first + np.cumsum(self._counts)
        inside = int(ends[-1])
        if self.rank < below:
            self._restart(0, self.first - 1)
        elif self.rank < below + first:
            self.found = self.first, below, first
        elif self.rank >= inside + last:
            self._restart(self.last + 1, MAX_BITS)
        elif self.rank >= inside:
            self.found = self.last, inside, last
        else:
            place = int(np.searchsorted(ends, self.rank, side="right"))
            bits, count = self.first + (place << self.shift), int(self._counts[place])
            if self.shift:
                self._restart(max(bits, self.first + 1), min(bits + (1 << self.shift) - 1, self.last - 1))
            else:
                self.found = bits, int(ends[place]) - count, count


def _pass(stream: Stream, searches: list[_RankSearch]) -> None:
    """Go through the tensor once, for all searches together."""
    for counts in stream.map(lambda chunk: [search.count(chunk) for search in searches]):
        for search, counted in zip(searches, counts, strict=True):
            search.add(*counted)
    for search in searches:
        search.settle()


def _sample(stream: Stream, models: set[str]) -> dict[str, np.ndarray]:
    """Model -> magnitudes of its delta at runs spread over the tensor, as bits, sorted."""
    all_of_it = stream.numel <= SAMPLE_RUNS * SAMPLE_RUN_SIZE
    size = stream.numel if all_of_it else SAMPLE_RUN_SIZE
    starts = [0] if all_of_it else np.linspace(0, stream.numel - size, SAMPLE_RUNS).astype(int).tolist()
    chunks = [stream.read(start, start + size) for start in starts]
    return {model: np.sort(np.concatenate([_magnitudes(chunk, model) for chunk in chunks])) for model in models}


def _magnitudes(chunk: Chunk, model: str) -> np.ndarray:
    """The bits of the magnitudes of a model's delta, in float32."""
    return np.abs(chunk.delta(model)).astype(np.float32).view(np.int32)


def _threshold(stream: Stream, wanted: Extremes, bits: int, below: int, equal: int) -> MagnitudeThreshold:
    """The threshold at an entry: as many of its equals are on the wanted side as complete the wanted size."""
    taken = wanted.size - (stream.numel - below - equal if wanted.largest else below)
    until = stream.numel if taken == equal else _position_after(stream, wanted.model, bits, taken)
    return MagnitudeThreshold(bits, until)


def _position_after(stream: Stream, model: str, bits: int, count: int) -> int:
    """The position behind the first `count` entries of this magnitude."""

    def positions(chunk: Chunk) -> np.ndarray:
        return chunk.start + np.flatnonzero(_magnitudes(chunk, model) == bits)

    for found in stream.map(positions):
        if len(found) >= count:
            return int(found[count - 1]) + 1
        count -= len(found)
    raise AssertionError(f"{model}: fewer entries of one magnitude than were counted before")
