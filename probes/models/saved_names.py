"""Where in a running model each tensor of its file is: transformers renames, turns and joins some as it loads them."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from vlsurgery.surgery.architecture.layouts import TensorView


def saved_views(model: nn.Module) -> dict[str, TensorView]:
    """Name in the file -> the part of a parameter that it became, by transformers' own account of how it would save it.

    Without tensors that are copies of several parameters. Nothing is moved or computed.
    """
    from transformers.core_model_loading import revert_weight_conversion

    stored: dict[str, Any] = model.state_dict()
    shadows = {name: torch.empty(value.shape, device="meta") for name, value in stored.items()}
    names = {id(shadow): name for name, shadow in shadows.items()}
    found: dict[str, TensorView] = {}
    with _Uncopied():
        written = revert_weight_conversion(model, shadows)
    for name, saved in written.items():
        whole = saved if saved._base is None else saved._base
        if id(whole) in names:
            view = _view(names[id(whole)], saved, whole)
            if view is not None:
                found[name] = view
    return found


def _view(name: str, part: Tensor, whole: Tensor) -> TensorView | None:
    """The part as slices of the whole, its last two dimensions swapped or not; None for any other view."""
    if part is whole:
        return TensorView(name)
    for transposed in (False, True) if part.ndim > 1 else (False,):
        plain = part.transpose(-1, -2) if transposed else part
        if plain.ndim == whole.ndim and plain.stride() == whole.stride():
            starts, rest = [], plain.storage_offset()
            for stride in whole.stride():
                starts.append(rest // stride)
                rest %= stride
            cuts = tuple(slice(start, start + size) for start, size in zip(starts, plain.shape, strict=True))
            return TensorView(name, cuts, transposed)
    return None


class _Uncopied(TorchFunctionMode):
    """While open, a turned tensor stays a view of what it is made of."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return args[0] if func is Tensor.contiguous else func(*args, **(kwargs or {}))
