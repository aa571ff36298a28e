"""Small safetensors files whose bytes depend on their content alone."""

from collections.abc import Mapping

import torch
from torch import Tensor

from vlsurgery.surgery.checkpoint.headers import header_bytes
from vlsurgery.surgery.checkpoint.lazy_tensor import TORCH_NAMES

_STORED_NAMES = {name: stored for stored, name in TORCH_NAMES.items()}


def tensor_file(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """The bytes of a file of tensors on the CPU, in the order of their names, and metadata in the order of its keys.

    The safetensors library writes metadata in an order that changes from call to call.
    """
    ordered = [(name, tensors[name].detach().contiguous()) for name in sorted(tensors)]
    entries = [
        (name, _STORED_NAMES[str(value.dtype).removeprefix("torch.")], tuple(value.shape), value.nbytes)
        for name, value in ordered
    ]
    header = header_bytes(entries, dict(sorted(metadata.items())))
    return b"".join([header, *(value.flatten().view(torch.uint8).numpy().tobytes() for _, value in ordered)])
