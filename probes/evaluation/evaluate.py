"""Behaviour of models on `report` prompts: each is loaded and asked, and what it says is kept and judged."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property

from vlsurgery.probes.evaluation.completion_store import CompletionStore, Said, asked_digest
from vlsurgery.probes.evaluation.completions import CompletionFile
from vlsurgery.probes.evaluation.concluding import conclude
from vlsurgery.probes.evaluation.divergence import Reference, divergences
from vlsurgery.probes.evaluation.generate import DEFAULT_TOKENS, Completion, complete
from vlsurgery.probes.evaluation.judges import STANDARD, Judge
from vlsurgery.probes.evaluation.tabulate import Cell, Divergence, Measured
from vlsurgery.probes.in_memory_merge import InMemoryMerge
from vlsurgery.probes.models import AS_FOUND, ChatModel, Loader
from vlsurgery.probes.prompts import Prompt
from vlsurgery.probes.results import BehaviourResult, CompletionRecord
from vlsurgery.surgery.alignment import align
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.errors import SurgeryError
from vlsurgery.surgery.runtime.progress import Progress, no_progress


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

    def open(self, loader: Loader = AS_FOUND) -> tuple[ChatModel, AbstractContextManager[object]]:
        """The loaded checkpoint, and the context in which the coefficients are applied to it."""
        chat = loader.load(self.checkpoint)
        if self.coefficients is None:
            return chat, nullcontext()
        live = InMemoryMerge(chat, align({"adapted": self.checkpoint, **self.sources}), tuple(self.sources))
        return chat, live.at(self.coefficients)

    @cached_property
    def identity(self) -> str:
        """What the model is made of, in 16 hexadecimal digits: the checkpoints' contents and the coefficients."""
        parts = {role: each.identity for role, each in {"": self.checkpoint, **self.sources}.items()}
        text = json.dumps([parts, self.coefficients], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def graft(adapted: Checkpoint, base: Checkpoint) -> Subject:
    """The base LLM with the adapted model's vision tower, projector and added vocabulary rows."""
    blocks = {pair.site.block for pair in align({"adapted": adapted, "base": base}).pairs if pair.site.tower == "text"}
    return Subject("graft", adapted, {block: {"base": 1.0} for block in blocks if block}, {"base": base})


@dataclass(frozen=True)
class Asking:
    """How models are asked and judged.

    judges: the first is the one that rates are made of. tokens: of a completion, at most. file: where completions are
    kept as they are made, and from which those of the same models and prompts are taken; None keeps them in memory.
    imported: completions that were made elsewhere, which are judged and counted beside; no_divergence: role -> why
    there is no KL of it. loader: how checkpoints are loaded.
    """

    judges: Sequence[Judge] = (STANDARD,)
    tokens: int = DEFAULT_TOKENS
    file: CompletionFile | None = None
    imported: Sequence[CompletionRecord] = ()
    progress: Progress = no_progress
    loader: Loader = AS_FOUND
    no_divergence: Mapping[str, str] = field(default_factory=dict)


def evaluate(
    subjects: Sequence[Subject], prompts: Sequence[Prompt], looks: int, asking: Asking | None = None
) -> BehaviourResult:
    """Behaviour of each subject on the `report` prompts that it can be asked; one model in memory at a time.

    looks: how often this case looked at `report`, this time included.

    Raises SurgeryError where there are no prompts, or a judge fails; completions that were written are kept.
    """
    asking = asking or Asking()
    report = [prompt for prompt in prompts if prompt.split == "report"]
    if subjects and not report:
        raise SurgeryError(
            f"none of the {len(prompts)} prompts is in the report split, so there is nothing to ask. Give more prompts."
        )
    interview = _Interview(report, asking)
    for subject in sorted(subjects, key=lambda subject: subject.role != "adapted"):
        interview.ask(subject)
    records = [record for subject in subjects for record in interview.records[subject.role]]
    notes = [note for subject in subjects for note in interview.notes[subject.role]]
    measured = Measured(interview.divergences, looks, notes, asking.no_divergence)
    return conclude([*records, *asking.imported], asking.judges, asking.tokens, measured, asking.file, asking.progress)


class _Interview:
    """What the models said so far. records, divergences, notes: by role."""

    def __init__(self, report: Sequence[Prompt], asking: Asking) -> None:
        self.report = report
        self.asking = asking
        digest = asked_digest(report, asking.loader.thinking)
        self.store = CompletionStore(digest, asking.tokens, asking.file)
        self.records: dict[str, list[CompletionRecord]] = {}
        self.divergences: dict[str, dict[Cell, Divergence]] = {}
        self.notes: dict[str, list[str]] = {}
        self._reference: Reference | None = None

    def ask(self, subject: Subject) -> None:
        """Ask one subject. Its model is local to this function, so that no two are in memory at once."""
        chat, state = subject.open(self.asking.loader)
        asked = chat.answerable(self.report)
        with state:
            missing = self.store.missing(subject.identity, asked)
            complete(
                chat,
                missing,
                f"asking {subject.role}",
                self.asking.progress,
                self.asking.tokens,
                written=lambda prompts, completions: self._keep(subject, prompts, completions),
            )
            records = self.store.of(subject.role, subject.identity, asked)
            self.records[subject.role] = records
            is_reference = subject.role == "adapted"
            if is_reference:
                self._reference = Reference.of(chat, asked, {record.id: record for record in records})
            self.divergences[subject.role] = divergences(chat, asked, self._reference, is_reference)
        self.notes[subject.role] = self._notes(subject, chat, len(asked), len(asked) - len(missing))

    def _notes(self, subject: Subject, chat: ChatModel, asked: int, kept: int) -> list[str]:
        notes = list(chat.notes)
        if asked < len(self.report):
            left = len(self.report) - asked
            notes.append(f"{subject.role} does not see: {left} prompts with pictures were left out")
        if kept and self.asking.file is not None:
            notes.append(f"{subject.role}: {kept} of {asked} completions were there already, of the same model")
        return notes

    def _keep(self, subject: Subject, prompts: Sequence[Prompt], completions: Sequence[Completion]) -> None:
        said = [Said(each.text, len(each.ids), not each.finished) for each in completions]
        self.store.add(subject.role, subject.identity, prompts, said)
