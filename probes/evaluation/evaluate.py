"""Behaviour of models on `report` prompts: each is loaded and asked, and what it says is kept and judged."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from vlsurgery.probes.evaluation.completion_store import CompletionStore, Said, asked_digest
from vlsurgery.probes.evaluation.completions import CompletionFile
from vlsurgery.probes.evaluation.concluding import conclude
from vlsurgery.probes.evaluation.divergence import Reference, divergences
from vlsurgery.probes.evaluation.dividing import answers_by
from vlsurgery.probes.evaluation.generate import DEFAULT_TOKENS, Completion, complete
from vlsurgery.probes.evaluation.judges import STANDARD, Judge
from vlsurgery.probes.evaluation.subjects import Subject
from vlsurgery.probes.evaluation.tabulate import Cell, Divergence, Measured
from vlsurgery.probes.models import AS_FOUND, Loader
from vlsurgery.probes.prompts import Prompt
from vlsurgery.probes.results import BehaviourResult, CompletionRecord
from vlsurgery.surgery.errors import SurgeryError
from vlsurgery.surgery.runtime.engine import Engine
from vlsurgery.surgery.runtime.progress import Progress, no_progress


@dataclass(frozen=True)
class Asking:
    """How models are asked and judged.

    judges: the first is the one that rates are made of. tokens: of a completion, at most. file: where completions are
    kept as they are made, and from which those of the same models and prompts are taken; None keeps them in memory.
    imported: completions that were made elsewhere, which are judged and counted beside; no_divergence: role -> why
    there is no KL of it. loader: how checkpoints are loaded. engine: whose workers are asked, each with a model of its
    own; None: this process asks one model after another. What they say is the same.
    """

    judges: Sequence[Judge] = (STANDARD,)
    tokens: int = DEFAULT_TOKENS
    file: CompletionFile | None = None
    imported: Sequence[CompletionRecord] = ()
    progress: Progress = no_progress
    loader: Loader = AS_FOUND
    no_divergence: Mapping[str, str] = field(default_factory=dict)
    engine: Engine | None = None


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
    if asking.engine is not None:
        interview.ask_by(asking.engine, subjects)
    else:
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
        self.notes[subject.role] = self._notes(subject, chat.notes, len(asked), len(asked) - len(missing))

    def ask_by(self, engine: Engine, subjects: Sequence[Subject]) -> None:
        """Ask all subjects by an engine's workers."""
        with _file_for_workers(self.asking.file) as reference:
            found = answers_by(
                engine, subjects, self.report, self.store, self.asking.loader, reference, self.asking.progress
            )
        for subject, each in zip(subjects, found, strict=True):
            asked = [prompt for prompt in self.report if prompt.id not in each.left_out]
            self.records[subject.role] = self.store.of(subject.role, subject.identity, asked)
            self.divergences[subject.role] = each.divergences
            self.notes[subject.role] = self._notes(subject, each.notes, len(asked), each.kept)

    def _notes(self, subject: Subject, told: Sequence[str], asked: int, kept: int) -> list[str]:
        notes = list(told)
        if asked < len(self.report):
            left = len(self.report) - asked
            notes.append(f"{subject.role} does not see: {left} prompts with pictures were left out")
        if kept and self.asking.file is not None:
            notes.append(f"{subject.role}: {kept} of {asked} completions were there already, of the same model")
        return notes

    def _keep(self, subject: Subject, prompts: Sequence[Prompt], completions: Sequence[Completion]) -> None:
        said = [Said(each.text, len(each.ids), not each.finished) for each in completions]
        self.store.add(subject.role, subject.identity, prompts, said)


@contextmanager
def _file_for_workers(beside: CompletionFile | None) -> Iterator[Path]:
    """Where workers find the adapted model's answers: beside the completions, else where this machine alone sees it."""
    if beside is None:
        with TemporaryDirectory(prefix="vlsurgery-") as folder:
            yield Path(folder) / "reference.safetensors"
        return
    path = beside.path.absolute()
    reference = path.with_name(f".{path.name}.reference.safetensors")
    try:
        yield reference
    finally:
        reference.unlink(missing_ok=True)
