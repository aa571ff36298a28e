"""Compiled loops over the entries of two or three tensors, in float64 throughout."""

from functools import partial

import numpy as np

from vlsurgery.surgery.runtime.jit import compiled, to_float

# Sums may be taken in any order, many entries at a time; NaN and infinity are kept.
_in_any_order = partial(compiled, fastmath={"reassoc", "contract"})


@_in_any_order
def _delta(before, after, out):  # type: ignore[no-untyped-def]
    """The sums of d^2, before^2, after^2 and d, with d = after - before; how many d are not 0; and the bits of the
    largest |d|, which are ordered as it is. out: a vector for all d, or an empty one."""
    kept = len(out) > 0
    squares, starts, ends, shift, moved, largest = 0.0, 0.0, 0.0, 0.0, 0, np.int64(0)
    for i in range(len(before)):
        start, end = np.float64(to_float(before[i])), np.float64(to_float(after[i]))
        delta = end - start
        if kept:
            out[i] = delta
        squares += delta * delta
        starts += start * start
        ends += end * end
        shift += delta
        moved += int(delta != 0)
        largest = max(largest, np.float64(abs(delta)).view(np.int64))
    return squares, starts, ends, shift, moved, largest


@compiled
def add_delta(before, after, extent, squares, others, out):  # type: ignore[no-untyped-def]
    """Add the sums of a delta d = after - before to `squares` and `others`.

    extent: contiguous entries of one part; after the last part comes the first one again. squares: per part the sums
    of d^2, before^2 and after^2. others: how many d are not 0, their sum, and the largest |d|, over all parts. out: a
    vector for all d, or an empty one.
    """
    part = 0
    for start in range(0, len(before), extent):
        moves, starts, ends, shift, moved, largest = _delta(
            before[start : start + extent], after[start : start + extent], out[start : start + extent]
        )
        squares[part, 0] += moves
        squares[part, 1] += starts
        squares[part, 2] += ends
        others[0] += moved
        others[1] += shift
        others[2] = max(others[2], np.int64(largest).view(np.float64))
        part = part + 1 if part + 1 < len(squares) else 0


@_in_any_order
def cross(base, adapted, safety):  # type: ignore[no-untyped-def]
    """How many entries both d1 = adapted - base and d2 = safety - adapted change, how many of them in opposite
    directions, and the sums of d1 d2 and of |d1 d2|."""
    both, opposed, product, weight = 0, 0, 0.0, 0.0
    for i in range(len(base)):
        middle = np.float64(to_float(adapted[i]))
        first, second = middle - np.float64(to_float(base[i])), np.float64(to_float(safety[i])) - middle
        both += int(first != 0 and second != 0)
        opposed += int((first > 0 and second < 0) or (first < 0 and second > 0))
        product += first * second
        weight += abs(first * second)
    return both, opposed, product, weight


@compiled
def add_sample(base, adapted, safety, stride, bins):  # type: ignore[no-untyped-def]
    """Add every `stride`-th entry to `bins` (see `rounding_noise`) by its exponent in `adapted`; returns their sum of
    (d1 d2)^2."""
    variance = 0.0
    for i in range(0, len(base), stride):
        middle = np.float64(to_float(adapted[i]))
        first, second = middle - np.float64(to_float(base[i])), np.float64(to_float(safety[i])) - middle
        place = (np.float32(middle).view(np.int32) >> 23) & 255
        squares = first * first, second * second
        bins[0, place] += 1
        bins[1, place] += squares[0]
        bins[2, place] += squares[1]
        if first != 0 and second != 0:
            bins[3, place] += 1
            bins[4, place] += squares[0]
            bins[5, place] += squares[1]
        bins[6, place] += abs(first * second)
        variance += (first * second) ** 2
    return variance


@_in_any_order
def squares(vector):  # type: ignore[no-untyped-def]
    """The sum of the squares."""
    total = 0.0
    for i in range(len(vector)):
        total += np.float64(to_float(vector[i])) ** 2
    return total
