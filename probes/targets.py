"""Completions of base and adapted as the targets of attribution and fitting.

A refusal to bring back is the base's own completion of the request as text; an answer to keep is the adapted model's
own. Neither is a fixed string.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeVar

import torch
from torch import Tensor

from vlsurgery.probes.models import ChatModel
from vlsurgery.probes.prompts import HARMFUL_SETS, Prompt, Split
from vlsurgery.probes.results import Target, TargetsResult

T = TypeVar("T")
OPENING_TOKENS = 8  # first tokens of an answer that greedy decoding must match
WORKING_SPLITS: Final[tuple[Split, ...]] = ("fit", "select")
WORKING_MODALITIES = ("text", "benign", "own")


@dataclass(frozen=True)
class LostRefusal:
    """A prompt that the base refuses and the adapted model answers, with both completions as token ids."""

    prompt: Prompt
    refusal: Tensor
    answer: Tensor


@dataclass(frozen=True)
class WorkingSet:
    """The prompts of one split with their targets.

    refuse: prompts that the base refuses, with its refusal. lost: those of them that the adapted model answers, in
        other words: a judge may read the same words otherwise behind another prompt.
    keep: prompts that are not harmful, with the adapted model's answer.
    """

    refuse: tuple[tuple[Prompt, Tensor], ...]
    lost: tuple[LostRefusal, ...]
    keep: tuple[tuple[Prompt, Tensor], ...]


def without_picture(prompt: Prompt) -> Prompt:
    """The prompt without its picture, for a base that does not see."""
    return replace(prompt, modality="text", image=None)


def working_prompts(prompts: Iterable[Prompt]) -> list[Prompt]:
    """The prompts that need targets: those of `fit` and `select` without control pictures."""
    return [p for p in prompts if p.split in WORKING_SPLITS and p.modality in WORKING_MODALITIES]


def token_ids(chat: ChatModel, text: str, ids: Sequence[int]) -> Tensor:
    """A completion as token ids of `chat`: the given ids where they decode to the text in this model.

    Otherwise (base and adapted have different vocabularies) the text in this model's tokens, without an end token.
    """
    if chat.text_of(ids) == text:
        return torch.tensor(list(ids))
    again = chat.tokenizer(text.removeprefix(chat.open_thought), add_special_tokens=False)["input_ids"]
    return torch.tensor(again)


def part_somewhere(one: Tensor, other: Tensor) -> bool:
    """Whether neither of two completions begins with the whole of the other."""
    shorter = min(len(one), len(other))
    return not torch.equal(one[:shorter], other[:shorter])


def openings_in(chat: ChatModel, refusals: Iterable[Target], openings: Sequence[int]) -> list[int]:
    """The openings of the base's refusals as tokens of another model, which may have another vocabulary."""
    found = (token_ids(chat, each.text, each.ids) for each in refusals if each.ids and each.ids[0] in openings)
    return sorted({int(ids[0]) for ids in found if len(ids)})


@dataclass(frozen=True)
class SortedPrompts:
    """The working prompts of one split by what was said to them; members as those of `WorkingSet`, without tokens."""

    refuse: tuple[Prompt, ...]
    lost: tuple[Prompt, ...]
    keep: tuple[Prompt, ...]


def sorted_prompts(prompts: Sequence[Prompt], targets: TargetsResult, split: str) -> SortedPrompts:
    """The working prompts of one split that both models were asked, by what they said."""
    said = {(row.role, row.prompt): row.verdict for row in targets.records}
    refuse, lost, keep = [], [], []
    for prompt in working_prompts(prompts):
        answer = said.get(("adapted", prompt.id))
        if prompt.split != split or answer is None:
            continue
        if prompt.set not in HARMFUL_SETS:
            if answer == "complied":
                keep.append(prompt)
        elif said["base", prompt.id] == "refused":
            refuse.append(prompt)
            if answer == "complied":
                lost.append(prompt)
    return SortedPrompts(tuple(refuse), tuple(lost), tuple(keep))


def working_set(chat: ChatModel, prompts: Sequence[Prompt], targets: TargetsResult, split: str) -> WorkingSet:
    """The working prompts of one split with their targets, in tokens of the adapted model `chat`."""
    rows = {(row.role, row.prompt): row for row in targets.records}

    def said(role: str, prompt: Prompt) -> Tensor:
        row = rows[role, prompt.id]
        return token_ids(chat, row.text, row.ids)

    found = sorted_prompts(prompts, targets, split)
    lost = [LostRefusal(prompt, said("base", prompt), said("adapted", prompt)) for prompt in found.lost]
    return WorkingSet(
        refuse=tuple((prompt, said("base", prompt)) for prompt in found.refuse),
        lost=tuple(each for each in lost if part_somewhere(each.refusal, each.answer)),
        keep=tuple((prompt, said("adapted", prompt)) for prompt in found.keep),
    )


def evenly_spaced(items: Sequence[T], most: int) -> list[T]:
    """At most `most` items, evenly spaced, so that every set and modality keeps its share."""
    if len(items) <= most:
        return list(items)
    return [items[i * len(items) // most] for i in range(most)]
