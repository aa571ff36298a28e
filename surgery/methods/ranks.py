"""Which entries of a tensor are the largest, exactly, without holding it in memory.

A sample tells nearly how large the entry of a given rank is. One pass over the tensor then counts what is smaller than
that span and keeps what lies within it, a few hundredths of the whole, in which the entry is found. Should the sample
have misled, a wider span is tried, up to all there is: the result is exact in any case.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from surgery.methods.method import Block, Stream

if TYPE_CHECKING:
    from torch import Tensor

# How many stretches are sampled, and how many entries each has.
_PLACES: Final = 64
_RUN: Final = 1 << 10

# How far around the expected rank is looked, as a share of all entries: five deviations of a sample's rank, then
# more where entries that are close together are alike, then everywhere.
_MARGINS: Final = (0.01, 0.1, 1.0)


class Wanted(NamedTuple):
    """The `size` largest entries of a model's delta, or its smallest; of equal ones those that come first."""

    model: str
    size: int
    largest: bool


@dataclass(frozen=True)
class Cut:
    """Where a tensor's magnitudes, in rising order and equal ones in file order, are cut in two.

    threshold: entries above it are on the upper side, those below it on the lower. until: those equal to it are on one
    side up to this place in the tensor and on the other from it on.
    """

    threshold: float
    until: int


def cut(stream: Stream, wanted: list[Wanted]) -> list[Cut]:
    """The cut that parts each wanted set of entries from the rest.

    A set has an entry at least, and at most all of the tensor's.
    """
    sample = _sample(stream, {target.model for target in wanted})
    found: list[_Found | None] = [None] * len(wanted)
    for margin in _MARGINS:
        open_ = [place for place, entry in enumerate(found) if entry is None]
        spans = [_span(sample[wanted[place].model], _share(stream, wanted[place]), margin) for place in open_]
        tallies = _tallies(stream, [wanted[place].model for place in open_], spans)
        for place, tally in zip(open_, tallies, strict=True):
            found[place] = tally.entry(_rank(stream, wanted[place]))
        if None not in found:
            break
    return [_cut(stream, target, entry) for target, entry in zip(wanted, found, strict=True) if entry is not None]


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
    if delta.dtype == torch.float64:  # ranked as float32, so compared as such
        return delta * (above(delta.float(), start, cut, first) != 0)
    bound = np.nextafter(np.float32(cut.threshold), np.float32(0)) if with_equal else cut.threshold
    return torch.nn.functional.hardshrink(delta, float(bound))


class _Found(NamedTuple):
    """The entry of one rank: its magnitude, and how many entries are smaller and how many equal."""

    value: float
    below: int
    equal: int


class _Tally:
    """What is smaller than a span of magnitudes, and which magnitudes within it occur how often."""

    def __init__(self) -> None:
        self._below = 0
        self._values: list[np.ndarray] = []
        self._counts: list[np.ndarray] = []

    def add(self, below: int, values: np.ndarray, counts: np.ndarray) -> None:
        self._below += below
        self._values.append(values)
        self._counts.append(counts)

    def entry(self, rank: int) -> _Found | None:
        """The entry with `rank` smaller ones before it, None where that is not within the span."""
        values, inverse = np.unique(np.concatenate(self._values), return_inverse=True)
        counts = np.bincount(inverse, weights=np.concatenate(self._counts), minlength=len(values)).astype(np.int64)
        ends = self._below + np.cumsum(counts)
        place = int(np.searchsorted(ends, rank, side="right"))
        if rank < self._below or place == len(ends):
            return None
        return _Found(float(values[place]), int(ends[place] - counts[place]), int(counts[place]))


def _rank(stream: Stream, wanted: Wanted) -> int:
    """How many smaller entries the last of those that are wanted has before it, equal ones in any order."""
    return stream.numel - wanted.size if wanted.largest else wanted.size - 1


def _share(stream: Stream, wanted: Wanted) -> float:
    return _rank(stream, wanted) / max(1, stream.numel - 1)


