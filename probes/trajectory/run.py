"""The measurement of a training run: the base once, then every checkpoint once."""

from collections.abc import Sequence
from functools import partial

from vlsurgery.probes.prompts import HARMFUL_SETS, Prompt, Split
from vlsurgery.probes.targets import WORKING_MODALITIES, evenly_spaced
from vlsurgery.probes.trajectory.departures import departures, verdict
from vlsurgery.probes.trajectory.interview import Interview, TrajectorySettings
from vlsurgery.probes.trajectory.kept import BlockChanges
from vlsurgery.probes.trajectory.steps import steps_of
from vlsurgery.probes.trajectory_results import BlockPoint, RunPoint, TrajectoryResult
from vlsurgery.surgery.alignment import Alignment, align
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.diff.run import diff
from vlsurgery.surgery.errors import SurgeryError
from vlsurgery.surgery.runtime.progress import Progress, no_progress

ASKED_SETS = ("harmful", "jailbroken", "harmless", "borderline")  # of which refusals say something


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

    What `settings.kept` has of a model is not asked again, and the result is the same.

    Raises AlignmentError where a checkpoint is no relative of the base, before any model is loaded; SurgeryError where
    the base refuses too little to measure.
    """
    _check(checkpoints, prompts)
    steps, warnings = steps_of([each.ref for each in checkpoints])
    aligned = [align({"base": base, "adapted": each}) for each in checkpoints]
    settings = settings or TrajectorySettings()
    run = Interview(prompts, settings, progress)
    run.ask_base(base)
    blocks: list[BlockPoint] = []
    for at, (checkpoint, step, pairs) in enumerate(zip(checkpoints, steps, aligned, strict=True), 1):
        run.ask(checkpoint, at, step)
        of = [[each.identity, each.text_stack] for each in (base, checkpoint)]
        moved = settings.kept.value(BlockChanges, of, partial(_moved, pairs, progress)).relative
        blocks += [BlockPoint(at=at, step=step, block=name, relative=far, share=None) for name, far in moved.items()]
    run.note_the_blind()
    records = run.records(len(checkpoints))
    blocks = _with_shares(blocks, len(checkpoints))
    left = departures(records)
    return TrajectoryResult(
        checkpoints={"base": base.ref_model}
        | {_role(point): each.ref_model for point, each in zip(run.points[1:], checkpoints, strict=True)},
        points=run.points,
        records=records,
        blocks=blocks,
        departures=left,
        openings=run.opening_words,
        verdict=verdict(left, records, blocks),
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


def _moved(pairs: Alignment, progress: Progress) -> BlockChanges:
    """How far a checkpoint's blocks are from the base's, streamed."""
    blocks = diff(pairs, "norms", progress).blocks
    return BlockChanges(relative={each.key: each.metrics.vl.relative for each in blocks if each.metrics.vl is not None})


def _with_shares(blocks: Sequence[BlockPoint], last: int) -> list[BlockPoint]:
    """The points with their share of the change at the last checkpoint."""
    final = {each.block: each.relative for each in blocks if each.at == last}
    found = []
    for each in blocks:
        whole = final.get(each.block)
        share = each.relative / whole if whole and each.relative is not None else None
        found.append(each.model_copy(update={"share": share}))
    return found
