"""Loops over entries that are compiled when they are first used: one pass where numpy takes one for each step.

A step that numpy takes alone reads and writes a whole block, and between two steps threads wait for each other to get
hold of Python. Here a block goes through the processor's nearest cache once, tile by tile, and no thread waits.

Vectors come as they are stored, bfloat16 by its bits (uint16), several of them as a tuple. What is computed, and what
is given, is float32 (float64 where the vectors are). Nothing is changed but `out`, and what a loop is said to add to.
"""

from functools import partial
from typing import Final

import numpy as np

from vlsurgery.surgery.runtime.jit import compiled, magnitude_bits, to_float

# Entries worked on at a time: with those of a few models, what the processor's nearest cache holds.
TILE: Final = 1 << 10

# How far below the largest entry of a row `pruned` tells magnitudes apart, and how many values they then have.
OCTAVES: Final = 16
DIGITS: Final = OCTAVES * 128


@compiled
def sizes(numbers, out):  # type: ignore[no-untyped-def]
    """out = the magnitudes, in float32, as integers of the same order."""
    for i in range(len(numbers)):
        out[i] = magnitude_bits(numbers[i])


@compiled
def largest(numbers):  # type: ignore[no-untyped-def]
    """The largest magnitude, in float32, by its bits."""
    most = np.int32(0)
    for i in range(len(numbers)):
        most = max(most, magnitude_bits(numbers[i]))
    return most


@compiled
def kept(base, model, chosen, out):  # type: ignore[no-untyped-def]
    """out = model - base where `chosen` is true, 0 elsewhere; NaN stays."""
    for i in range(len(base)):
        out[i] = (to_float(model[i]) - to_float(base[i])) * out.dtype.type(chosen[i])


@compiled
def between(base, model, least, most, out):  # type: ignore[no-untyped-def]
    """out = model - base where its magnitude's bits are of least ... most, 0 elsewhere; NaN stays."""
    for i in range(len(base)):
        move = to_float(model[i]) - to_float(base[i])
        found = magnitude_bits(move)
        out[i] = move * out.dtype.type((found >= least) & (found <= most))


@compiled
def counted(base, model, first, last, shift, bins):  # type: ignore[no-untyped-def]
    """How many bits of the magnitudes of model - base are below `first`, are `first`, are `last`, and lie between those
    two; the latter, less `first` and without their last `shift` digits, are in the beginning of `bins`."""
    below, at_first, at_last, inside = 0, 0, 0, 0
    near = np.empty(TILE, np.int32)
    for start in range(0, len(base), TILE):
        one, other = base[start : start + TILE], model[start : start + TILE]
        for i in range(len(one)):
            near[i] = magnitude_bits(to_float(other[i]) - to_float(one[i]))
        # Of 32 bits, so that as many are counted at once as are compared.
        lower, lowest, highest, within = np.int32(0), np.int32(0), np.int32(0), np.int32(0)
        for i in range(len(one)):
            found = near[i]
            lower += np.int32(found < first)
            lowest += np.int32(found == first)
            highest += np.int32(found == last)
            within += np.int32((found > first) & (found < last))
        below += int(lower)
        at_first += int(lowest)
        at_last += int(highest)
        if within:
            for i in range(len(one)):
                if first < near[i] < last:
                    bins[inside] = (near[i] - first) >> shift
                    inside += 1
    return below, at_first, at_last, inside


@compiled
def pruned(base, model, width, drawn, chance, spread, rescale, out):  # type: ignore[no-untyped-def]
    """out = model - base where what was drawn for an entry is below its bound, 0 elsewhere; NaN stays. With `rescale`,
    what is kept is divided by its chance.

    drawn: integers of 16 bits; a bound is 2^15 below the chance to be kept, in 65536ths. chance: what a row's smallest
    entry has. spread: what each rank adds to it. width: entries a row.

    Magnitudes are ranked within their row by exponent and the first seven digits behind the point, those that are less
    than 2^-OCTAVES of the row's largest as one; of n equal entries with m below, the rank is m + (n - 1) / 2.
    """
    counts, twice, bounds = np.empty(DIGITS, np.int32), np.empty(DIGITS, np.int32), np.empty(DIGITS, np.int32)
    gains, places = np.empty(DIGITS, out.dtype), np.empty(width, np.int32)
    for start in range(0, len(base), width):
        one, other, made = base[start : start + width], model[start : start + width], out[start : start + width]
        most = np.int32(0)
        for i in range(width):
            made[i] = to_float(other[i]) - to_float(one[i])
            places[i] = magnitude_bits(made[i]) >> 16
            most = max(most, places[i])
        counts[:] = 0
        for i in range(width):
            places[i] = max(places[i] + np.int32(DIGITS - 1) - most, np.int32(0))
            counts[places[i]] += 1
        below = np.int32(-1)
        for place in range(DIGITS):
            twice[place] = below + counts[place]
            below += 2 * counts[place]
        for place in range(DIGITS):
            steps = np.rint(np.float32(chance) + np.float32(spread / 2) * np.float32(twice[place]))
            # 0 is none that could be divided by, and 65536 no bound of 16 bits.
            steps = min(max(steps, np.float32(1)), np.float32(65535))
            bounds[place] = np.int32(steps) - 32768
            gains[place] = out.dtype.type(65536) / out.dtype.type(steps) if rescale else out.dtype.type(1)
        some = drawn[start : start + width]
        for i in range(width):
            # A product and no choice: the processor would guess wrong at every other entry.
            made[i] *= gains[places[i]] * out.dtype.type(some[i] < bounds[places[i]])


