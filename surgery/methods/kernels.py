"""Loops over entries that are compiled when they are first used: one pass where torch takes one for each step.

A step that torch takes alone reads and writes a whole block, and between two steps threads wait for each other to get
hold of Python. Here a block goes through the processor's nearest cache once, tile by tile, and no thread waits. What
was compiled is kept on the disk for the next process.

Vectors come as `bits` gives them, several of them as a tuple. What is computed, and what is given, is float32 (float64
where the vectors are). Nothing but `out` is changed.
"""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numba import njit, types
from numba.extending import overload

if TYPE_CHECKING:
    from torch import Tensor

# Entries worked on at a time: with those of a few models, what the processor's nearest cache holds.
TILE: Final = 1 << 10


def _compiled(function: Callable[..., Any], **options: Any) -> Any:
    """Compile when called, for the types of its arguments; without Python, so that other threads run meanwhile."""
    options |= {"nogil": True, "error_model": "numpy"}
    try:
        return njit(function, cache=True, **options)
    except RuntimeError:  # There is no directory that could keep it: every process compiles for itself.
        return njit(function, **options)


def bits(vector: "Tensor") -> np.ndarray:
    """A vector for compiled code, in its own memory: numbers of 32 or 64 bits, or bfloat16 by its bits. Float16, which
    compiled code does not know, is converted."""
    import torch

    if vector.dtype == torch.float16:
        vector = vector.float()
    found: np.ndarray = (vector.view(torch.uint16) if vector.dtype == torch.bfloat16 else vector).numpy()
    return found


def _number(entry):  # type: ignore[no-untyped-def]
    """An entry as the number that it stands for, in compiled code."""
    raise NotImplementedError


@overload(_number)
def _number_of(entry):  # type: ignore[no-untyped-def]
    if isinstance(entry, types.Integer):
        # The first half of a float32's bits are a bfloat16's.
        return lambda entry: np.uint32(np.uint32(entry) << np.uint32(16)).view(np.float32)
    return lambda entry: entry


@_compiled
def moves(base, models, out):  # type: ignore[no-untyped-def]
    """out[k] = models[k] - base."""
    for start in range(0, len(base), TILE):
        near = base[start : start + TILE]
        for place in range(len(models)):
            model, made = models[place][start : start + TILE], out[place][start : start + TILE]
            for i in range(len(near)):
                made[i] = _number(model[i]) - _number(near[i])


@_compiled
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
                    made[i] += share * (_number(model[i]) - _number(near[i]))
            elif share < rest:
                for i in range(len(near)):
                    made[i] = _number(near[i]) + share * (_number(model[i]) - _number(near[i]))
            else:
                for i in range(len(near)):
                    made[i] = _number(model[i]) - rest * (_number(model[i]) - _number(near[i]))


@_compiled
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
            end[i] = _number(near[i]) + strength * made[i]


@partial(_compiled, fastmath={"reassoc", "contract"})
def _dot(first, second):  # type: ignore[no-untyped-def]
    total = 0.0
    for i in range(len(first)):
        total += np.float64(_number(first[i])) * np.float64(_number(second[i]))
    return total


@_compiled
def products(vectors, sums):  # type: ignore[no-untyped-def]
    """sums[j, k] += the dot product, in float64, of the vectors j and k, for every k up to j."""
    for start in range(0, len(vectors[0]), TILE):
        for one in range(len(vectors)):
            first = vectors[one][start : start + TILE]
            for two in range(one + 1):
                sums[one, two] += _dot(first, vectors[two][start : start + TILE])
