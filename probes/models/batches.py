"""Encoded prompts and their batches.

Batches are padded on the right, so that a prompt's tokens have the same positions alone and in a batch; only
generation pads on the left.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from vlsurgery.probes.models.extras import Side, extended, is_per_token, joined, padded, shape_key
from vlsurgery.probes.prompts import Prompt

MAX_ROWS = 64  # prompts in a batch, where nothing else is asked for


@dataclass(frozen=True)
class Encoded:
    """One prompt as a model reads it.

    ids: [T] token ids, the picture's placeholders included. pictures: what the processor made beside them.
    post: how many of the last tokens stand behind the user's text (the post-instruction tokens).
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


@dataclass(frozen=True)
class Rows:
    """Prompts with the completions behind them, to be divided into batches.

    pad_id: the token that fills. types: as in `extras.text_types`. room: tokens that will be written behind each row.
    even: whether the rows of a batch are of one length, so that none is padded.
    """

    encoded: Sequence[Encoded]
    completions: Sequence[Tensor] | None = None
    pad: Side = "right"
    pad_id: int = 0
    types: Mapping[str, int] = field(default_factory=dict)
    room: int = 0
    even: bool = False

    def length(self, at: int) -> int:
        """The tokens of one row."""
        return len(self.encoded[at].ids) + self._added(at)

    def tokens(self, index: Sequence[int]) -> int:
        """The tokens that a batch of these rows takes, padding and what will be written included."""
        return len(index) * (max(map(self.length, index)) + self.room)

    def divided(self, size: int, most_tokens: int) -> list[list[int]]:
        """Batches of rows that go together: their extra inputs have the same names and shapes, their lengths are
        about the same. At most `size` rows and `most_tokens` tokens each, or one row."""
        groups: dict[object, list[int]] = {}
        for at in sorted(range(len(self.encoded)), key=self.length):
            item = self.encoded[at]
            length = self.length(at) if self.even else None
            key = (item.prompt.image is not None, shape_key(item.pictures, len(item.ids)), length)
            groups.setdefault(key, []).append(at)
        found = []
        for group in groups.values():
            batch: list[int] = []
            for at in group:
                if batch and (len(batch) == size or self.tokens([*batch, at]) > most_tokens):
                    found.append(batch)
                    batch = []
                batch.append(at)
            found.append(batch)
        return found

    def collated(self, index: Sequence[int]) -> Batch:
        """One batch. Its extra inputs per token are padded as the ids are, others stand one behind the other."""
        rows = [self._row(at) for at in index]
        inputs = {
            "input_ids": padded(rows, self.pad, self.pad_id),
            "attention_mask": padded([torch.ones_like(row) for row in rows], self.pad, 0),
        }
        first = self.encoded[index[0]]
        for key, tensor in first.pictures.items():
            if is_per_token(key, tensor, len(first.ids)):
                parts = [self.encoded[at].pictures[key] for at in index]
                longer = [
                    extended(key, part, self._added(at), self.types) for part, at in zip(parts, index, strict=True)
                ]
                inputs[key] = padded(longer, self.pad, self.types.get(key, 0))
            else:
                inputs[key] = joined(key, [self.encoded[at].pictures for at in index])
        return Batch(inputs, torch.tensor([len(self.encoded[at].ids) for at in index]), tuple(index))

    def _added(self, at: int) -> int:
        return 0 if self.completions is None else len(self.completions[at])

    def _row(self, at: int) -> Tensor:
        ids = self.encoded[at].ids
        return ids if self.completions is None else torch.cat([ids, self.completions[at]])
