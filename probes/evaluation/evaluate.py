"""Behaviour of models on `report` prompts: completions, verdicts, and rates with intervals."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import get_args

import torch
from torch import Tensor

from vlsurgery.probes.evaluation.generate import Completion, complete
from vlsurgery.probes.evaluation.intervals import rate
from vlsurgery.probes.evaluation.judges import JUDGE, is_right, judge
from vlsurgery.probes.evaluation.paired import paired_difference
from vlsurgery.probes.in_memory_merge import InMemoryMerge
from vlsurgery.probes.models import ChatModel, load
from vlsurgery.probes.prompts import HARMFUL_SETS, SETS, Modality, Prompt
from vlsurgery.probes.results import BehaviourResult, BehaviourRow, Paired, Rate
from vlsurgery.probes.scoring import log_probabilities, mean_divergence, scored_answers
from vlsurgery.probes.targets import evenly_spaced
from vlsurgery.surgery.alignment import align
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.runtime.progress import Progress, no_progress

MODALITIES: tuple[Modality, ...] = get_args(Modality)
MAX_KL_PROMPTS = 64  # per cell
MAX_KL_TOKENS = 16  # of each answer, from its start
COMPARISONS = (
    ("adapted", "base"),
    ("safety", "adapted"),
    ("merged", "adapted"),
    ("merged", "safety"),
    ("merged", "merged:uniform"),
)

Cell = tuple[str, str]  # set, modality


@dataclass(frozen=True)
class Subject:
    """A model whose behaviour is measured.

    coefficients: block -> source -> coefficient; where set, `checkpoint` is merged with `sources` in memory
    (the graft, or a merge that was not written).
    """

    role: str
    checkpoint: Checkpoint
    coefficients: Mapping[str, Mapping[str, float]] | None = None
    sources: Mapping[str, Checkpoint] = field(default_factory=dict)

    def open(self) -> tuple[ChatModel, AbstractContextManager[object]]:
        """The loaded checkpoint, and the context in which the coefficients are applied to it."""
        chat = load(self.checkpoint)
        if self.coefficients is None:
            return chat, nullcontext()
        live = InMemoryMerge(chat, align({"adapted": self.checkpoint, **self.sources}), tuple(self.sources))
        return chat, live.at(self.coefficients)


def graft(adapted: Checkpoint, base: Checkpoint) -> Subject:
    """The base LLM with the adapted model's vision tower, projector and added vocabulary rows."""
    blocks = {pair.site.block for pair in align({"adapted": adapted, "base": base}).pairs if pair.site.tower == "text"}
    return Subject("graft", adapted, {block: {"base": 1.0} for block in blocks if block}, {"base": base})


@dataclass(frozen=True)
class _JudgedAnswers:
    """One subject's answers: prompt id -> (verdict, right or None)."""

    judged: dict[str, tuple[str, bool | None]]

    def outcomes(self, prompts: Sequence[Prompt], measure: str) -> list[bool]:
        if measure == "right":
            return [bool(self.judged[prompt.id][1]) for prompt in prompts]
        return [self.judged[prompt.id][0] == measure for prompt in prompts]


@dataclass(frozen=True)
class _Reference:
    """The adapted model's own answers per cell, from which KL is measured: prompts, token ids, log-probabilities."""

    cells: dict[Cell, tuple[list[Prompt], list[Tensor], list[Tensor]]]
    vocabulary: int


def evaluate(
    subjects: Sequence[Subject], prompts: Sequence[Prompt], looks: int, progress: Progress = no_progress
) -> BehaviourResult:
    """Behaviour of each subject on the `report` prompts that it can be asked.

    looks: how often this case looked at `report`, this time included.
    """
    report = [prompt for prompt in prompts if prompt.split == "report"]
    cells = _cells(report)
    measured: dict[str, _Measured] = {}
    reference: _Reference | None = None
    for subject in sorted(subjects, key=lambda subject: subject.role != "adapted"):
        measured[subject.role], reference = _measure(subject, report, cells, reference, progress)
    return BehaviourResult(
        records=[row for subject in subjects for row in measured[subject.role].rows],
        paired=_compare(cells, {role: each.answers for role, each in measured.items()}),
        judges=[JUDGE],
        looks=looks,
        notes=[note for subject in subjects for note in measured[subject.role].notes],
    )


@dataclass(frozen=True)
class _Measured:
    """Answers, rows and notes of one subject."""

    answers: _JudgedAnswers
    rows: list[BehaviourRow]
    notes: list[str]


