"""How models behave on `report` prompts: generate, judge, count, with intervals."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor

from vlsurgery.probes.evaluation.generate import Completion, complete
from vlsurgery.probes.evaluation.judges import JUDGE, is_right, judge
from vlsurgery.probes.evaluation.statistics import paired_difference, rate
from vlsurgery.probes.merging import InMemoryMerge
from vlsurgery.probes.models import ChatModel, load
from vlsurgery.probes.prompts import HARMFUL_SETS, SETS, Prompt
from vlsurgery.probes.results import BehaviourResult, BehaviourRow, Paired, Rate
from vlsurgery.probes.scoring import known, log_probabilities, mean_divergence
from vlsurgery.probes.targets import spread
from vlsurgery.surgery.alignment import align
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.runtime.progress import Progress, no_progress

MODALITIES = ("text", "blank", "noise", "benign", "own")
MOST_FOR_KL = 64
TOKENS_FOR_KL = 16
COMPARISONS = (
    ("adapted", "base"),
    ("safety", "adapted"),
    ("merged", "adapted"),
    ("merged", "safety"),
    ("merged", "merged:uniform"),
)

Cell = tuple[str, str]


@dataclass(frozen=True)
class Subject:
    """Whose behaviour is measured.

    coefficients: block -> source -> coefficient; where set, `checkpoint` is blended with `sources` in memory
    (the graft, or a merge that was not written).
    """

    role: str
    checkpoint: Checkpoint
    coefficients: Mapping[str, Mapping[str, float]] | None = None
    sources: Mapping[str, Checkpoint] = field(default_factory=dict)

    def open(self) -> tuple[ChatModel, AbstractContextManager[object]]:
        """The model, and the context in which it is this subject."""
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
class _Answers:
    """One subject's answers: prompt id -> (verdict, right or None)."""

    judged: dict[str, tuple[str, bool | None]]

    def outcomes(self, prompts: Sequence[Prompt], measure: str) -> list[bool]:
        if measure == "right":
            return [bool(self.judged[prompt.id][1]) for prompt in prompts]
        return [self.judged[prompt.id][0] == measure for prompt in prompts]


@dataclass(frozen=True)
class _Reference:
    """The adapted model's own answers and their distributions, cell by cell: what KL is measured from."""

    cells: dict[Cell, tuple[list[Prompt], list[Tensor], list[Tensor]]]
    vocabulary: int


def evaluate(
    subjects: Sequence[Subject], prompts: Sequence[Prompt], looks: int, progress: Progress = no_progress
) -> BehaviourResult:
    """Behaviour of each subject on the `report` prompts that it can be asked. looks: how often this was looked at."""
    report = [prompt for prompt in prompts if prompt.split == "report"]
    cells = _cells(report)
    looked: dict[str, _Looked] = {}
    reference: _Reference | None = None
    for subject in sorted(subjects, key=lambda subject: subject.role != "adapted"):
        looked[subject.role], reference = _look(subject, report, cells, reference, progress)
    return BehaviourResult(
        records=[row for subject in subjects for row in looked[subject.role].rows],
        paired=_compare(cells, {role: each.answers for role, each in looked.items()}),
        judge=JUDGE,
        looks=looks,
        notes=[note for subject in subjects for note in looked[subject.role].notes],
    )


@dataclass(frozen=True)
class _Looked:
    """What was seen of one subject."""

    answers: _Answers
    rows: list[BehaviourRow]
    notes: list[str]


def _look(
    subject: Subject,
    report: Sequence[Prompt],
    cells: Mapping[Cell, Sequence[Prompt]],
    reference: _Reference | None,
    progress: Progress,
) -> tuple[_Looked, _Reference | None]:
    """Ask one subject everything. Its model lives in here only, so that no two are ever held at once."""
    chat, state = subject.open()
    with state:
        asked = chat.answerable(report)
        written = complete(chat, asked, f"asking {subject.role}", progress)
        answers = _judge(asked, written)
        if subject.role == "adapted":
            reference = _refer(chat, cells, {p.id: each for p, each in zip(asked, written, strict=True)})
        divergence = _divergence(chat, reference, subject.role)
        rows = [
            _row(subject.role, cell, members, answers, divergence(cell))
            for cell, members in cells.items()
            if all(prompt.id in answers.judged for prompt in members)
        ]
    notes = list(chat.notes)
    if len(asked) < len(report):
        notes.append(f"{subject.role} does not see: {len(report) - len(asked)} prompts with pictures were left out")
    return _Looked(answers, rows, notes), reference


def _cells(prompts: Sequence[Prompt]) -> dict[Cell, list[Prompt]]:
    cells = {
        (set_, modality): [p for p in prompts if (p.set, p.modality) == (set_, modality)]
        for set_ in SETS
        for modality in MODALITIES
    }
    return {cell: members for cell, members in cells.items() if members}


def _judge(prompts: Sequence[Prompt], written: Sequence[Completion]) -> _Answers:
    return _Answers(
        {
            prompt.id: (judge(each.text, prompt), None if prompt.answer is None else is_right(each.text, prompt.answer))
            for prompt, each in zip(prompts, written, strict=True)
        }
    )


def _row(
    role: str, cell: Cell, members: Sequence[Prompt], answers: _Answers, kl: tuple[float | None, str | None]
) -> BehaviourRow:
    requests = [prompt.request for prompt in members]

    def share(measure: str) -> Rate:
        return rate(answers.outcomes(members, measure), requests)

    has_answers = all(prompt.answer is not None for prompt in members)
    return BehaviourRow(
        role=role,
        set=cell[0],
        modality=cell[1],
        refused=share("refused"),
        complied=share("complied"),
        neither=share("neither"),
        right=share("right") if has_answers else Rate(rate=None, reason="these prompts have no one right answer"),
        kl=kl[0],
        kl_reason=kl[1],
    )


def _refer(chat: ChatModel, cells: Mapping[Cell, Sequence[Prompt]], written: Mapping[str, Completion]) -> _Reference:
    made = {}
    for cell, members in cells.items():
        kept = spread([prompt for prompt in members if prompt.id in written], MOST_FOR_KL)
        if cell[0] not in HARMFUL_SETS and kept:
            own = [torch.tensor(written[prompt.id].ids[:TOKENS_FOR_KL]) for prompt in kept]
            made[cell] = (kept, own, [part.cpu() for part in log_probabilities(chat, known(chat, kept, own))])
    return _Reference(made, chat.model.get_output_embeddings().weight.shape[0])  # type: ignore[operator]


def _divergence(
    chat: ChatModel, reference: _Reference | None, role: str
) -> Callable[[Cell], tuple[float | None, str | None]]:
    """Cell -> mean KL(adapted || this model) over the adapted model's own answer tokens, or why there is none."""

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
        return mean_divergence(chat, known(chat, prompts, answers), [part.to(chat.device) for part in log_p]), None

    return of


def _compare(cells: Mapping[Cell, Sequence[Prompt]], answers: Mapping[str, _Answers]) -> list[Paired]:
    """Differences between roles on the same requests: refusals on harmful sets, right answers on the others."""
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
            value, low, high = paired_difference(
                answers[role].outcomes(both, measure), answers[against].outcomes(both, measure), requests
            )
            made.append(
                Paired(
                    role=role,
                    against=against,
                    set=cell[0],
                    modality=cell[1],
                    measure=measure,
                    difference=value,
                    low=low,
                    high=high,
                    requests=len(set(requests)),
                )
            )
    return made