def _sample(stream: Stream, models: set[str]) -> dict[str, np.ndarray]:
    """Magnitudes of each model's delta from all over the tensor, sorted."""
    if stream.numel <= _PLACES * _RUN:
        starts = [0]
        run = stream.numel
    else:
        starts = [int(start) for start in np.linspace(0, stream.numel - _RUN, _PLACES)]
        run = _RUN
    parts: dict[str, list[np.ndarray]] = {model: [] for model in models}
    for start in starts:
        for name, delta in stream.read(start, start + run).deltas():
            if name in parts:
                parts[name].append(_magnitudes(delta))
    return {name: np.sort(np.concatenate(each)) for name, each in parts.items()}


def _span(sample: np.ndarray, share: float, margin: float) -> tuple[float, float]:
    """The least and the largest magnitude that the entry of a rank may have; open where the margin reaches the end."""
    low, high = (int((share + side * margin) * (len(sample) - 1)) for side in (-1, 1))
    least = float(sample[low]) if share - margin > 0 else 0.0
    return least, float(sample[high + 1]) if high + 1 < len(sample) and share + margin < 1 else float("inf")


def _tallies(stream: Stream, models: list[str], spans: list[tuple[float, float]]) -> list[_Tally]:
    def counted(block: Block) -> list[tuple[int, np.ndarray, np.ndarray]]:
        magnitudes = {name: _magnitudes(delta) for name, delta in block.deltas() if name in models}
        return [_within(magnitudes[model], *span) for model, span in zip(models, spans, strict=True)]

    tallies = [_Tally() for _ in models]
    for parts in stream.map(counted):
        for tally, part in zip(tallies, parts, strict=True):
            tally.add(*part)
    return tallies


def _within(magnitudes: np.ndarray, least: float, most: float) -> tuple[int, np.ndarray, np.ndarray]:
    """How many magnitudes are smaller than a span, and which ones within it occur how often.

    Weights of few digits have deltas of few values, of which a span's ends are two: those are counted, not collected.
    """
    low, high = np.float32(least), np.float32(most)
    smaller, up_to_low = (int(np.count_nonzero(found)) for found in (magnitudes < low, magnitudes <= low))
    if low == high:
        return smaller, np.array([low]), np.array([up_to_low - smaller])
    below_high, up_to_high = (int(np.count_nonzero(found)) for found in (magnitudes < high, magnitudes <= high))
    between = magnitudes[:0]
    if below_high > up_to_low:
        between = magnitudes[(magnitudes > low) & (magnitudes < high)]
    values = np.concatenate([[low], between, [high]])
    counts = np.ones(len(values), dtype=np.int64)
    counts[[0, -1]] = up_to_low - smaller, up_to_high - below_high
    return smaller, values, counts


def _magnitudes(delta: "Tensor") -> np.ndarray:
    magnitudes: np.ndarray = delta.float().abs().numpy()
    return magnitudes


def _cut(stream: Stream, wanted: Wanted, found: _Found) -> Cut:
    """The cut at an entry: how many of its equals are among those that are wanted, and where the last of them is."""
    smaller = found.below
    larger = stream.numel - found.below - found.equal
    some = wanted.size - (larger if wanted.largest else smaller)
    until = stream.numel if some == found.equal else _place_after(stream, wanted.model, found.value, some)
    return Cut(found.value, until)


def _place_after(stream: Stream, model: str, value: float, count: int) -> int:
    """The place behind the first `count` entries of this magnitude."""

    def equal(block: Block) -> tuple[int, np.ndarray]:
        delta = next(delta for name, delta in block.deltas() if name == model)
        return block.start, np.flatnonzero(_magnitudes(delta) == np.float32(value))

    for start, places in stream.map(equal):
        if len(places) >= count:
            return start + int(places[count - 1]) + 1
        count -= len(places)
    raise AssertionError(f"{model}: fewer entries of one magnitude than were counted before")
