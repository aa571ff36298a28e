"""KL from the adapted model, on its own answers, of every other model."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from vlsurgery.probes.evaluation.tabulate import Cell, Divergence
from vlsurgery.probes.models import ChatModel
from vlsurgery.probes.models.head import HeadRows, head_copy, vocabulary_size
from vlsurgery.probes.prompts import HARMFUL_SETS, Prompt
from vlsurgery.probes.results import CompletionRecord
from vlsurgery.probes.scoring import answer_states, mean_divergence, scored_answers
from vlsurgery.probes.targets import evenly_spaced
from vlsurgery.surgery.runtime.atomic_file import replacing

MAX_KL_PROMPTS = 64  # per cell
MAX_KL_TOKENS = 16  # of each answer, from its start
HEAD = "head."  # before the names of a head's parameters in a file


@dataclass(frozen=True)
class Reference:
    """The adapted model's own answers per cell, from which KL is measured: prompts, token ids, states at the head.

    head: a copy of its head, under which the states give its logits. vocabulary: how many each has.
    """

    cells: Mapping[Cell, tuple[list[Prompt], list[Tensor], list[Tensor]]]
    head: HeadRows
    vocabulary: int

    def save(self, path: Path) -> None:
        """Write it for other processes. Raises OSError."""
        tensors = {f"{HEAD}{name}": value for rows in self.head() for name, value in rows.items()}
        cells = []
        for at, ((set_, modality), (prompts, answers, states)) in enumerate(self.cells.items()):
            cells.append([set_, modality, [prompt.id for prompt in prompts], len(states)])
            tensors |= {f"{at}.answer.{number}": answer for number, answer in enumerate(answers)}
            tensors |= {f"{at}.states.{number}": part for number, part in enumerate(states)}
        metadata = {"cells": json.dumps(cells), "vocabulary": str(self.vocabulary)}
        with replacing(path) as fresh:
            save_file({name: value.contiguous() for name, value in tensors.items()}, fresh, metadata)

    @classmethod
    def load(cls, path: Path, prompts: Sequence[Prompt]) -> "Reference":
        """What `save` wrote. prompts: those that it speaks of, and others."""
        known = {prompt.id: prompt for prompt in prompts}
        with safe_open(path, framework="pt") as file:
            metadata, held = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        cells = {}
        for at, (set_, modality, ids, parts) in enumerate(json.loads(metadata["cells"])):
            answers = [held[f"{at}.answer.{number}"] for number in range(len(ids))]
            states = [held[f"{at}.states.{number}"] for number in range(parts)]
            cells[set_, modality] = ([known[each] for each in ids], answers, states)
        head = {name.removeprefix(HEAD): value for name, value in held.items() if name.startswith(HEAD)}
        return cls(cells, lambda: iter([head]), int(metadata["vocabulary"]))

    @classmethod
    def of(cls, chat: ChatModel, prompts: Sequence[Prompt], records: Mapping[str, CompletionRecord]) -> "Reference":
        """The reference of the adapted model `chat`.

        records: prompt id -> its completion; prompts that are harmful, or whose completion is empty, have no part.
        """
        made = {}
        for cell, members in _cells(prompts).items():
            answers = {p.id: ids for p in members if (ids := _ids(chat, records[p.id].text)) is not None}
            kept = evenly_spaced([prompt for prompt in members if prompt.id in answers], MAX_KL_PROMPTS)
            if kept:
                own = [answers[prompt.id] for prompt in kept]
                states = answer_states(chat, scored_answers(chat, kept, own))
                made[cell] = (kept, own, [part.cpu() for part in states])
        return cls(made, head_copy(chat, "cpu"), vocabulary_size(chat))


def divergences(
    chat: ChatModel, prompts: Sequence[Prompt], reference: Reference | None, is_reference: bool
) -> dict[Cell, Divergence]:
    """Per cell the mean KL(adapted || this model) per answer token of the adapted model, or the reason for none.

    prompts: what this model is asked. is_reference: whether it is the adapted model.
    """
    cells = {(prompt.set, prompt.modality): None for prompt in prompts}
    return {cell: _divergence(chat, reference, is_reference, cell) for cell in cells}


def _divergence(chat: ChatModel, reference: Reference | None, is_reference: bool, cell: Cell) -> Divergence:
    if is_reference:
        return 0.0, None
    if reference is None:
        return None, "the adapted model was not evaluated beside it"
    if cell not in reference.cells:
        return None, "measured on prompts that the adapted model should go on answering"
    if vocabulary_size(chat) != reference.vocabulary:
        return None, "its vocabulary is not the adapted model's"
    prompts, answers, states = reference.cells[cell]
    scored = scored_answers(chat, prompts, answers)
    return mean_divergence(chat, scored, states, reference.head), None


def _cells(prompts: Sequence[Prompt]) -> dict[Cell, list[Prompt]]:
    cells: dict[Cell, list[Prompt]] = {}
    for prompt in prompts:
        if prompt.set not in HARMFUL_SETS:
            cells.setdefault((prompt.set, prompt.modality), []).append(prompt)
    return cells


def _ids(chat: ChatModel, text: str) -> Tensor | None:
    """The first tokens of an answer; None where it is empty."""
    ids = chat.tokenizer(text.removeprefix(chat.open_thought), add_special_tokens=False)["input_ids"][:MAX_KL_TOKENS]
    return torch.tensor(ids) if ids else None
