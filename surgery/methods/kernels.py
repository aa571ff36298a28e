"""Compiled loops over entries, each one pass where numpy takes one per operation.

A chunk goes through the processor's nearest cache once, tile by tile, and without the interpreter's lock.

Vectors come as they are stored, bfloat16 by its bits (uint16); several of them as a tuple. Computed and returned is
float32 (float64 where the vectors are). A loop changes only `out`, and the arrays that it says it adds to.
"""

from functools import partial
from typing import Final

import numpy as np

from vlsurgery.surgery.runtime.jit import compiled, magnitude_bits, to_float

# Entries of a tile: with those of a few models, what the processor's nearest cache holds.
TILE: Final = 1 << 10

# Powers of two below a row's largest entry within which `magprune` tells magnitudes apart, and the bins that they make.
RANKED_OCTAVES: Final = 16
RANK_BINS: Final = RANKED_OCTAVES * 128


@compiled
def largest(numbers):  # type: ignore[no-untyped-def]
    """The bits of the largest magnitude, in float32."""
    most = np.int32(0)
    for i in range(len(numbers)):
        most = max(most, magnitude_bits(numbers[i]))
    return most


@compiled
def masked_delta(base, model, mask, out):  # type: ignore[no-untyped-def]
    """out = model - base where `mask` is true, 0 elsewhere; NaN stays."""
    for i in range(len(base)):
        out[i] = (to_float(model[i]) - to_float(base[i])) * out.dtype.type(mask[i])


@compiled
def delta_between(base, model, least, most, out):  # type: ignore[no-untyped-def]
    """out = model - base where the bits of its magnitude are in least ... most, 0 elsewhere; NaN stays."""
    for i in range(len(base)):
        delta = to_float(model[i]) - to_float(base[i])
        bits = magnitude_bits(delta)
        out[i] = delta * out.dtype.type((bits >= least) & (bits <= most))


@compiled
def count_magnitudes(base, model, first, last, shift, bins):  # type: ignore[no-untyped-def]
    """How many magnitudes of model - base have bits below `first`, equal to `first`, equal to `last`, and between the
    two. The bins of the latter, (bits - first) >> shift, are written to the beginning of `bins`."""
    below, at_first, at_last, inside = 0, 0, 0, 0
    bits = np.empty(TILE, np.int32)
    for start in range(0, len(base), TILE):
        base_tile, model_tile = base[start : start + TILE], model[start : start + TILE]
        for i in range(len(base_tile)):
            bits[i] = magnitude_bits(to_float(model_tile[i]) - to_float(base_tile[i]))
        # 32-bit counters, so that as many are counted in one vector instruction as are compared.
        lower, lowest, highest, within = np.int32(0), np.int32(0), np.int32(0), np.int32(0)
        for i in range(len(base_tile)):
            found = bits[i]
            lower += np.int32(found < first)
            lowest += np.int32(found == first)
            highest += np.int32(found == last)
            within += np.int32((found > first) & (found < last))
        below += int(lower)
        at_first += int(lowest)
        at_last += int(highest)
        if within:
            for i in range(len(base_tile)):
                if first < bits[i] < last:
                    bins[inside] = (bits[i] - first) >> shift
                    inside += 1
    return below, at_first, at_last, inside


@compiled
def magprune(base, model, width, drawn, least, step, rescale, out):  # type: ignore[no-untyped-def]
    """out = model - base where the number drawn for an entry is below its bound, 0 elsewhere; NaN stays. With
    `rescale`, kept entries are divided by their keep probability.

    drawn: integers of 16 bits; a bound is the keep probability in 65536ths, less 2^15. least: the probability of a
    row's smallest entry, in 65536ths. step: what each rank adds to it. width: entries a row.

    Magnitudes are ranked within their row by exponent and the first seven binary digits behind the point; those below
    2^-RANKED_OCTAVES of the row's largest rank as one. n equal entries with m below have rank m + (n - 1) / 2.
    """
    counts, twice, bounds = np.empty(RANK_BINS, np.int32), np.empty(RANK_BINS, np.int32), np.empty(RANK_BINS, np.int32)
    gains, places = np.empty(RANK_BINS, out.dtype), np.empty(width, np.int32)
    for start in range(0, len(base), width):
        base_row, model_row, delta = (
            base[start : start + width],
            model[start : start + width],
            out[start : start + width],
        )
        most = np.int32(0)
        for i in range(width):
            delta[i] = to_float(model_row[i]) - to_float(base_row[i])
            places[i] = magnitude_bits(delta[i]) >> 16
            most = max(most, places[i])
        counts[:] = 0
        for i in range(width):
            places[i] = max(places[i] + np.int32(RANK_BINS - 1) - most, np.int32(0))
            counts[places[i]] += 1
        below = np.int32(-1)
        for place in range(RANK_BINS):
            twice[place] = below + counts[place]
            below += 2 * counts[place]
        for place in range(RANK_BINS):
            steps = np.rint(np.float32(least) + np.float32(step / 2) * np.float32(twice[place]))
            # At least 1, because it is a divisor; at most 65535, because 65536 is no bound of 16 bits.
            steps = min(max(steps, np.float32(1)), np.float32(65535))
            bounds[place] = np.int32(steps) - 32768
            gains[place] = out.dtype.type(65536) / out.dtype.type(steps) if rescale else out.dtype.type(1)
        drawn_row = drawn[start : start + width]
        for i in range(width):
            # A product instead of a branch, which the processor would mispredict at every other entry.
            delta[i] *= gains[places[i]] * out.dtype.type(drawn_row[i] < bounds[places[i]])


