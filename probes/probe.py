"""The probe of one set of checkpoints: separation, drift, attribution, ceiling.

Its parts are tasks: one process does them one after another, a model at a time; the workers of an engine do them at the
same time, as far as none needs another's result.
"""

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from vlsurgery.probes.attribution import PassMaker, attributed
from vlsurgery.probes.attribution_passes import Pass, TooFewLostError, too_few_lost
from vlsurgery.probes.candidates import Place, ScoredPrompts, Scores, choose_direction
from vlsurgery.probes.contrasts import Directions
from vlsurgery.probes.direction_cosines import all_cosines, cosines_with_base
from vlsurgery.probes.evaluation.dividing import shard_size
from vlsurgery.probes.evaluation.judges import STANDARD, Judge
from vlsurgery.probes.evaluation.paired import paired_difference
from vlsurgery.probes.evaluation.thresholds import MIN_REQUESTS_FOR_A_CLAIM
from vlsurgery.probes.models import AS_FOUND, Loader
from vlsurgery.probes.probing.kept_answers import KeptAnswers, model_mark
from vlsurgery.probes.probing.seat import GRAFT, HandedOn, NumberedTask, ProbeSeat, ProbeSetUp, Task
from vlsurgery.probes.probing.state import ProbeState
from vlsurgery.probes.probing.tasks import (
    ANSWER_TOKENS,
    AskAnswers,
    MakePass,
    PlacedDirection,
    ScoreDirections,
    ShowEffect,
)
from vlsurgery.probes.probing.verdict import verdict
from vlsurgery.probes.prompts import HARMFUL_SETS, Prompt
from vlsurgery.probes.results import ProbeResult, Target, TargetsResult
from vlsurgery.probes.targets import sorted_prompts, working_prompts
from vlsurgery.surgery.alignment import Alignment
from vlsurgery.surgery.errors import SurgeryError
from vlsurgery.surgery.runtime.engine import Does, Engine, InProcess
from vlsurgery.surgery.runtime.progress import Progress, no_progress

ANSWERING = ("base", "adapted")  # roles whose own answers are targets


@dataclass(frozen=True)
class Findings:
    """The results of a probe. directions: "<role>/<modality>/<position>" -> [layers, hidden] float32."""

    result: ProbeResult
    directions: dict[str, Tensor]
    targets: TargetsResult


def probe(
    alignment: Alignment,
    prompts: Sequence[Prompt],
    progress: Progress = no_progress,
    judge: Judge = STANDARD,
    loader: Loader = AS_FOUND,
    engine: Engine | None = None,
    folder: Path | None = None,
) -> Findings:
    """Directions, targets and attribution of base, adapted, graft and every safety role.

    alignment: of all roles. Directions are made on `fit`, selected on `select` and shown on `report`; attribution
        uses `fit` alone. judge: tells which of the models' own completions refuse.
    loader: how checkpoints are loaded. engine: whose workers run the models; without one, this process does.
    folder: where workers hand things on to each other, so that all of them must see it; by default a new one on this
        machine. What models answer is kept there: of a probe that was cut short, only what is missing is asked.

    Raises SurgeryError where the base clearly refuses less than the adapted model: their roles are swapped.
    """
    roles = ["base", "adapted", GRAFT, *(role for role in alignment.checkpoints if role.startswith("safety"))]
    with _files(folder) as files:
        kept = _kept_answers(files, alignment, prompts, loader)
        state = ProbeState(prompts, judge, {role: kept.of(role) for role in ANSWERING})
        with _probing(state, alignment, progress, loader, engine, files, kept) as probing:
            for together in [roles] if engine is not None else _one_model_at_a_time(roles):
                probing.look_at(together)
    return _findings(state, roles)


def _one_model_at_a_time(roles: Sequence[str]) -> list[list[str]]:
    """Each role by itself; the graft with the adapted model, which it is made of."""
    return [["adapted", GRAFT] if role == "adapted" else [role] for role in roles if role != GRAFT]


