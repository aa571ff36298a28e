"""The measurement of a training run: the base once, then every checkpoint once."""

from collections.abc import Sequence
from dataclasses import dataclass

from vlsurgery.probes.evaluation.generate import DEFAULT_TOKENS
from vlsurgery.probes.evaluation.intervals import rate
from vlsurgery.probes.evaluation.judges import STANDARD, Judge
from vlsurgery.probes.evaluation.mean_intervals import mean_estimate
from vlsurgery.probes.models import AS_FOUND, ChatModel, Loader
from vlsurgery.probes.prompts import HARMFUL_SETS, Prompt, Split
from vlsurgery.probes.results import Estimate, Label, Rate
from vlsurgery.probes.targets import WORKING_MODALITIES, evenly_spaced, without_picture
from vlsurgery.probes.trajectory.base_completions import Answering, base_completions
from vlsurgery.probes.trajectory.departures import departures, verdict
from vlsurgery.probes.trajectory.openings import RefusalOpenings, opening_log_odds
from vlsurgery.probes.trajectory.steps import steps_of
from vlsurgery.probes.trajectory_results import BlockPoint, RefusalPoint, RunPoint, TrajectoryResult
from vlsurgery.surgery.alignment import Alignment, align
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.diff.run import diff
from vlsurgery.surgery.errors import SurgeryError
from vlsurgery.surgery.runtime.progress import Progress, no_progress

ASKED_SETS = ("harmful", "jailbroken", "harmless", "borderline")  # of which refusals say something
SHOWN_OPENINGS = 12
LABELS: tuple[Label, ...] = ("refused", "complied", "neither")


@dataclass(frozen=True)
class TrajectorySettings:
    """How a run is measured.

    judge: tells the base's refusals from its answers. tokens: of a completion, at most. generate: also count what every
    checkpoint's whole completions do. loader: how checkpoints are loaded.
    """

    judge: Judge = STANDARD
    tokens: int = DEFAULT_TOKENS
    generate: bool = False
    loader: Loader = AS_FOUND


def asked_prompts(prompts: Sequence[Prompt], requests: int | None, split: Split = "report") -> list[Prompt]:
    """The prompts of one split that a trajectory asks: of sets that may be refused, without control pictures, and of
    each set the prompts of at most `requests` requests, evenly spaced."""
    asked = [p for p in prompts if p.split == split and p.set in ASKED_SETS and p.modality in WORKING_MODALITIES]
    found = []
    for set_ in ASKED_SETS:
        members = [prompt for prompt in asked if prompt.set == set_]
        named = list(dict.fromkeys(prompt.request for prompt in members))
        kept = set(named if requests is None else evenly_spaced(named, requests))
        found += [prompt for prompt in members if prompt.request in kept]
    return found


def trajectory(
    base: Checkpoint,
    checkpoints: Sequence[Checkpoint],
    prompts: Sequence[Prompt],
    settings: TrajectorySettings | None = None,
    progress: Progress = no_progress,
) -> TrajectoryResult:
    """When a training run lost refusals, and how far its blocks had moved by then.

    base: the model before training; its own refusals are what is looked for. checkpoints: of the run, in order. Each
    model is loaded once, one at a time; weights are streamed. Every prompt of `prompts` is asked (`asked_prompts`
    chooses).

    Raises AlignmentError where a checkpoint is no relative of the base, before any model is loaded; SurgeryError where
    the base refuses too little to measure.
    """
    _check(checkpoints, prompts)
    steps, warnings = steps_of([each.ref for each in checkpoints])
    aligned = [align({"base": base, "adapted": each}) for each in checkpoints]
    run = _Run(prompts, settings or TrajectorySettings(), progress)
    run.ask_base(base)
    blocks: list[BlockPoint] = []
    for at, (checkpoint, step, pairs) in enumerate(zip(checkpoints, steps, aligned, strict=True), 1):
        run.ask(checkpoint, at, step)
        blocks += _moved(pairs, at, step, progress)
    run.note_the_blind()
    records = run.records(len(checkpoints))
    blocks = _with_shares(blocks, len(checkpoints))
    found = departures(records)
    return TrajectoryResult(
        checkpoints={"base": base.ref_model}
        | {_role(point): each.ref_model for point, each in zip(run.points[1:], checkpoints, strict=True)},
        points=run.points,
        records=records,
        blocks=blocks,
        departures=found,
        openings=run.opening_words,
        verdict=verdict(found, records, blocks),
        notes=run.notes,
        warnings=warnings,
    )


