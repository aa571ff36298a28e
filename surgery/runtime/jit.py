"""How loops are compiled, what an entry is to them, and the loops that several rooms share.

Vectors come as they are stored, bfloat16 by its bits (uint16); float16, which compiled code does not know, is converted
beforehand (runtime/arrays.py). Compiled code is cached in `__pycache__`. Numba compiles a loop again when its own file
has changed, and `compiled` when this one has, so that a loop may call those of its own file and of this one, no others.
"""

import inspect
import sys
import zlib
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numba import njit, types
from numba.extending import overload

# Checksum of this file, which every cached loop depends on.
SHARED_SOURCE: Final = zlib.crc32(inspect.getsource(sys.modules[__name__]).encode())


def compiled(function: Callable[..., Any], **options: Any) -> Any:
    """Compile on the first call for each signature, without the interpreter's lock, so that other threads run."""
    options |= {"nogil": True, "error_model": "numpy"}
    try:
        loop: Any = njit(function, cache=True, **options)
    except RuntimeError:  # No directory can hold a cache: every process compiles for itself.
        return njit(function, **options)
    index = loop._cache._cache_file  # What Numba compares the stamp of; it has no public place for more.
    index._source_stamp = (index._source_stamp, SHARED_SOURCE)
    return loop


def to_float(entry):  # type: ignore[no-untyped-def]
    """The number that a stored entry stands for, in compiled code."""
    raise NotImplementedError


@overload(to_float)
def _to_float(entry):  # type: ignore[no-untyped-def]
    if isinstance(entry, types.Integer):
        # A bfloat16 is the upper half of a float32's bits.
        return lambda entry: np.uint32(np.uint32(entry) << np.uint32(16)).view(np.float32)
    return lambda entry: entry


@compiled
def magnitude_bits(number):  # type: ignore[no-untyped-def]
    """The bits of |number| in float32, integers of the same order; NaN is above all."""
    return np.float32(abs(number)).view(np.int32)


@compiled
def upcast_into(stored, out):  # type: ignore[no-untyped-def]
    """out = stored, as floats."""
    for i in range(len(stored)):
        out[i] = to_float(stored[i])


@compiled
def subtract(base, model, out):  # type: ignore[no-untyped-def]
    """out = model - base."""
    for i in range(len(base)):
        out[i] = to_float(model[i]) - to_float(base[i])


@compiled
def round_to_bfloat16(numbers, out):  # type: ignore[no-untyped-def]
    """out = the numbers in bfloat16, by their bits, rounded to nearest even. Returns the largest magnitude's bits in
    float32; where a number is NaN or infinite these are at least infinity's, and `out` is meaningless."""
    most = np.int32(0)
    for i in range(len(numbers)):
        most = max(most, magnitude_bits(numbers[i]))
        whole = np.float32(numbers[i]).view(np.uint32)
        out[i] = (whole + np.uint32(0x7FFF) + ((whole >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    return most
