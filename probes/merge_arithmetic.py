"""Sums and inner products of a live merge's values, in float32: compiled loops on the CPU, torch on other devices.

A compiled loop reads each stored entry once, where torch takes a pass of its own for every conversion.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from vlsurgery.surgery.methods.kernels import TILE, interpolate, largest
from vlsurgery.surgery.runtime.arrays import as_numpy, kernel_input, upcast
from vlsurgery.surgery.runtime.jit import compiled, round_to_bfloat16, to_float

_INFINITE = np.float32(np.inf).view(np.int32)  # The bits of magnitudes that are not finite are at least these.


def merge_into(out: Tensor, adapted: Tensor, sources: Sequence[Tensor], coefficients: Sequence[float]) -> bool:
    """out = adapted + sum over i of coefficients[i] (sources[i] - adapted), rounded once to out's dtype.

    All of one shape, and of any dtypes. Without sources `adapted` itself. Returns whether all entries are finite.
    """
    if not sources:
        out.copy_(adapted)
        return True
    if out.device.type != "cpu":
        merged = adapted.float()
        for delta, coefficient in zip(_deltas(adapted, sources), coefficients, strict=True):
            merged = merged + coefficient * delta
        out.copy_(merged)
        return bool(merged.isfinite().all())
    base, *models = _alike((adapted, *sources))
    made = np.empty(out.numel(), np.float32)
    interpolate(base, tuple(models), np.array(coefficients, np.float32), made)
    if out.dtype == torch.bfloat16 and out.is_contiguous():
        return bool(round_to_bfloat16(made, as_numpy(out)) < _INFINITE)
    out.copy_(torch.from_numpy(made).view(out.shape))
    return bool(largest(made) < _INFINITE)


def delta_products(gradient: Tensor, adapted: Tensor, sources: Sequence[Tensor]) -> Tensor:
    """[sources] float64 on the CPU: <gradient, sources[i] - adapted>. Products are float32, their sums float64."""
    if gradient.device.type != "cpu":
        slope = gradient.float()
        products = [(slope * delta).sum(dtype=torch.float64) for delta in _deltas(adapted, sources)]
        return torch.stack(products).cpu() if products else torch.zeros(0, dtype=torch.float64)
    (slope_entries,) = _alike((gradient,))
    base, *models = _alike((adapted, *sources))
    out = np.zeros(len(models))
    if models:
        _add_products(slope_entries, base, tuple(models), out)
    return torch.from_numpy(out)


def _add_products(gradient, base, models, out):  # type: ignore[no-untyped-def]
    """out[k] += <gradient, models[k] - base>, a tile at a time."""
    for start in range(0, len(base), TILE):
        slope, origin = gradient[start : start + TILE], base[start : start + TILE]
        for k in range(len(models)):
            model, total = models[k][start : start + TILE], np.float32(0)
            for i in range(len(slope)):
                total += np.float32(to_float(slope[i])) * np.float32(to_float(model[i]) - to_float(origin[i]))
            out[k] += total


# A tile's products may be summed in any order, which lets several be summed in one instruction.
_add_products = compiled(_add_products, fastmath={"reassoc", "nsz"})


def row_products(one: Tensor, other: Tensor) -> Tensor:
    """[n] float32 inner products of the rows of two [n, width] tensors of one dtype."""
    if one.device.type != "cpu":
        return (one.float() * other.float()).sum(-1)
    left, right = _alike((one, other))
    out = np.empty(len(one), np.float32)
    _row_products(left, right, out)
    return torch.from_numpy(out)


def _row_products(one, other, out):  # type: ignore[no-untyped-def]
    """out[k] = <row k of one, row k of other>, of matrices as vectors."""
    width = len(one) // max(1, len(out))
    for k in range(len(out)):
        left, right, total = one[k * width : (k + 1) * width], other[k * width : (k + 1) * width], np.float32(0)
        for i in range(width):
            total += np.float32(to_float(left[i])) * np.float32(to_float(right[i]))
        out[k] = total


_row_products = compiled(_row_products, fastmath={"reassoc", "nsz"})


def _deltas(adapted: Tensor, sources: Sequence[Tensor]) -> list[Tensor]:
    origin = adapted.float()
    return [source.float() - origin for source in sources]


def _alike(tensors: Sequence[Tensor]) -> list[np.ndarray]:
    """Tensors as vectors that one compiled loop can read: as stored, where all are stored alike."""
    vectors = [kernel_input(as_numpy(tensor)) for tensor in tensors]
    if len({vector.dtype for vector in vectors}) > 1:
        return [upcast(vector).astype(np.float32, copy=False) for vector in vectors]
    return vectors