@compiled
def summed(models, shares, out):  # type: ignore[no-untyped-def]
    """out = sum over k of shares[k] models[k]."""
    for start in range(0, len(out), TILE):
        made = out[start : start + TILE]
        for place in range(len(models)):
            model, share = models[place][start : start + TILE], shares[place]
            for i in range(len(made)):
                made[i] = share * to_float(model[i]) + (made[i] if place else out.dtype.type(0))


@compiled
def moved(base, models, shares, out):  # type: ignore[no-untyped-def]
    """out = base + sum over k of shares[k] (models[k] - base).

    The first move is counted from its nearer end, so that a share of 1 gives the model's own entries.
    """
    for start in range(0, len(base), TILE):
        near, made = base[start : start + TILE], out[start : start + TILE]
        for place in range(len(models)):
            model, share = models[place][start : start + TILE], shares[place]
            rest = shares.dtype.type(1) - share
            if place:
                for i in range(len(near)):
                    made[i] += share * (to_float(model[i]) - to_float(near[i]))
            elif share < rest:
                for i in range(len(near)):
                    made[i] = to_float(near[i]) + share * (to_float(model[i]) - to_float(near[i]))
            else:
                for i in range(len(near)):
                    made[i] = to_float(model[i]) - rest * (to_float(model[i]) - to_float(near[i]))


@compiled
def added(base, parts, shares, out):  # type: ignore[no-untyped-def]
    """out = base + sum over k of shares[k] parts[k]. It may be one of the parts."""
    total = np.empty(TILE, out.dtype)
    for start in range(0, len(base), TILE):
        near, made = base[start : start + TILE], out[start : start + TILE]
        for i in range(len(near)):
            total[i] = to_float(near[i])
        for place in range(len(parts)):
            part, share = parts[place][start : start + TILE], shares[place]
            for i in range(len(near)):
                total[i] += share * part[i]
        made[:] = total[: len(near)]


@compiled
def agreed(base, parts, shares, weights, strength, mean, out):  # type: ignore[no-untyped-def]
    """out = base + strength times the sum of those shares[k] parts[k] that have the sign of the sum of all of them, 0
    counting as plus; with `mean`, over the sum of the weights[k] of those that are not 0. It may be one of the parts.

    Each product is rounded before it is added, as in mergekit: that tells the side of sums that cancel out.
    """
    total, voted, made = np.empty(TILE, out.dtype), np.empty(TILE, out.dtype), np.empty(TILE, out.dtype)
    for start in range(0, len(base), TILE):
        near, end = base[start : start + TILE], out[start : start + TILE]
        total[:], voted[:] = 0, 0
        for place in range(len(parts)):
            part, share = parts[place][start : start + TILE], shares[place]
            for i in range(len(near)):
                total[i] += share * part[i]
        made[:] = total - total  # 0, and NaN where a part is not finite
        for place in range(len(parts)):
            part, share, weight = parts[place][start : start + TILE], shares[place], weights[place]
            for i in range(len(near)):
                move = share * part[i]
                agrees = (move > 0) if total[i] >= 0 else (move < 0)
                made[i] += move if agrees else out.dtype.type(0)
                voted[i] += weight if agrees else out.dtype.type(0)
        if mean:
            for i in range(len(near)):
                made[i] = made[i] / voted[i] if voted[i] > 0 else made[i]
        for i in range(len(near)):
            end[i] = to_float(near[i]) + strength * made[i]


@partial(compiled, fastmath={"reassoc", "contract"})
def _dot(first, second):  # type: ignore[no-untyped-def]
    total = 0.0
    for i in range(len(first)):
        total += np.float64(to_float(first[i])) * np.float64(to_float(second[i]))
    return total


@compiled
def products(vectors, sums):  # type: ignore[no-untyped-def]
    """sums[j, k] += the dot product, in float64, of the vectors j and k, for every k up to j."""
    for start in range(0, len(vectors[0]), TILE):
        for one in range(len(vectors)):
            first = vectors[one][start : start + TILE]
            for two in range(one + 1):
                sums[one, two] += _dot(first, vectors[two][start : start + TILE])


@compiled
def products_of_moves(base, models, near, sums):  # type: ignore[no-untyped-def]
    """sums[j, k] += the dot product, in float64, of the moves models[j] - base and models[k] - base, for k up to j.
    near: a row of TILE entries for each model, of the dtype that moves are computed in."""
    for start in range(0, len(base), TILE):
        one = base[start : start + TILE]
        for place in range(len(models)):
            model, move = models[place][start : start + TILE], near[place]
            for i in range(len(one)):
                move[i] = to_float(model[i]) - to_float(one[i])
            for other in range(place + 1):
                sums[place, other] += _dot(move[: len(one)], near[other][: len(one)])
