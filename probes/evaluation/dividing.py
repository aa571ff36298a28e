"""An evaluation divided among the workers of an engine, by model and prompts: each loads one model at a time."""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path
from typing import Final

from vlsurgery.probes.evaluation.completion_store import CompletionStore, Said
from vlsurgery.probes.evaluation.divergence import Reference, divergences
from vlsurgery.probes.evaluation.generate import BATCH, complete
from vlsurgery.probes.evaluation.subjects import Subject, SubjectRef
from vlsurgery.probes.evaluation.tabulate import Cell, Divergence
from vlsurgery.probes.models import ChatModel, Loader, quiet_transformers
from vlsurgery.probes.prompts import Prompt
from vlsurgery.probes.results import CompletionRecord
from vlsurgery.surgery.runtime.engine import Engine
from vlsurgery.surgery.runtime.progress import Progress, no_progress
from vlsurgery.surgery.runtime.worker_pool import cores

SHARDS_EACH: Final = 4  # of a worker, at least: the last one that is waited for is then a small part of all


@dataclass(frozen=True)
class PromptShard:
    """Prompts that one model is asked at once. subject: its number."""

    subject: int
    prompts: tuple[Prompt, ...]


@dataclass(frozen=True)
class ModelEnd:
    """What is left to measure of a model once it is loaded: its KL from the adapted model.

    prompts: that were asked. reference: the file of the adapted model's answers; None where it is not evaluated.
    answers: of the adapted model itself, which is to write that file; None for others.
    """

    subject: int
    prompts: tuple[Prompt, ...]
    reference: Path | None
    answers: Mapping[str, CompletionRecord] | None = None


@dataclass(frozen=True)
class ModelFound:
    """What a worker found. shard: the prompts that it was given; said: prompt id -> what the model said to it."""

    subject: int
    notes: tuple[str, ...]
    shard: tuple[Prompt, ...] = ()
    said: Mapping[str, Said] = field(default_factory=dict)
    divergences: Mapping[Cell, Divergence] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelAsker:
    """Called once in a worker's process, it returns the function that asks models. tokens: of a completion, at most."""

    subjects: tuple[SubjectRef, ...]
    loader: Loader
    tokens: int

    def __call__(self) -> Callable[[PromptShard | ModelEnd], Iterator[ModelFound]]:
        import torch

        torch.set_num_threads(cores())  # The process is the worker's own.
        quiet_transformers()
        return _Seat(self).do


class _Seat:
    """One worker's place for a model: the one that it was last asked for."""

    def __init__(self, asker: ModelAsker) -> None:
        self._asker = asker
        self._number: int | None = None
        self._chat: ChatModel | None = None
        self._state = ExitStack()

    def do(self, item: PromptShard | ModelEnd) -> Iterator[ModelFound]:
        chat = self._model(item.subject)
        asked = chat.answerable(item.prompts)
        if isinstance(item, PromptShard):
            written = complete(chat, asked, "", tokens=self._asker.tokens)
            said = [Said(each.text, len(each.ids), not each.finished) for each in written]
            found = dict(zip([prompt.id for prompt in asked], said, strict=True))
            yield ModelFound(item.subject, tuple(chat.notes), item.prompts, found)
        else:
            measured = _divergences(chat, asked, item)
            yield ModelFound(item.subject, tuple(chat.notes), divergences=measured)

    def _model(self, number: int) -> ChatModel:
        """The model of a subject; the one before it is let go first, so that no two are in memory at once."""
        if self._chat is None or self._number != number:
            self._state.close()
            self._chat = None
            chat, state = self._asker.subjects[number].reopen().open(self._asker.loader)
            self._state.enter_context(state)
            self._chat, self._number = chat, number
        return self._chat


def _divergences(chat: ChatModel, asked: Sequence[Prompt], item: ModelEnd) -> dict[Cell, Divergence]:
    if item.answers is not None:
        assert item.reference is not None  # `answers_by` gives both.
        Reference.of(chat, asked, item.answers).save(item.reference)
        return divergences(chat, asked, None, is_reference=True)
    reference = None if item.reference is None else Reference.load(item.reference, item.prompts)
    return divergences(chat, asked, reference, is_reference=False)