def _check(checkpoints: Sequence[Checkpoint], prompts: Sequence[Prompt]) -> None:
    """Raise SurgeryError where there is nothing to measure."""
    if not checkpoints:
        raise SurgeryError("trajectory: give the checkpoints of a training run after the base.")
    if not any(prompt.set in HARMFUL_SETS for prompt in prompts):
        raise SurgeryError("trajectory: no harmful prompt to ask. Give some with --prompts FILE:harmful.")


def _role(point: RunPoint) -> str:
    return f"checkpoint:{point.at}"


@dataclass(frozen=True)
class _Asked:
    """What one model gave: log-odds by prompt id, and labels where completions were made."""

    point: RunPoint
    prompts: list[Prompt]
    log_odds: dict[str, float]
    labels: dict[str, Label]


class _Run:
    """What the models of a run gave so far. points: the models. notes: what to know of them, each once."""

    def __init__(self, prompts: Sequence[Prompt], settings: TrajectorySettings, progress: Progress) -> None:
        self.prompts, self.settings = list(prompts), settings
        self.points: list[RunPoint] = []
        self.notes: list[str] = []
        self.opening_words: list[str] = []
        self._answering = Answering(settings.judge, settings.tokens, progress)
        self._asked: list[_Asked] = []
        # Log-odds of pictured prompts, asked without the picture of a base that does not see.
        self._unseen: dict[str, float] = {}

    def ask_base(self, base: Checkpoint) -> None:
        """Find how the base refuses, and ask it everything; its model is local, so that no two are in memory."""
        chat = self.settings.loader.load(base)
        self._base = base_completions(chat, self.prompts, self._answering)
        openings = self._base.openings(chat)
        self.opening_words = [chat.text_of(list(way)) for way in openings.openings][:SHOWN_OPENINGS]
        asked = chat.answerable(self.prompts)
        pictured = [prompt for prompt in self.prompts if prompt.modality != "text"]
        labels = {p.id: self._base.verdict(p).label for p in asked if p.modality == "text"}
        if chat.sees and self.settings.generate:
            labels |= self._labels(chat, pictured, "base")
        self._keep(chat, RunPoint(at=0, step=None, name="base", reads_pictures=chat.sees), asked, openings, labels)
        if not chat.sees and pictured:
            values = opening_log_odds(chat, [without_picture(p) for p in pictured], openings).tolist()
            self._unseen = {prompt.id: value for prompt, value in zip(pictured, values, strict=True)}
            self._note("the base does not see: drops with a picture are from its log-odds without the picture")

    def ask(self, checkpoint: Checkpoint, at: int, step: int) -> None:
        """Ask one checkpoint."""
        chat = self.settings.loader.load(checkpoint)
        asked = chat.answerable(self.prompts)
        name = checkpoint.ref.rstrip("/").rpartition("/")[2]
        labels = self._labels(chat, asked, name) if self.settings.generate else {}
        point = RunPoint(at=at, step=step, name=name, reads_pictures=chat.sees)
        self._keep(chat, point, asked, self._base.openings(chat), labels)

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

    def _keep(
        self,
        chat: ChatModel,
        point: RunPoint,
        asked: list[Prompt],
        openings: RefusalOpenings,
        labels: dict[str, Label],
    ) -> None:
        values = opening_log_odds(chat, asked, openings, f"scoring {point.name}", self._answering.progress).tolist()
        self.points.append(point)
        self._asked.append(_Asked(point, asked, {p.id: v for p, v in zip(asked, values, strict=True)}, labels))
        for note in chat.notes:
            self._note(note)

    def _labels(self, chat: ChatModel, prompts: Sequence[Prompt], name: str) -> dict[str, Label]:
        """What a model's completions do, by prompt id."""
        _, found = self._answering.verdicts(chat, prompts, name)
        return {prompt.id: verdict.label for prompt, verdict in zip(prompts, found, strict=True)}

    def _note(self, line: str) -> None:
        if line not in self.notes:
            self.notes.append(line)


def _moved(pairs: Alignment, at: int, step: int, progress: Progress) -> list[BlockPoint]:
    """How far a checkpoint's blocks are from the base's, streamed."""
    found = diff(pairs, "norms", progress)
    return [
        BlockPoint(at=at, step=step, block=each.key, relative=each.metrics.vl.relative, share=None)
        for each in found.blocks
        if each.metrics.vl is not None
    ]


def _with_shares(blocks: Sequence[BlockPoint], last: int) -> list[BlockPoint]:
    """The points with their share of the change at the last checkpoint."""
    final = {each.block: each.relative for each in blocks if each.at == last}
    found = []
    for each in blocks:
        whole = final.get(each.block)
        share = each.relative / whole if whole and each.relative is not None else None
        found.append(each.model_copy(update={"share": share}))
    return found
