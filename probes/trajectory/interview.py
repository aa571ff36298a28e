"""What the models of a training run give, one after the other: log-odds of refusing, and what completions do."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256

from vlsurgery.probes.evaluation.generate import BATCH, Completion, complete
from vlsurgery.probes.evaluation.intervals import rate
from vlsurgery.probes.evaluation.mean_intervals import mean_estimate
from vlsurgery.probes.models import AS_FOUND, ChatModel, Loader
from vlsurgery.probes.models.dtypes import device_of, run_dtype
from vlsurgery.probes.prompts import Prompt, prompts_digest
from vlsurgery.probes.results import Estimate, Label, Rate, Verdict
from vlsurgery.probes.targets import without_picture
from vlsurgery.probes.trajectory.base_completions import Answering, BaseCompletions, requests_alone
from vlsurgery.probes.trajectory.kept import KeptCompletion, KeptCompletions, KeptRun, ModelOdds
from vlsurgery.probes.trajectory.openings import opening_log_odds
from vlsurgery.probes.trajectory_results import RefusalPoint, RunPoint
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.runtime.progress import Progress

SHOWN_OPENINGS = 12
LABELS: tuple[Label, ...] = ("refused", "complied", "neither")


@dataclass(frozen=True)
class TrajectorySettings:
    """How a run is measured.

    answering: how the base's refusals are told from its answers, and how completions are made and judged. generate:
    also count what every checkpoint's whole completions do. loader: how checkpoints are loaded. kept: where what models
    gave is kept, and not asked again.
    """

    answering: Answering = field(default_factory=Answering)
    generate: bool = False
    loader: Loader = AS_FOUND
    kept: KeptRun = field(default_factory=KeptRun)


@dataclass(frozen=True)
class LaterModel:
    """A checkpoint whose model is loaded when it is first needed."""

    checkpoint: Checkpoint
    loader: Loader

    @cached_property
    def chat(self) -> ChatModel:
        return self.loader.load(self.checkpoint)

    @property
    def identity(self) -> list[object]:
        """What its values depend on: the weights, how they run, and what templates are told."""
        device = device_of(self.loader.device)
        dtype = run_dtype(self.checkpoint, self.loader.dtype, device)
        return [self.checkpoint.identity, str(dtype), device, self.loader.thinking]


@dataclass(frozen=True)
class _Asked:
    """What one model gave: log-odds by prompt id, and labels where completions were made."""

    point: RunPoint
    prompts: list[Prompt]
    log_odds: dict[str, float]
    labels: dict[str, Label]


class Interview:
    """What the models of a run gave so far. points: the models. notes: what to know of them, each once."""

    def __init__(self, prompts: Sequence[Prompt], settings: TrajectorySettings, progress: Progress) -> None:
        self.prompts, self.settings, self.progress = list(prompts), settings, progress
        self.points: list[RunPoint] = []
        self.notes: list[str] = []
        self.opening_words: list[str] = []
        self._asked: list[_Asked] = []
        # Log-odds of pictured prompts, asked without the picture of a base that does not see.
        self._unseen: dict[str, float] = {}

    def ask_base(self, base: Checkpoint) -> None:
        """Find how the base refuses, and ask it everything; its model is local, so that no two are in memory."""
        model, texts = LaterModel(base, self.settings.loader), requests_alone(self.prompts)
        self._base = BaseCompletions(texts, *self._verdicts(model, texts, "base"))
        found = self._odds(model, "base", is_base=True)
        asked = [prompt for prompt in self.prompts if prompt.id in found.log_odds]
        labels = {p.id: self._base.verdict(p).label for p in asked if p.modality == "text"}
        if found.reads_pictures and self.settings.generate:
            labels |= self._labels(model, [prompt for prompt in asked if prompt.modality != "text"], "base")
        self.opening_words = found.openings
        self._keep(RunPoint(at=0, step=None, name="base", reads_pictures=found.reads_pictures), asked, found, labels)
        self._unseen = found.unseen
        if found.unseen:
            self._note("the base does not see: drops with a picture are from its log-odds without the picture")

    def ask(self, checkpoint: Checkpoint, at: int, step: int) -> None:
        """Ask one checkpoint."""
        model, name = LaterModel(checkpoint, self.settings.loader), checkpoint.ref.rstrip("/").rpartition("/")[2]
        found = self._odds(model, name)
        asked = [prompt for prompt in self.prompts if prompt.id in found.log_odds]
        labels = self._labels(model, asked, name) if self.settings.generate else {}
        self._keep(RunPoint(at=at, step=step, name=name, reads_pictures=found.reads_pictures), asked, found, labels)

    def note_the_blind(self) -> None:
        """Say which checkpoints were not asked prompts with pictures."""
        pictured = sum(prompt.modality != "text" for prompt in self.prompts)
        blind = [each.point.name for each in self._asked[1:] if not each.point.reads_pictures]
        if pictured and blind:
            verb = "does" if len(blind) == 1 else "do"
            self._note(f"{', '.join(blind)} {verb} not see: {pictured} prompts with pictures were left out there")

    def records(self, looks: int) -> list[RefusalPoint]:
        """A row for every model, set and kind of picture. looks: how many checkpoints there are."""
        return [
            self._record(each, set_, modality, looks)
            for each in self._asked
            for set_, modality in dict.fromkeys((prompt.set, prompt.modality) for prompt in each.prompts)
        ]

    def _record(self, asked: _Asked, set_: str, modality: str, looks: int) -> RefusalPoint:
        members = [prompt for prompt in asked.prompts if (prompt.set, prompt.modality) == (set_, modality)]
        requests = [prompt.request for prompt in members]
        odds = [asked.log_odds[prompt.id] for prompt in members]
        drop = Estimate(value=None, reason="of the base itself")
        if asked.point.at:
            before = {**self._unseen, **self._asked[0].log_odds}
            falls = [before[prompt.id] - asked.log_odds[prompt.id] for prompt in members]
            drop = mean_estimate(falls, requests, looks)
        labels = [asked.labels[prompt.id] for prompt in members if prompt.id in asked.labels]
        shares: dict[str, Rate] = {}
        if self.settings.generate and len(labels) == len(members):
            shares = {label: rate([each == label for each in labels], requests) for label in LABELS}
        return RefusalPoint(
            at=asked.point.at,
            step=asked.point.step,
            name=asked.point.name,
            set=set_,
            modality=modality,
            log_odds=mean_estimate(odds, requests),
            drop=drop,
            opens_refusing=rate([each > 0 for each in odds], requests),
            **shares,
        )

    def _odds(self, model: LaterModel, name: str, is_base: bool = False) -> ModelOdds:
        """A model's log-odds of refusing as the base does, kept or asked now."""
        told = [
            [prompt.id, verdict.label] for prompt, verdict in zip(self._base.prompts, self._base.verdicts, strict=True)
        ]
        said = sha256(repr([told, [each.text for each in self._base.said]]).encode()).hexdigest()
        of = [*model.identity, said, prompts_digest(self.prompts), is_base]
        return self.settings.kept.value(ModelOdds, of, lambda: self._scored(model.chat, name, is_base))

    def _scored(self, chat: ChatModel, name: str, is_base: bool) -> ModelOdds:
        openings = self._base.openings(chat)

        def scored(prompts: Sequence[Prompt]) -> list[float]:
            found: list[float] = opening_log_odds(chat, prompts, openings, f"scoring {name}", self.progress).tolist()
            return found

        asked = chat.answerable(self.prompts)
        blind = [] if chat.sees or not is_base else [p for p in self.prompts if p.modality != "text"]
        return ModelOdds(
            reads_pictures=chat.sees,
            log_odds={p.id: value for p, value in zip(asked, scored(asked), strict=True)},
            unseen={p.id: v for p, v in zip(blind, scored([without_picture(p) for p in blind]), strict=True)},
            openings=[chat.text_of(list(way)) for way in openings.openings][:SHOWN_OPENINGS],
            notes=list(chat.notes),
        )

    def _verdicts(
        self, model: LaterModel, prompts: Sequence[Prompt], name: str
    ) -> tuple[list[Completion], list[Verdict]]:
        """What a model says to prompts, kept or asked now, and the judge's verdicts.

        Batches are always the same ones, whatever is kept, so that a run that goes on says what one without a break
        does.
        """
        order = sorted(prompts, key=lambda p: (p.modality != "text", len(p.text), p.id))
        batches = [order[start : start + BATCH] for start in range(0, len(order), BATCH)]
        said = {}
        for batch in self.progress(batches, f"asking {name}"):
            for prompt, each in zip(batch, self._said(model, batch), strict=True):
                said[prompt.id] = each
        found = [said[prompt.id] for prompt in prompts]
        return found, self.settings.answering.judged(prompts, found)

    def _said(self, model: LaterModel, batch: Sequence[Prompt]) -> list[Completion]:
        tokens = self.settings.answering.tokens

        def asked() -> KeptCompletions:
            found = complete(model.chat, batch, "asking", tokens=tokens)
            return KeptCompletions(said=[KeptCompletion(text=c.text, ids=c.ids, finished=c.finished) for c in found])

        of = [*model.identity, prompts_digest(batch), tokens]
        kept = self.settings.kept.value(KeptCompletions, of, asked)
        return [Completion(each.text, each.ids, each.finished) for each in kept.said]

    def _labels(self, model: LaterModel, prompts: Sequence[Prompt], name: str) -> dict[str, Label]:
        """What a model's completions do, by prompt id."""
        _, found = self._verdicts(model, prompts, name)
        return {prompt.id: verdict.label for prompt, verdict in zip(prompts, found, strict=True)}

    def _keep(self, point: RunPoint, asked: list[Prompt], found: ModelOdds, labels: dict[str, Label]) -> None:
        self.points.append(point)
        self._asked.append(_Asked(point, asked, found.log_odds, labels))
        for note in found.notes:
            self._note(note)

    def _note(self, line: str) -> None:
        if line not in self.notes:
            self.notes.append(line)