@dataclass
class SubjectAnswers:
    """What is known of a subject beside its completions.

    kept: how many completions were there before. left_out: ids of prompts that it can't take.
    """

    kept: int
    left_out: set[str] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)
    divergences: dict[Cell, Divergence] = field(default_factory=dict)


def answers_by(
    engine: Engine,
    subjects: Sequence[Subject],
    report: Sequence[Prompt],
    store: CompletionStore,
    loader: Loader,
    reference: Path,
    progress: Progress = no_progress,
) -> list[SubjectAnswers]:
    """Ask subjects the prompts that the store lacks, on an engine's workers; what else was found of each, in order.

    reference: where the adapted model's answers are put for the workers; an absolute path.
    """
    divided = _Division(engine, subjects, [prompt.findable() for prompt in report], store, loader, reference)
    missing = sum(len(divided.missing(number)) for number in range(len(subjects)))
    label = f"asking {', '.join(subject.role for subject in subjects)}"
    with closing(divided.answered()) as answered:
        for _ in progress(answered, label, missing):
            pass
    return divided.found


class _Division:
    """An evaluation while it is divided. found: of each subject, in their order."""

    def __init__(
        self,
        engine: Engine,
        subjects: Sequence[Subject],
        report: Sequence[Prompt],
        store: CompletionStore,
        loader: Loader,
        reference: Path,
    ) -> None:
        self.engine = engine
        self.subjects = subjects
        self.report = report
        self.store = store
        self.reference = reference
        self.asker = ModelAsker(tuple(map(SubjectRef.of, subjects)), loader, store.tokens)
        self.found = [SubjectAnswers(len(report) - len(self.missing(at))) for at in range(len(subjects))]

    def missing(self, number: int) -> list[Prompt]:
        """The prompts that a subject is still to be asked."""
        return self.store.missing(self.subjects[number].identity, self.report)

    def answered(self) -> Generator[Prompt, None, None]:
        """The prompts as they are answered; by the adapted model first, as KL is measured from its answers."""
        adapted = [at for at, subject in enumerate(self.subjects) if subject.role == "adapted"]
        others = [at for at in range(len(self.subjects)) if at not in adapted]
        for number in adapted:
            yield from self._done(self._shards(number))
            yield from self._done([self._reference_end(number)])
        written = self.reference if adapted else None
        items = list[PromptShard | ModelEnd]()
        for number in others:
            items += [*self._shards(number), ModelEnd(number, tuple(self.report), written)]
        yield from self._done(items)

    def _shards(self, number: int) -> list[PromptShard]:
        missing = self.missing(number)
        workers = max(1, self.engine.num_workers(len(missing)))
        size = shard_size(len(missing), workers)
        return [PromptShard(number, tuple(missing[at : at + size])) for at in range(0, len(missing), size)]

    def _reference_end(self, number: int) -> ModelEnd:
        """Of the adapted model, once it was asked everything."""
        subject = self.subjects[number]
        asked = [prompt for prompt in self.report if prompt.id not in self.found[number].left_out]
        records = self.store.of(subject.role, subject.identity, asked)
        return ModelEnd(number, tuple(asked), self.reference, {record.id: record for record in records})

    def _done(self, items: Sequence[PromptShard | ModelEnd]) -> Generator[Prompt, None, None]:
        """Do items, and keep what comes; the prompts that were answered or can't be."""
        with closing(self.engine.map(self.asker, items)) as results:
            for result in results:
                subject, found = self.subjects[result.subject], self.found[result.subject]
                answered = [prompt for prompt in result.shard if prompt.id in result.said]
                said = [result.said[prompt.id] for prompt in answered]
                self.store.add(subject.role, subject.identity, answered, said)
                found.left_out |= {prompt.id for prompt in result.shard} - result.said.keys()
                found.notes += [note for note in result.notes if note not in found.notes]
                found.divergences |= result.divergences
                yield from result.shard


def shard_size(prompts: int, workers: int) -> int:
    """How many prompts of one model are a worker's next task."""
    return max(1, min(BATCH, ceil(prompts / (SHARDS_EACH * workers))))