def _measure(
    subject: Subject,
    report: Sequence[Prompt],
    cells: Mapping[Cell, Sequence[Prompt]],
    reference: _Reference | None,
    progress: Progress,
) -> tuple[_Measured, _Reference | None]:
    """Measure one subject. Its model is local to this function, so that no two are in memory at once."""
    chat, state = subject.open()
    with state:
        asked = chat.answerable(report)
        written = complete(chat, asked, f"asking {subject.role}", progress)
        answers = _judged_answers(asked, written)
        if subject.role == "adapted":
            reference = _reference(chat, cells, {p.id: each for p, each in zip(asked, written, strict=True)})
        divergence = _divergence(chat, reference, subject.role)
        rows = [
            _row(subject.role, cell, members, answers, divergence(cell))
            for cell, members in cells.items()
            if all(prompt.id in answers.judged for prompt in members)
        ]
    notes = list(chat.notes)
    if len(asked) < len(report):
        notes.append(f"{subject.role} does not see: {len(report) - len(asked)} prompts with pictures were left out")
    return _Measured(answers, rows, notes), reference


def _cells(prompts: Sequence[Prompt]) -> dict[Cell, list[Prompt]]:
    cells = {
        (set_, modality): [p for p in prompts if (p.set, p.modality) == (set_, modality)]
        for set_ in SETS
        for modality in MODALITIES
    }
    return {cell: members for cell, members in cells.items() if members}


def _judged_answers(prompts: Sequence[Prompt], written: Sequence[Completion]) -> _JudgedAnswers:
    return _JudgedAnswers(
        {
            prompt.id: (judge(each.text, prompt), None if prompt.answer is None else is_right(each.text, prompt.answer))
            for prompt, each in zip(prompts, written, strict=True)
        }
    )


def _row(
    role: str, cell: Cell, members: Sequence[Prompt], answers: _JudgedAnswers, kl: tuple[float | None, str | None]
) -> BehaviourRow:
    requests = [prompt.request for prompt in members]

    def rate_of(measure: str) -> Rate:
        return rate(answers.outcomes(members, measure), requests)

    has_answers = all(prompt.answer is not None for prompt in members)
    return BehaviourRow(
        role=role,
        set=cell[0],
        modality=cell[1],
        refused=rate_of("refused"),
        complied=rate_of("complied"),
        neither=rate_of("neither"),
        right=rate_of("right") if has_answers else Rate(rate=None, reason="these prompts have no one right answer"),
        kl=kl[0],
        kl_reason=kl[1],
    )


def _reference(
    chat: ChatModel, cells: Mapping[Cell, Sequence[Prompt]], written: Mapping[str, Completion]
) -> _Reference:
    made = {}
    for cell, members in cells.items():
        kept = evenly_spaced([prompt for prompt in members if prompt.id in written], MAX_KL_PROMPTS)
        if cell[0] not in HARMFUL_SETS and kept:
            own = [torch.tensor(written[prompt.id].ids[:MAX_KL_TOKENS]) for prompt in kept]
            made[cell] = (kept, own, [part.cpu() for part in log_probabilities(chat, scored_answers(chat, kept, own))])
    return _Reference(made, chat.model.get_output_embeddings().weight.shape[0])  # type: ignore[operator]


def _divergence(
    chat: ChatModel, reference: _Reference | None, role: str
) -> Callable[[Cell], tuple[float | None, str | None]]:
    """A function from cell to mean KL(adapted || this model) per answer token of the adapted model, or to a reason."""

    def of(cell: Cell) -> tuple[float | None, str | None]:
        if role == "adapted":
            return 0.0, None
        if reference is None:
            return None, "the adapted model was not evaluated beside it"
        if cell not in reference.cells:
            return None, "measured on prompts that the adapted model should go on answering"
        if chat.model.get_output_embeddings().weight.shape[0] != reference.vocabulary:  # type: ignore[operator]
            return None, "its vocabulary is not the adapted model's"
        prompts, answers, log_p = reference.cells[cell]
        return mean_divergence(
            chat, scored_answers(chat, prompts, answers), [part.to(chat.device) for part in log_p]
        ), None

    return of


def _compare(cells: Mapping[Cell, Sequence[Prompt]], answers: Mapping[str, _JudgedAnswers]) -> list[Paired]:
    """Paired differences between roles: refusals on harmful sets, right answers on the others."""
    made = []
    for role, against in COMPARISONS:
        if role not in answers or against not in answers:
            continue
        for cell, members in cells.items():
            measure = "refused" if cell[0] in HARMFUL_SETS else "right"
            both = [p for p in members if p.id in answers[role].judged and p.id in answers[against].judged]
            if not both or (measure == "right" and any(prompt.answer is None for prompt in both)):
                continue
            requests = [prompt.request for prompt in both]
            test = paired_difference(
                answers[role].outcomes(both, measure), answers[against].outcomes(both, measure), requests
            )
            made.append(
                Paired(
                    role=role,
                    against=against,
                    set=cell[0],
                    modality=cell[1],
                    measure=measure,
                    difference=test.value,
                    low=test.low,
                    high=test.high,
                    p=test.p,
                    requests=len(set(requests)),
                )
            )
    return made
