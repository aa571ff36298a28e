"""Greedy completions of a model; a batch of N gives the same as N singles."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig

from vlsurgery.probes.evaluation.padding import reads_padding
from vlsurgery.probes.models import Batch, ChatModel
from vlsurgery.probes.prompts import Prompt
from vlsurgery.surgery.runtime.progress import Progress, no_progress

DEFAULT_TOKENS = 128  # of a completion, at most: models that moralise often refuse only after fifty words
BATCH = 64


@dataclass(frozen=True)
class Completion:
    """A completion. text: see `ChatModel.text_of`. ids: with special tokens. finished: whether it has an end token."""

    text: str
    ids: tuple[int, ...]
    finished: bool


Written = Callable[[Sequence[Prompt], Sequence[Completion]], None]


def complete(
    chat: ChatModel,
    prompts: Sequence[Prompt],
    label: str,
    progress: Progress = no_progress,
    tokens: int = DEFAULT_TOKENS,
    size: int = BATCH,
    written: Written | None = None,
) -> list[Completion]:
    """Greedy completions in the order of the prompts, at most `tokens` tokens each.

    written: called with each batch's prompts and completions as soon as they are there.

    Of the checkpoint's generation settings only the end tokens are used: penalties and banned words would make the
    completion differ from the greedy one, which `scoring` assumes. Only placeholders of pictures are never written.
    """
    encoded = chat.encode(prompts)
    found: list[Completion | None] = [None] * len(prompts)
    with _settings(chat, tokens) as end:
        even = reads_padding(chat, encoded)
        each = chat.each_batch(
            lambda batch: _generated(chat, batch, end), encoded, size=size, pad="left", tokens=tokens, even=even
        )

        def answered() -> Iterator[int]:
            """The place of each prompt, once its batch is done: how many batches there are, memory decides."""
            for batch, completions in each:
                for at, completion in zip(batch.index, completions, strict=True):
                    found[at] = completion
                if written is not None:
                    written([prompts[at] for at in batch.index], completions)
                yield from batch.index

        for _ in progress(answered(), label, len(prompts)):
            pass
    return [completion for completion in found if completion is not None]


@contextmanager
def _settings(chat: ChatModel, tokens: int) -> Iterator[list[int]]:
    """While open, the model decodes greedily, its own generation settings put aside. Yields the end tokens."""
    model: Any = chat.model
    end = _end(chat)
    settings = GenerationConfig(
        do_sample=False,
        num_beams=1,
        max_new_tokens=tokens,
        eos_token_id=end or None,
        pad_token_id=chat.pad_id,
        suppress_tokens=chat.placeholder_ids or None,
    )
    own, model.generation_config = model.generation_config, settings
    try:
        yield end
    finally:
        model.generation_config = own


def _generated(chat: ChatModel, batch: Batch, end: Sequence[int]) -> list[Completion]:
    """The completions of a batch."""
    model: Any = chat.model
    with torch.no_grad():
        out = model.generate(**batch.inputs)
    rows = out[:, batch.inputs["input_ids"].shape[1] :].tolist()
    return [_completion(chat, row, end) for row in rows]


def _completion(chat: ChatModel, row: list[int], end: Sequence[int]) -> Completion:
    """The completion in a generated row, up to its end token; the rest is padding."""
    stop = next((at for at, token in enumerate(row) if token in end), None)
    ids = row if stop is None else row[: stop + 1]
    return Completion(chat.text_of(ids), tuple(ids), stop is not None)


def _end(chat: ChatModel) -> list[int]:
    """The end tokens of the checkpoint's generation settings, or else of its tokenizer; none where neither has one."""
    own: Any = getattr(chat.model, "generation_config", None)
    end = own.eos_token_id if own is not None and own.eos_token_id is not None else chat.tokenizer.eos_token_id
    if end is None:
        return []
    return list(end) if isinstance(end, list) else [end]
