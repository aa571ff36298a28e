"""Encoded prompts and their batches.

Batches are padded on the right, so that a prompt's tokens have the same positions alone and in a batch; only
generation pads on the left.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from vlsurgery.probes.prompts import Prompt

Side = Literal["left", "right"]
MAX_BATCH_TOKENS = 8192  # padding included: pictures make prompts long


@dataclass(frozen=True)
class Encoded:
    """One prompt as a model reads it.

    ids: [T] token ids, the picture's placeholders included. pictures: the processor's tensors of the picture.
    post: how many of the last tokens the template put behind the user's text (the post-instruction tokens).
    """

    prompt: Prompt
    ids: Tensor
    pictures: Mapping[str, Tensor]
    post: int


@dataclass(frozen=True)
class Batch:
    """Encoded prompts of one batch.

    inputs: the arguments of the model's forward. lengths: [B] tokens of each prompt, without padding and completion.
    index: [B] each row's position in the sequence that was batched.
    """

    inputs: dict[str, Tensor]
    lengths: Tensor
    index: tuple[int, ...]


def batches(
    encoded: Sequence[Encoded], completions: Sequence[Tensor] | None, size: int, pad: Side, pad_id: int
) -> Iterator[Batch]:
    """Batches of prompts that are similar: all with a picture or all without, and of about the same length.

    completions: token ids to append to each prompt. size: prompts in a batch, at most.
    """
    rows = [
        item.ids if completions is None else torch.cat([item.ids, completions[i]]) for i, item in enumerate(encoded)
    ]
    for pictured in (False, True):
        group = sorted((i for i, e in enumerate(encoded) if bool(e.pictures) == pictured), key=lambda i: len(rows[i]))
        while group:
            largest = min(size, len(group))
            count = next((n for n in range(largest, 1, -1) if n * len(rows[group[n - 1]]) <= MAX_BATCH_TOKENS), 1)
            yield _collate(encoded, rows, group[:count], pad, pad_id)
            group = group[count:]


def _collate(encoded: Sequence[Encoded], rows: Sequence[Tensor], index: Sequence[int], pad: Side, pad_id: int) -> Batch:
    inputs = {
        "input_ids": _padded([rows[i] for i in index], pad, pad_id),
        "attention_mask": _padded([torch.ones_like(rows[i]) for i in index], pad, 0),
    }
    width = inputs["input_ids"].shape[1]
    first = encoded[index[0]]
    for key, tensor in first.pictures.items():
        parts = [encoded[i].pictures[key] for i in index]
        per_token = tensor.shape == first.ids[None].shape  # such as token types
        inputs[key] = _padded([part[0] for part in parts], pad, 0, width) if per_token else torch.cat(parts)
    return Batch(inputs, torch.tensor([len(encoded[i].ids) for i in index]), tuple(index))


def _padded(rows: Sequence[Tensor], pad: Side, value: int, width: int = 0) -> Tensor:
    """[rows, width] of the rows, padded with `value`; as wide as the longest row, or `width` where that is more."""
    width = max(width, *(len(row) for row in rows))
    out = torch.full((len(rows), width), value)
    for at, row in enumerate(rows):
        out[at, slice(len(row)) if pad == "right" else slice(width - len(row), None)] = row
    return out
