"""The dtype in which a checkpoint runs, and on which device."""

import time
from functools import cache
from typing import Final, Literal

import torch

from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.errors import SurgeryError

RunDtype = Literal["auto", "float32", "bfloat16", "float16"]
DTYPES: Final = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
WORTHWHILE: Final = 1.5  # times faster than float32 that a shorter dtype's products must be, to run in it unasked
SIDE: Final = 512  # of the matrices that are multiplied to find out


def default_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def device_of(asked: str | None) -> str:
    """The device to run on: what was asked for, else CUDA where there is one; "auto" is divided over all devices.

    Raises SurgeryError for a device that torch does not know, or that is not there.
    """
    if asked is None:
        return default_device()
    if asked == "auto":
        return asked
    try:
        torch.empty(0, device=asked)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise SurgeryError(
            f"--device {asked}: can't be used: {reason}. Leave it out, or give cpu, cuda, cuda:0 or auto."
        ) from error
    return asked


def run_dtype(checkpoint: Checkpoint, asked: RunDtype, device: str) -> torch.dtype:
    """The dtype of a running model's weights: what was asked for; with "auto" the one that most of them are stored in,
    where the device multiplies it fast, else float32."""
    if asked != "auto":
        return DTYPES[asked]
    sizes: dict[torch.dtype, int] = {}
    for tensor in checkpoint.values():
        if tensor.dtype in DTYPES.values():
            sizes[tensor.dtype] = sizes.get(tensor.dtype, 0) + tensor.numel
    stored = max(sizes, key=lambda dtype: sizes[dtype], default=torch.float32)
    if device != "cpu" or speedup(stored) >= WORTHWHILE:
        return stored
    return torch.float32


@cache
def speedup(dtype: torch.dtype) -> float:
    """How many times faster than float32 this processor multiplies matrices of a dtype; measured once, in some
    milliseconds."""
    return 1.0 if dtype == torch.float32 else _seconds(torch.float32) / _seconds(dtype)


def _seconds(dtype: torch.dtype) -> float:
    """The shortest of five products of two square matrices, on one thread as on all."""
    one, other = (torch.full((SIDE, SIDE), value, dtype=dtype) for value in (0.5, 0.25))
    taken = []
    for _ in range(5):
        began = time.perf_counter()
        one @ other
        taken.append(time.perf_counter() - began)
    return min(taken)
