"""A case's steps run again, from its reproduce.json, into a case of their own."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from vlsurgery.cli.options import Running, Session
from vlsurgery.cli.workflow.case import FILE as CASE_FILE, Case
from vlsurgery.cli.workflow.choice import options_of
from vlsurgery.cli.workflow.engine import Flow, Job, Settings, StepOptions
from vlsurgery.cli.workflow.opening import CheckpointArgs, perform
from vlsurgery.cli.workflow.reproduction import FILE, Reproduction, reproduction_of, settings_behind
from vlsurgery.cli.workflow.sample import Sample
from vlsurgery.cli.workflow.step_settings import checked_settings
from vlsurgery.cli.workflow.steps import STEPS
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.checkpoint.contents import check_contents
from vlsurgery.surgery.errors import CheckpointError, SurgeryError
from vlsurgery.surgery.runtime.excerpts import excerpt

# What a checkpoint of a case can be; several of safety have a name behind it.
ROLE: Final = re.compile(r"base|adapted|safety(?::.+)?")


@dataclass(frozen=True)
class RerunArgs:
    """What may be elsewhere, or otherwise, than it was.

    checkpoints: in the order of the roles; none for the places that the file names. prompts: "FILE:KIND" in place of
    the recorded files. running: device, memory, and whether a checkpoint's own Python runs; a dtype or thinking that is
    given here is used in place of the recorded one. ignored: mismatches that the merge goes on with.
    """

    checkpoints: Sequence[str] = ()
    prompts: Sequence[str] | None = None
    running: Running = Running()  # noqa: RUF009
    allow_pickle: bool = False
    ignored: Sequence[str] = ()


def load_reproduction(file: Path) -> Reproduction:
    """What a reproduce.json holds; of one beside its case, what that case holds now.

    Raises SurgeryError where it is no such file, or names nothing that was done.
    """
    if file.is_dir():
        file = file / FILE
    beside = file.parent / CASE_FILE
    if file.name == FILE and beside.is_file():
        found = reproduction_of(Flow(Job(Case.open(file.parent)), STEPS))
    else:
        found = Reproduction.load(file)
    roles = found.checkpoints.keys()
    if not roles >= {"base", "adapted"} or not all(ROLE.fullmatch(role) for role in roles):
        raise SurgeryError(
            f"{file}: expected checkpoints of base and adapted, and of safety where there are such, found "
            f"{excerpt(list(roles))}. Take the file as vlsurgery wrote it."
        )
    for step in found.steps:
        checked_settings(step.name, step.settings)
    if not found.steps:
        raise SurgeryError(f"{file}: names no step that was done. Run vlsurgery merge --auto, or evaluate, first.")
    return found


def places_of(first: Reproduction, args: RerunArgs) -> dict[str, str]:
    """Role -> where its checkpoint is now. Raises SurgeryError for another number of them, CheckpointError for one that
    is absent or not the recorded one."""
    recorded = first.checkpoints
    if args.checkpoints and len(args.checkpoints) != len(recorded):
        raise SurgeryError(
            f"expected {len(recorded)} checkpoints ({', '.join(recorded)}), found {len(args.checkpoints)}. Give all of "
            "them in this order, or none."
        )
    given = args.checkpoints or [ref.path for ref in recorded.values()]
    places = dict(zip(recorded, given, strict=True))
    for role, place in places.items():
        ref = recorded[role]
        opened = Checkpoint.open(place, allow_pickle=args.allow_pickle, text_stack=ref.text_stack)
        if not opened.is_known_as(ref.identity):
            raise CheckpointError(
                f"{role} ({place}): not the checkpoint that was measured: its identity is {opened.identity}, the "
                f"file's {ref.identity}. Name the right one: vlsurgery reproduce FILE {' '.join(recorded).upper()}."
            )
    return places


def check_folder(session: Session, file: Path) -> None:
    """Raise SurgeryError where the second run would go into the first one's case."""
    first = file if file.is_dir() else file.parent
    if session.case.resolve() == first.resolve():
        raise SurgeryError(f"{session.case}: holds the results to be reproduced. Name a folder of its own with --case.")


def run_again(session: Session, first: Reproduction, args: RerunArgs) -> Reproduction:
    """Run every step of `first` again in the case of `session`, and say what that case holds then."""
    stacks = [ref.text_stack for ref in first.checkpoints.values() if ref.text_stack]
    named: CheckpointArgs | None = CheckpointArgs(
        places_of(first, args), allow_pickle=args.allow_pickle, text_stacks=stacks
    )
    flow: Flow | None = None
    for step in first.steps:
        options = step_options(step.name, settings_behind(step.name, first.settings_of), args)
        flow = perform(session, options, step.name, named=named, allow_pickle=args.allow_pickle)
        if named is not None and flow is not None:
            recorded = {role: ref.contents for role, ref in first.checkpoints.items() if ref.contents}
            check_contents(flow.job.checkpoints, recorded, session.console.progress)
        named = None
    assert flow is not None  # There is a step, and nothing is only planned.
    return reproduction_of(flow)


def step_options(step: str, settings: Settings, args: RerunArgs) -> StepOptions:
    """The options that give a step the settings that it had, in a case that has none of its own.

    Raises SurgeryError for settings that no step records.
    """
    known = checked_settings(step, settings)
    running = replace(
        args.running,
        thinking=args.running.thinking or known.thinking or "default",
        dtype=args.running.dtype or known.dtype or "auto",
    )
    return replace(
        options_of(settings),
        prompts=list(known.prompts.files) if args.prompts is None else args.prompts,
        images=Path(known.prompts.images) if known.prompts.images else None,
        sample=Sample.recorded(settings.get("prompts", {})),
        judges=known.judges,
        judge_labels=known.judge_labels,
        tokens=known.tokens,
        imports=list(known.imports),
        level=known.level,
        running=running,
        ignored=args.ignored,
    )
