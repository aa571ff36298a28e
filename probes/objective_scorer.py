"""Prompts of one split, encoded once, by which a live model is measured against the objective."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vlsurgery.probes.models import ChatModel
from vlsurgery.probes.objective import Cell, Floats, Purpose, Requirements, requirements
from vlsurgery.probes.prompts import Prompt
from vlsurgery.probes.results import TradeoffCell
from vlsurgery.probes.scoring import OpeningOdds, RefusalChoices, refusal_choices, scored_answers
from vlsurgery.probes.targets import OPENING_TOKENS, WorkingSet, evenly_spaced, part_somewhere
from vlsurgery.surgery.errors import SurgeryError

JUDGED_SET: Final = "capability"  # the set whose answers can be right or wrong


@dataclass(frozen=True)
class MaxPrompts:
    """How many prompts of each purpose are scored, at most."""

    refuse: int
    answer: int
    keep: int


MAX_FIT: Final = MaxPrompts(256, 256, 192)
MAX_SELECT: Final = MaxPrompts(128, 128, 96)


@dataclass(frozen=True)
class Readings:
    """What a model does on n prompts. z: [n] log-odds. good: [n] whether what is wanted of it is the likeliest."""

    z: Floats
    good: NDArray[np.bool_]


@dataclass(frozen=True)
class Contrast:
    """A prompt with a refusal and an answer to it, which part somewhere."""

    prompt: Prompt
    refusal: Tensor
    answer: Tensor
    purpose: Purpose


@dataclass(frozen=True)
class ObjectivePrompts:
    """The prompts that a model is measured on, with what is compared, as plain data.

    contrasts: where a refusal is told from an answer. kept: with the opening of the adapted model's own answer.
    """

    contrasts: tuple[Contrast, ...]
    kept: tuple[tuple[Prompt, Tensor], ...]

    @classmethod
    def of(cls, working: WorkingSet, split: str, most: MaxPrompts) -> "ObjectivePrompts":
        """Of the working set of one split. Raises SurgeryError where a refusal can't be told from an answer, or the
        other way round."""
        contrasts = _to_refuse(working, most.refuse) + _to_answer(working, most.answer)
        if not contrasts:
            raise SurgeryError(
                f"there is nothing to choose coefficients by: no refusal of the base is told apart from an answer of "
                f"the adapted model on the {split} prompts. Give other prompts with --prompts, or other checkpoints."
            )
        kept = evenly_spaced([(p, a[:OPENING_TOKENS]) for p, a in working.keep if p.set == JUDGED_SET], most.keep)
        return cls(tuple(contrasts), tuple(kept))

    def findable(self) -> "ObjectivePrompts":
        """The same, with pictures that are found from any directory."""
        contrasts = tuple(replace(each, prompt=each.prompt.findable()) for each in self.contrasts)
        return ObjectivePrompts(contrasts, tuple((prompt.findable(), answer) for prompt, answer in self.kept))

    def encoded(self, chat: ChatModel) -> tuple[list[RefusalChoices], list[OpeningOdds]]:
        """Batches in the tokens of a model, which is the adapted one or a merge of it."""
        asked, kept = self.contrasts, self.kept
        choices = refusal_choices(
            chat, [c.prompt for c in asked], [c.refusal for c in asked], [c.answer for c in asked]
        )
        answers = scored_answers(chat, [prompt for prompt, _ in kept], [answer for _, answer in kept]) if kept else []
        return choices, [OpeningOdds.of(batch, len(asked)) for batch in answers]

    def unmeasured(self) -> Requirements:
        """What is wanted of each, with log-odds of 0 as the reference."""
        rows = [(c.prompt.id, c.prompt.request, _cell(c.prompt), c.purpose) for c in self.contrasts]
        rows += [(prompt.id, prompt.request, _cell(prompt), "keep") for prompt, _ in self.kept]
        return requirements(rows, np.zeros(len(rows)))


@dataclass(frozen=True)
class ObjectiveScorer:
    """Batches of prompts with what is wanted of each.

    choices: those whose refusal log-odds are read. openings: those whose own answer is. Owners count through both.
    """

    wanted: Requirements
    choices: Sequence[RefusalChoices]
    openings: Sequence[OpeningOdds]

    @classmethod
    def of(cls, chat: ChatModel, working: WorkingSet, split: str, most: MaxPrompts) -> "ObjectiveScorer":
        """Of the working set of one split. chat: the adapted model. Raises SurgeryError as `ObjectivePrompts.of`."""
        return cls.over(chat, ObjectivePrompts.of(working, split, most))

    @classmethod
    def over(cls, chat: ChatModel, asked: ObjectivePrompts) -> "ObjectiveScorer":
        """Of prompts. chat: the adapted model, whose log-odds become the reference."""
        unmeasured = cls(asked.unmeasured(), *asked.encoded(chat))
        reference = unmeasured.measure(chat).z
        return replace(unmeasured, wanted=replace(unmeasured.wanted, reference=reference))

    @property
    def batches(self) -> list[RefusalChoices | OpeningOdds]:
        return [*self.choices, *self.openings]

    @property
    def prompts(self) -> int:
        return len(self.wanted.prompts)

    def measure(self, chat: ChatModel) -> Readings:
        """What the live model does now: one forward pass of every prompt. Raises SurgeryError where a prompt's log-odds
        are no number."""
        z = np.zeros(self.prompts)
        good = np.zeros(self.prompts, dtype=np.bool_)
        with torch.no_grad():
            for choice in self.choices:
                owner = choice.owner.cpu().numpy()
                z[owner] = choice.log_odds(chat).double().cpu().numpy()
                good[owner] = self.wanted.sign[owner] * z[owner] > 0
            for opening in self.openings:
                owner = opening.owner.cpu().numpy()
                odds, matches = opening.log_odds_and_matches(chat)
                z[owner], good[owner] = odds.double().cpu().numpy(), matches.cpu().numpy()
        if not np.isfinite(z).all():
            lost = self.wanted.prompts[int(np.argmin(np.isfinite(z)))]
            raise SurgeryError(
                f"prompt {lost}: the merged model's log-odds are no finite number. Its weights overflow: run it in "
                "another --dtype (float32), or look for the tensor with vlsurgery diff."
            )
        return Readings(z, good)

    def cells(self, measured: Readings) -> list[TradeoffCell]:
        """What was measured, cell by cell."""
        wanted, rows = self.wanted, []
        numbers = (wanted.mean(measured.z), wanted.mean(measured.good.astype(np.float64)), wanted.losses(measured.z))
        for at, (set_, modality) in enumerate(wanted.names):
            purpose = wanted.cell_purposes[at]
            log_odds, good, loss = (float(values[at]) for values in numbers)
            requests = {r for r, cell in zip(wanted.requests, wanted.cells, strict=True) if cell == (set_, modality)}
            rows.append(
                TradeoffCell(
                    set=set_,
                    modality=modality,
                    purpose=purpose,
                    n=wanted.cells.count((set_, modality)),
                    requests=len(requests),
                    log_odds=log_odds,
                    loss=loss,
                    refused={"refuse": good, "answer": 1 - good, "keep": None}[purpose],
                    kept=good if purpose == "keep" else None,
                )
            )
        return rows


def _cell(prompt: Prompt) -> Cell:
    return prompt.set, prompt.modality


def _to_refuse(working: WorkingSet, most: int) -> list[Contrast]:
    """Harmful prompts that the base refuses. Where the adapted model does not answer, the refusal is compared with the
    opening that most of its other answers have."""
    lost = {item.prompt.id: item.answer for item in working.lost}
    usual = _openings([item.answer for item in working.lost])
    found = []
    for prompt, refusal in working.refuse:
        answer = lost[prompt.id] if prompt.id in lost else _parting(refusal, usual)
        if answer is not None and part_somewhere(refusal, answer):
            found.append(Contrast(prompt, refusal, answer, "refuse"))
    return evenly_spaced(found, most)


def _to_answer(working: WorkingSet, most: int) -> list[Contrast]:
    """Harmless prompts that the adapted model answers, beside the opening that most of the base's refusals have."""
    usual = _openings([refusal for _, refusal in working.refuse])
    found = []
    for prompt, answer in working.keep:
        refusal = _parting(answer, usual) if prompt.set != JUDGED_SET else None
        if refusal is not None:
            found.append(Contrast(prompt, refusal, answer, "answer"))
    return evenly_spaced(found, most)


def _openings(completions: Sequence[Tensor]) -> list[Tensor]:
    """First tokens of completions, the most frequent first."""
    counted = Counter(tuple(ids[:OPENING_TOKENS].tolist()) for ids in completions)
    return [torch.tensor(opening) for opening, _ in counted.most_common()]


def _parting(completion: Tensor, openings: Sequence[Tensor]) -> Tensor | None:
    """The first of the openings that parts from a completion."""
    return next((opening for opening in openings if part_somewhere(completion, opening)), None)