@contextmanager
def _files(folder: Path | None) -> Iterator[HandedOn]:
    if folder is not None:
        yield HandedOn(folder.absolute())
        return
    with TemporaryDirectory(prefix="vlsurgery-") as own:
        yield HandedOn(Path(own))


def _kept_answers(files: HandedOn, alignment: Alignment, prompts: Sequence[Prompt], loader: Loader) -> KeptAnswers:
    marks = {role: model_mark(alignment.checkpoints[role], prompts, loader, ANSWER_TOKENS) for role in ANSWERING}
    return KeptAnswers(files.answers, marks)


@contextmanager
def _probing(
    state: ProbeState,
    alignment: Alignment,
    progress: Progress,
    loader: Loader,
    engine: Engine | None,
    files: HandedOn,
    kept: KeptAnswers,
) -> Iterator["_Probing"]:
    """What does the tasks of a probe, while the block runs."""
    if engine is None:
        seat = ProbeSeat(alignment, state.prompts, loader, files, progress, kept.add)
        with closing(seat), InProcess().staying(lambda: seat.do, 1) as do:
            yield _Probing(state, do, 0, files, progress, kept)
        return
    refs = {role: checkpoint.ref_model for role, checkpoint in alignment.checkpoints.items()}
    findable = tuple(prompt.findable() for prompt in state.prompts)
    set_up = ProbeSetUp(refs, alignment.like, findable, loader, files, torch.get_num_threads())
    count = len(working_prompts(state.prompts))
    with engine.staying(set_up, count) as do:
        yield _Probing(state, do, engine.num_workers(count), files, progress, kept)


class _Probing:
    """A probe while it is done.

    do: does tasks. workers: that do them at the same time; 0 for this process, which shows the progress of each task.
    """

    def __init__(
        self,
        state: ProbeState,
        do: Does[NumberedTask, tuple[int, Any]],
        workers: int,
        files: HandedOn,
        progress: Progress,
        kept: KeptAnswers,
    ) -> None:
        self._state, self._do, self._workers, self._files, self._progress = state, do, workers, files, progress
        self._kept = kept

    def look_at(self, roles: Sequence[str]) -> None:
        """All that is looked at of some roles. The base is among the first roles, or was looked at before."""
        state = self._state
        first = [task for role in roles for task in (*self._asking(role), *state.measuring(role))]
        self._keep(first, "asking models for their own answers, measuring directions")
        for role in ANSWERING:
            if role in roles:
                state.judge_answers(role)
        if "adapted" in roles:
            _check_roles(state.targets, state.asked("adapted"))
        if "base" in roles:
            self._keep([state.base_reading()])
        self._keep([task for role in roles for task in state.reading(role)], "reading layers")
        if "base" in roles:
            self._choose()
        if "adapted" in roles:
            self._attribute()

    def _asking(self, role: str) -> list[Task]:
        """What is asked of a model for its own answers; nothing of others than base and adapted."""
        wanted = self._state.asked(role) if role in ANSWERING else []
        ids = [prompt.id for prompt in wanted if prompt.id not in self._state.said[role]]
        size = shard_size(len(ids), self._workers) if self._workers else len(ids)
        return [AskAnswers(role, tuple(ids[at : at + size])) for at in range(0, len(ids), max(1, size))]

    def _keep(self, tasks: Sequence[Task], label: str = "") -> None:
        for task, found in zip(tasks, self._done(tasks, label), strict=True):
            self._state.keep(task, found)

    def _done(self, tasks: Sequence[Task], label: str) -> list[Any]:
        """What each task finds, in their order. label: of the progress, which workers don't show."""
        found: list[Any] = [None] * len(tasks)
        items = [NumberedTask(at, task) for at, task in enumerate(tasks)]
        shown = self._progress if label and self._workers else no_progress
        with closing(self._do(items)) as results:
            for at, each in shown(results, label, len(tasks)):
                found[at] = each
                task = tasks[at]
                if self._workers and isinstance(task, AskAnswers):
                    self._kept.add(task.role, each.prompts, each.completions)
        return found

    def _choose(self) -> None:
        """The base's direction by what ablating and adding it does, and the effect of the one that is shown."""
        state, candidates = self._state, self._state.candidates
        if candidates is None:
            return
        directions = state.directions["base", "text"]

        def placed(at: int, layer: int) -> PlacedDirection:
            return PlacedDirection(directions.values[at, layer].clone(), layer)  # A view would take all others along.

        def score(prompts: ScoredPrompts, places: Sequence[Place]) -> list[Scores]:
            found: list[Any] = [None] * len(places)
            shares = min(max(1, self._workers), len(places))
            tasks = [
                ScoreDirections(tuple(placed(*place) for place in places[at::shares]), state.openings, prompts)
                for at in range(shares)
            ]
            for at, scores in enumerate(self._done(tasks, "ablating and adding directions")):
                found[at::shares] = scores
            return found

        selection = choose_direction(candidates, directions, score)
        if (shown := selection.shown) is not None:
            direction = placed(directions.positions.index(str(shown.position)), shown.layer)
            (effect,) = self._done([ShowEffect(direction, state.openings)], "")
            selection = selection.model_copy(update={"effect": effect})
        state.selection = selection

    def _attribute(self) -> None:
        state, targets = self._state, TargetsResult(records=self._state.targets)
        if reason := too_few_lost(sorted_prompts(state.prompts, targets, "fit")):
            state.note("adapted", f"no attribution: {reason}")
            return
        targets.save(self._files.targets)

        def make(passes: Sequence[Pass], label: str) -> list[Any]:
            return self._done([MakePass(each) for each in passes], label)

        try:
            state.attribution = attributed(PassMaker(make, max(1, self._workers)), self._progress)
        except TooFewLostError as error:  # Some of them had the same words.
            state.note("adapted", f"no attribution: {error}")
            return
        state.note("adapted", *state.attribution.notes)


