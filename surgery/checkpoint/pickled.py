"""Pickled weights (pytorch_model.bin), read where the user allows it: loaded as weights only, never as code."""

import hashlib
import io
import json
import os
import pickle
import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from vlsurgery.surgery.checkpoint.headers import Entry, Header
from vlsurgery.surgery.checkpoint.lazy_tensor import TORCH_NAMES, ComputedTensor, LazyTensor
from vlsurgery.surgery.checkpoint.shards import Files
from vlsurgery.surgery.errors import CheckpointError
from vlsurgery.surgery.runtime.visible import visible

if TYPE_CHECKING:
    from torch import Tensor

SAFETENSORS_NAMES: Final = {name: safetensors_dtype for safetensors_dtype, name in TORCH_NAMES.items()}

# Errors of torch for a file that is damaged or holds more than weights.
_FAULTS: Final = (
    pickle.UnpicklingError, RuntimeError, OSError, EOFError, ValueError, LookupError, TypeError, AttributeError,
    ImportError, ArithmeticError, AssertionError, MemoryError, struct.error, zipfile.BadZipFile,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class PickledTensor(ComputedTensor):
    """A tensor of a pickled file, memory-mapped where the file allows it."""

    tensor: "Tensor"

    def compute(self, start: int, stop: int) -> "Tensor":
        """Entries `start` to `stop` in row-major order, as a vector in memory of its own."""
        return self.tensor.detach().reshape(-1)[start:stop].clone()


def read_pickled(path: Path, files: Files) -> tuple[dict[str, Header], dict[str, LazyTensor]]:
    """Shards and tensors of pickled weights; each shard under the name of its safetensors copy.

    Raises CheckpointError that names the file: damaged, more than weights in it, a tensor in two files.
    """
    shards: dict[str, Header] = {}
    tensors: dict[str, LazyTensor] = {}
    for file in files.shards:
        held = _load(path / file)
        entries, offset = [], 0
        for name, tensor in held.items():
            if name in tensors:
                raise CheckpointError(
                    f"{path}: tensor {name!r} is in both {tensors[name].shard.name} and {file}. Remove the one that "
                    "does not belong to this checkpoint."
                )
            safetensors_dtype = SAFETENSORS_NAMES[str(tensor.dtype).removeprefix("torch.")]
            entries.append(
                Entry(name, safetensors_dtype, tuple(tensor.shape), offset, tensor.numel() * tensor.itemsize)
            )
            tensors[name] = PickledTensor(entries[-1], path / file, tensor)
            offset += entries[-1].nbytes
        status = (path / file).stat()
        digest = hashlib.sha256(json.dumps(entries).encode()).hexdigest()
        goal = file.replace("pytorch_model", "model").removesuffix(".bin") + ".safetensors"
        shards[goal] = Header(tuple(entries), {"format": "pt"}, digest, status.st_size, status.st_mtime_ns)
    missing = next((name for name in files.weight_map if name not in tensors), None)
    if missing is not None or not tensors:
        raise CheckpointError(f"{path}: {missing or 'any tensor'} is missing from its weight files. Download it again.")
    return shards, tensors


class _WithinItself(io.BufferedReader):
    """A file that is asked for no more bytes than it has: otherwise a damaged length takes room for all that it
    claims."""

    def read(self, size: int | None = -1, /) -> bytes:
        left = os.fstat(self.fileno()).st_size - self.tell()
        return super().read(left if size is None or size < 0 else min(size, max(left, 0)))


def _load(path: Path) -> dict[str, "Tensor"]:
    import torch

    try:
        if zipfile.is_zipfile(path):
            held = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        else:
            with _WithinItself(path.open("rb", buffering=0)) as file:
                held = torch.load(file, map_location="cpu", weights_only=True)
    except _FAULTS as error:
        reason = visible(str(error).strip().split("\n")[0])[:200] or type(error).__name__
        raise CheckpointError(
            f"{path}: can't be loaded as weights only ({reason}). Do not trust it, or download it again."
        ) from error
    plain = isinstance(held, dict) and all(
        isinstance(name, str) and isinstance(tensor, torch.Tensor) and not tensor.is_sparse and not tensor.is_quantized
        for name, tensor in held.items()
    )
    if not plain or any(str(tensor.dtype).removeprefix("torch.") not in SAFETENSORS_NAMES for tensor in held.values()):
        raise CheckpointError(
            f"{path}: holds something else than plain tensors by name. Load it with the code that wrote it, and save "
            "it with save_pretrained."
        )
    return dict(held)
