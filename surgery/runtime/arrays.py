"""Entries of tensors as numpy's vectors: stored, with bfloat16 by its bits, and as they are computed with."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

# How bfloat16, which numpy has no dtype for, is held: by its bits.
BFLOAT16: Final = np.dtype(np.uint16)


def compute_dtype(stored: Iterable[np.dtype]) -> np.dtype:
    """What vectors that are stored so are computed in: float32, or float64 where one of them is."""
    return np.dtype(np.float64 if np.dtype(np.float64) in stored else np.float32)


def upcast(stored: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """What is stored, as numbers: in `out`, or in new memory."""
    made: np.ndarray = np.empty(stored.shape, compute_dtype([stored.dtype])) if out is None else out
    if stored.dtype == BFLOAT16:
        from vlsurgery.surgery.runtime.jit import upcast_into

        upcast_into(stored, made)
    else:
        made[:] = stored
    return made


def kernel_input(stored: np.ndarray) -> np.ndarray:
    """What is stored, as compiled code can read it: float16, which it does not know, as numbers."""
    return upcast(stored) if stored.dtype == np.float16 else stored


def as_numpy(tensor: "Tensor") -> np.ndarray:
    """A tensor's entries as a vector, in its own memory where they lie side by side."""
    import torch

    vector = tensor.reshape(-1)
    found: np.ndarray = (vector.view(torch.uint16) if vector.dtype == torch.bfloat16 else vector).numpy()
    return found
