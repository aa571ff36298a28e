"""Entries of tensors as numpy vectors: as they are stored, with bfloat16 by its bits, and upcast to compute with."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

# The dtype of bfloat16's bits: numpy has none for bfloat16.
BFLOAT16: Final = np.dtype(np.uint16)


def compute_dtype(stored: Iterable[np.dtype]) -> np.dtype:
    """The dtype to compute in, from those of the stored vectors: float64 if one of them is, else float32."""
    return np.dtype(np.float64 if np.dtype(np.float64) in stored else np.float32)


def upcast(stored: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """Stored entries in the dtype to compute in: in `out`, or in new memory."""
    made: np.ndarray = np.empty(stored.shape, compute_dtype([stored.dtype])) if out is None else out
    if stored.dtype == BFLOAT16:
        from vlsurgery.surgery.runtime.jit import upcast_into

        upcast_into(stored, made)
    else:
        made[:] = stored
    return made


def kernel_input(stored: np.ndarray) -> np.ndarray:
    """Stored entries as compiled code can read them: float16, which it can't, is upcast."""
    return upcast(stored) if stored.dtype == np.float16 else stored


def as_numpy(tensor: "Tensor") -> np.ndarray:
    """A tensor's entries as they are stored, as a vector: a view where they are contiguous."""
    import torch

    vector = tensor.reshape(-1)
    found: np.ndarray = (vector.view(torch.uint16) if vector.dtype == torch.bfloat16 else vector).numpy()
    return found
