"""What a processor makes beside token ids: which of it a model takes, and what it becomes in a batch."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import torch
from torch import Tensor, nn

Side = Literal["left", "right"]
# Tensors of a picture itself, and those of the question that a Q-Former reads: never per token, whatever their shape.
_OF_PICTURES: Final = ("pixel", "image", "aspect_ratio", "qformer")
# Token types that mean "text": of most classes 0. PaliGemma's 0 is the prefix, whose tokens all see each other; an
# answer is its suffix, in which each token sees those before it alone.
_TEXT_TYPES: Final = {"paligemma": {"token_type_ids": 1}}
# Masks of a picture's patches that prompts of a batch must have in common: in a batch with another one, transformers
# reads a picture without padding otherwise than alone (Phi-4-multimodal).
_SHARED_MASKS: Final = ("image_attention_mask",)
# Inputs that number the patches of a picture, and the input that has these patches: in a batch the numbers go on from
# picture to picture (Molmo 2).
_PATCH_NUMBERS: Final = {"image_token_pooling": "pixel_values"}
# What a pass calls the keys and values of the tokens before it, in transformers from 5.24 on and before.
CACHES: Final = ("cache", "past_key_values")


def cached_tokens(inputs: Mapping[str, Any]) -> int:
    """How many tokens before those given a forward pass has the keys and values of."""
    cache = next((inputs[name] for name in CACHES if inputs.get(name) is not None), None)
    return 0 if cache is None else int(cache.get_seq_length())


def accepted(model: nn.Module, made: Mapping[str, Any]) -> dict[str, Tensor]:
    """Those of a processor's tensors that the model's forward or its generation names, without labels."""
    ways = (model.forward, getattr(model, "prepare_inputs_for_generation", None))
    names = {name for way in ways if way is not None for name in inspect.signature(way).parameters} - {"labels"}
    return {key: torch.as_tensor(value) for key, value in made.items() if key in names and value is not None}


def needs_picture(model: nn.Module) -> bool:
    """Whether the model's forward can't do without a picture (BLIP-2)."""
    pixels = inspect.signature(model.forward).parameters.get("pixel_values")
    return pixels is not None and pixels.default is inspect.Parameter.empty


def picture_dtype(model: Any) -> torch.dtype:
    """The dtype of the weights that read pictures, where they are told apart, else of the model's first ones."""
    tower = model.get_encoder(modality="image") if hasattr(model, "get_encoder") else model
    floating = (weight.dtype for part in (tower, model) for weight in part.parameters() if weight.is_floating_point())
    return next(floating, torch.float32)


def text_types(model: nn.Module) -> Mapping[str, int]:
    """The values of per-token inputs at tokens of an answer, where the prompt's last one is not repeated."""
    config: Any = getattr(model, "config", None)
    return _TEXT_TYPES.get(getattr(config, "model_type", ""), {})


def is_per_token(name: str, tensor: Tensor, length: int) -> bool:
    """Whether an input of a prompt of `length` tokens says something of each: token types, masks, position ids."""
    return (
        tensor.shape[:2] == (1, length)
        and tensor.ndim > 1
        and not tensor.is_floating_point()
        and not name.startswith(_OF_PICTURES)
    )


def shape_key(extras: Mapping[str, Tensor], length: int) -> tuple[object, ...]:
    """What two prompts must have in common to be in one batch: the names, dtypes and shapes of their extra inputs, and
    of some masks the values."""
    shapes = tuple(
        (name, str(tensor.dtype), tuple(tensor.shape[2:] if is_per_token(name, tensor, length) else tensor.shape))
        for name, tensor in sorted(extras.items())
    )
    masks = tuple(extras[name].bool().numpy().tobytes() for name in _SHARED_MASKS if name in extras)
    return shapes, masks


def joined(name: str, extras: Sequence[Mapping[str, Tensor]]) -> Tensor:
    """An input of several prompts that is not per token: one behind the other."""
    parts = [one[name] for one in extras]
    if name not in _PATCH_NUMBERS:
        return torch.cat(parts)
    patches = [one[_PATCH_NUMBERS[name]].shape[:2].numel() for one in extras]
    before = [sum(patches[:at]) for at in range(len(patches))]
    return torch.cat([torch.where(part < 0, part, part + start) for part, start in zip(parts, before, strict=True)])


def extended(name: str, tensor: Tensor, count: int, types: Mapping[str, int]) -> Tensor:
    """[T + count, ...] of a per-token input [1, T, ...] behind which `count` tokens of an answer stand.

    An answer's tokens are as the prompt's last one (in a mask they see what it sees), except that positions go on
    and that `types` may say otherwise.
    """
    row = tensor[0]
    more = row[-1:].expand(count, *row.shape[1:])
    if name == "position_ids":
        more = more + torch.arange(1, count + 1).reshape(-1, *[1] * (row.ndim - 1))
    elif name in types:
        more = torch.full_like(more, types[name])
    return torch.cat([row, more])


def padded(rows: Sequence[Tensor], pad: Side, value: int) -> Tensor:
    """[rows, width, ...] of rows [length, ...], padded with `value` to the longest."""
    width = max(len(row) for row in rows)
    out = rows[0].new_full((len(rows), width, *rows[0].shape[1:]), value)
    for at, row in enumerate(rows):
        out[at, slice(len(row)) if pad == "right" else slice(width - len(row), None)] = row
    return out