def _findings(state: ProbeState, roles: Sequence[str]) -> Findings:
    found, readings = state.attribution, state.readings
    result = ProbeResult(
        records=[row for each in state.separated.values() for row in each.rows],
        cosines=cosines_with_base(state.directions),
        selected=state.selected,
        selection=state.selection,
        attribution=found.gains if found else [],
        transplants=found.transplants if found else [],
        completeness=found.completeness if found else None,
        ceiling=found.ceiling if found else None,
        attribution_null=found.null if found else None,
        interaction=found.interaction if found else None,
        lens=readings.lens,
        patching=state.patching,
        loss=state.loss,
        projections=readings.projections,
        cosine_matrices=all_cosines(state.directions),
        cosine_nulls=readings.nulls,
        safety_layers=readings.safety_layers,
        templates=state.templates,
        notes=[line for role in roles for line in state.notes.get(role, ())],
        verdict=verdict(state),
    )
    return Findings(result, _named(state.directions), TargetsResult(records=state.targets))


def _named(directions: dict[tuple[str, str], Directions]) -> dict[str, Tensor]:
    """Directions by the names that a file has for them."""
    return {
        f"{role}/{modality}/{position}": found.values[at].float().clone()
        for (role, modality), found in directions.items()
        for at, position in enumerate(found.positions)
    }


def _check_roles(targets: Sequence[Target], work: Sequence[Prompt]) -> None:
    """Refuse a base that refuses harmful requests, as text, clearly less often than the adapted model does."""
    refused = {(each.role, each.prompt): each.verdict == "refused" for each in targets}
    asked = [p for p in work if p.set in HARMFUL_SETS and p.modality == "text" and ("adapted", p.id) in refused]
    requests = [prompt.request for prompt in asked]
    if len(set(requests)) < MIN_REQUESTS_FOR_A_CLAIM:
        return
    base, adapted = ([refused[role, prompt.id] for prompt in asked] for role in ("base", "adapted"))
    difference = paired_difference(base, adapted, requests)
    if difference.high is not None and difference.high < 0:
        raise SurgeryError(
            f"the base refuses {sum(base)} of {len(asked)} harmful prompts and the adapted model {sum(adapted)}: the "
            "roles look swapped. Open the case again: vlsurgery diff BASE ADAPTED [SAFETY] --new, with the safer chat "
            "model, from before adaptation, as BASE."
        )
