"""What compiled loops are made of: how they are compiled, what an entry is to them, and loops that merging shares with
measuring.

Vectors come as they are stored, bfloat16 by its bits (uint16); float16, which compiled code does not know, is converted
beforehand (runtime/arrays.py). What was compiled is kept on the disk, in `__pycache__`, and compiled again when its
own file changes: remove what is kept by hand after a change here that other files' loops call.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import overload


def compiled(function: Callable[..., Any], **options: Any) -> Any:
    """Compile when called, for the types of its arguments; without Python, so that other threads run meanwhile."""
    options |= {"nogil": True, "error_model": "numpy"}
    try:
        return njit(function, cache=True, **options)
    except RuntimeError:  # There is no directory that could keep it: every process compiles for itself.
        return njit(function, **options)


def to_float(entry):  # type: ignore[no-untyped-def]
    """An entry as the number that it stands for, in compiled code."""
    raise NotImplementedError


@overload(to_float)
def _number_of(entry):  # type: ignore[no-untyped-def]
    if isinstance(entry, types.Integer):
        # The first half of a float32's bits are a bfloat16's.
        return lambda entry: np.uint32(np.uint32(entry) << np.uint32(16)).view(np.float32)
    return lambda entry: entry


@compiled
def magnitude_bits(to_float):  # type: ignore[no-untyped-def]
    """A magnitude, in float32, as an integer of the same order; NaN is above all."""
    return np.float32(abs(to_float)).view(np.int32)


@compiled
def upcast_into(stored, out):  # type: ignore[no-untyped-def]
    """out = stored, as numbers."""
    for i in range(len(stored)):
        out[i] = to_float(stored[i])


@compiled
def subtract(base, model, out):  # type: ignore[no-untyped-def]
    """out = model - base."""
    for i in range(len(base)):
        out[i] = to_float(model[i]) - to_float(base[i])


@compiled
def round_to_bfloat16(numbers, out):  # type: ignore[no-untyped-def]
    """out = the numbers' bfloat16, to nearest even. Gives the largest magnitude by its bits; that of a NaN or an
    infinity is no number's, and what is in `out` then means nothing."""
    most = np.int32(0)
    for i in range(len(numbers)):
        most = max(most, magnitude_bits(numbers[i]))
        whole = np.float32(numbers[i]).view(np.uint32)
        out[i] = (whole + np.uint32(0x7FFF) + ((whole >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    return most
