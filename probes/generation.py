"""Let a model answer: greedy, whole, and the same alone as in company."""

from collections.abc import Sequence
from typing import Any

import torch

from probes.judge import JUDGED_TOKENS
from probes.models import ChatModel
from probes.prompts import Prompt
from surgery.progress import Track, silent


def complete(
    chat: ChatModel,
    prompts: Sequence[Prompt],
    label: str,
    track: Track = silent,
    tokens: int = JUDGED_TOKENS,
    size: int = 64,
) -> list[str]:
    """Greedy completions in the order of the prompts, without special tokens, at most `tokens` tokens each."""
    encoded = chat.encode(prompts)
    texts = [""] * len(prompts)
    batches = list(chat.batches(encoded, size=size, pad="left"))
    model: Any = chat.model
    with torch.no_grad():
        for batch in track(batches, label):
            out = model.generate(
                **batch.inputs,
                do_sample=False,
                num_beams=1,
                temperature=None,
                top_p=None,
                top_k=None,
                max_new_tokens=tokens,
                pad_token_id=_pad(chat),
            )
            new = out[:, batch.inputs["input_ids"].shape[1] :]
            decoded = chat.tokenizer.batch_decode(new, skip_special_tokens=True)
            for at, text in zip(batch.index, decoded, strict=True):
                texts[at] = text.strip()
    return texts


def _pad(chat: ChatModel) -> int:
    pad = chat.tokenizer.pad_token_id
    return chat.tokenizer.eos_token_id if pad is None else pad