@compiled
def weighted_sum(models, coefficients, out):  # type: ignore[no-untyped-def]
    """out = sum over k of coefficients[k] models[k]."""
    for start in range(0, len(out), TILE):
        out_tile = out[start : start + TILE]
        for k in range(len(models)):
            model, coefficient = models[k][start : start + TILE], coefficients[k]
            for i in range(len(out_tile)):
                out_tile[i] = coefficient * to_float(model[i]) + (out_tile[i] if k else out.dtype.type(0))


@compiled
def interpolate(base, models, coefficients, out):  # type: ignore[no-untyped-def]
    """out = base + sum over k of coefficients[k] (models[k] - base).

    The first model is interpolated from the nearer end, so that a coefficient of 1 gives its entries exactly.
    """
    for start in range(0, len(base), TILE):
        base_tile, out_tile = base[start : start + TILE], out[start : start + TILE]
        for k in range(len(models)):
            model, coefficient = models[k][start : start + TILE], coefficients[k]
            rest = coefficients.dtype.type(1) - coefficient
            if k:
                for i in range(len(base_tile)):
                    out_tile[i] += coefficient * (to_float(model[i]) - to_float(base_tile[i]))
            elif coefficient < rest:
                for i in range(len(base_tile)):
                    out_tile[i] = to_float(base_tile[i]) + coefficient * (to_float(model[i]) - to_float(base_tile[i]))
            else:
                for i in range(len(base_tile)):
                    out_tile[i] = to_float(model[i]) - rest * (to_float(model[i]) - to_float(base_tile[i]))


@compiled
def add_deltas(base, deltas, coefficients, out):  # type: ignore[no-untyped-def]
    """out = base + sum over k of coefficients[k] deltas[k]. `out` may be one of the deltas."""
    total = np.empty(TILE, out.dtype)
    for start in range(0, len(base), TILE):
        base_tile, out_tile = base[start : start + TILE], out[start : start + TILE]
        for i in range(len(base_tile)):
            total[i] = to_float(base_tile[i])
        for k in range(len(deltas)):
            delta, coefficient = deltas[k][start : start + TILE], coefficients[k]
            for i in range(len(base_tile)):
                total[i] += coefficient * delta[i]
        out_tile[:] = total[: len(base_tile)]


@compiled
def disjoint_merge(base, deltas, factors, coefficients, scale, mean, out):  # type: ignore[no-untyped-def]
    """out = base + scale times the sum of those factors[k] deltas[k] that have the sign of the sum of all of them, 0
    counting as plus; with `mean`, over the sum of the coefficients[k] of those that are not 0. `out` may be one of the
    deltas.

    Each product is rounded before it is added, as in mergekit: the rounding decides the sign of sums that cancel out.
    """
    total, voted, merged = np.empty(TILE, out.dtype), np.empty(TILE, out.dtype), np.empty(TILE, out.dtype)
    for start in range(0, len(base), TILE):
        base_tile, out_tile = base[start : start + TILE], out[start : start + TILE]
        total[:], voted[:] = 0, 0
        for k in range(len(deltas)):
            delta, factor = deltas[k][start : start + TILE], factors[k]
            for i in range(len(base_tile)):
                total[i] += factor * delta[i]
        merged[:] = total - total  # 0, and NaN where a delta is not finite
        for k in range(len(deltas)):
            delta, factor, coefficient = deltas[k][start : start + TILE], factors[k], coefficients[k]
            for i in range(len(base_tile)):
                product = factor * delta[i]
                agrees = (product > 0) if total[i] >= 0 else (product < 0)
                merged[i] += product if agrees else out.dtype.type(0)
                voted[i] += coefficient if agrees else out.dtype.type(0)
        if mean:
            for i in range(len(base_tile)):
                merged[i] = merged[i] / voted[i] if voted[i] > 0 else merged[i]
        for i in range(len(base_tile)):
            out_tile[i] = to_float(base_tile[i]) + scale * merged[i]


@partial(compiled, fastmath={"reassoc", "contract"})
def _dot(first, second):  # type: ignore[no-untyped-def]
    total = 0.0
    for i in range(len(first)):
        total += np.float64(to_float(first[i])) * np.float64(to_float(second[i]))
    return total


@compiled
def gram(vectors, sums):  # type: ignore[no-untyped-def]
    """sums[j, k] += the dot product, in float64, of the vectors j and k, for every k up to j."""
    for start in range(0, len(vectors[0]), TILE):
        for j in range(len(vectors)):
            first = vectors[j][start : start + TILE]
            for k in range(j + 1):
                sums[j, k] += _dot(first, vectors[k][start : start + TILE])


@compiled
def delta_gram(base, models, scratch, sums):  # type: ignore[no-untyped-def]
    """sums[j, k] += the dot product, in float64, of the deltas models[j] - base and models[k] - base, for k up to j.
    scratch: a row of TILE entries for each model, of the dtype that deltas are computed in."""
    for start in range(0, len(base), TILE):
        base_tile = base[start : start + TILE]
        for j in range(len(models)):
            model, delta = models[j][start : start + TILE], scratch[j]
            for i in range(len(base_tile)):
                delta[i] = to_float(model[i]) - to_float(base_tile[i])
            for k in range(j + 1):
                sums[j, k] += _dot(delta[: len(base_tile)], scratch[k][: len(base_tile)])
