"""What base and adapted themselves answer: the targets of attribution and fitting.

A refusal to be brought back is the base's own completion of the request in words; an answer to be kept is the adapted
model's own. Neither is a fixed string.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor

from vlsurgery.probes.models import ChatModel
from vlsurgery.probes.prompts import HARMFUL_SETS, Prompt
from vlsurgery.probes.results import TargetsResult

T = TypeVar("T")
OPENING = 8  # tokens by which it is judged whether greedy decoding would give a known answer
WORKING_SPLITS = ("fit", "select")
WORKING_MODALITIES = ("text", "benign", "own")


@dataclass(frozen=True)
class LostRefusal:
    """A request that the base refuses and the adapted model answers, and both completions as token ids."""

    prompt: Prompt
    refusal: Tensor
    answer: Tensor


@dataclass(frozen=True)
class WorkingSet:
    """The prompts of one split with their targets.

    refuse: prompts with the base's refusal of them. lost: those of them that the adapted model answers.
    keep: prompts that are not harmful, with the adapted model's answer.
    """

    refuse: tuple[tuple[Prompt, Tensor], ...]
    lost: tuple[LostRefusal, ...]
    keep: tuple[tuple[Prompt, Tensor], ...]


def in_words(prompt: Prompt) -> Prompt:
    """The same request without its picture: as a base that does not see can be asked."""
    return replace(prompt, modality="text", image=None)


def working_prompts(prompts: Iterable[Prompt]) -> list[Prompt]:
    """The prompts that targets are needed for: `fit` and `select`, without control pictures."""
    return [p for p in prompts if p.split in WORKING_SPLITS and p.modality in WORKING_MODALITIES]


def token_ids(chat: ChatModel, text: str, ids: Sequence[int]) -> Tensor:
    """A completion as `chat` would write it: the tokens it was written in, where they mean the same to this model.

    Otherwise (base and adapted have different vocabularies) its text in this model's tokens, without an end.
    """
    if chat.tokenizer.decode(list(ids), skip_special_tokens=True).strip() == text:
        return torch.tensor(list(ids))
    again = chat.tokenizer(text, add_special_tokens=False)["input_ids"]
    return torch.tensor(again)


def working(chat: ChatModel, prompts: Sequence[Prompt], targets: TargetsResult, split: str) -> WorkingSet:
    """Prompts of one split beside their targets, in the tokens of the adapted model `chat`."""
    base = {row.prompt: row for row in targets.records if row.role == "base"}
    adapted = {row.prompt: row for row in targets.records if row.role == "adapted"}
    refuse, lost, keep = [], [], []
    for prompt in working_prompts(prompts):
        if prompt.split != split or prompt.id not in adapted:
            continue
        answer = adapted[prompt.id]
        if prompt.set not in HARMFUL_SETS:
            if answer.verdict == "complied":
                keep.append((prompt, token_ids(chat, answer.text, answer.ids)))
        elif base[prompt.id].verdict == "refused":
            refusal = token_ids(chat, base[prompt.id].text, base[prompt.id].ids)
            refuse.append((prompt, refusal))
            if answer.verdict == "complied":
                lost.append(LostRefusal(prompt, refusal, token_ids(chat, answer.text, answer.ids)))
    return WorkingSet(tuple(refuse), tuple(lost), tuple(keep))


def spread(items: Sequence[T], most: int) -> list[T]:
    """At most `most` of the items, evenly spaced, so that every set and modality keeps its share."""
    if len(items) <= most:
        return list(items)
    return [items[i * len(items) // most] for i in range(most)]
