"""Open the case that a command works on, and bring it to the command's goals, or only show what that would take."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from vlsurgery.cli.case_lock import CaseLock
from vlsurgery.cli.options import Session
from vlsurgery.cli.workflow.case import FILE, Case, CaseFile
from vlsurgery.cli.workflow.engine import Flow, Job, StepOptions
from vlsurgery.cli.workflow.reproduction import write_reproduction
from vlsurgery.cli.workflow.roles import check_roles
from vlsurgery.cli.workflow.steps import STEPS, check_merge_target, check_report_page
from vlsurgery.surgery.alignment import Alignment, align
from vlsurgery.surgery.alignment.roles import named_roles
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.checkpoint.text_stack import choose_text_stacks
from vlsurgery.surgery.errors import SurgeryError, TargetError
from vlsurgery.surgery.runtime.urls import refuse_urls

# Steps that read results alone, and no checkpoint.
READING: Final = ("report",)
# Steps of a merge whose time a budget bounds.
TIMED: Final = ("probe", "coefficients", "evaluate")


@dataclass(frozen=True)
class CheckpointArgs:
    """The checkpoints that a command names, to open a case on: role -> reference.

    new: move a case of other checkpoints aside. allow_pickle: take pickled weights. text_stacks: what the user chose;
    where nothing was, what a case of these checkpoints has.
    """

    roles: Mapping[str, str]
    new: bool = False
    allow_pickle: bool = False
    text_stacks: Sequence[str] = ()


def perform(
    session: Session,
    options: StepOptions,
    *goals: str,
    named: CheckpointArgs | None = None,
    allow_pickle: bool = False,
) -> Flow | None:
    """Bring the case to `goals` and return its flow; under `--plan`, show the plan instead and return None.

    named: what to open the case on; None for the checkpoints that it holds. allow_pickle: of these, take
    pickled weights.
    """
    console, alignment = session.console, None
    if named is not None:
        _refuse_urls(named.roles.values(), goals)
    if not session.plan:
        session.lock.claim(session.case)
    if named is None:
        case = Case.open(session.case, allow_pickle)
        _refuse_urls((place for role in case.checkpoints for place in case.checkpoints.places(role)), goals)
    else:
        case, alignment = _open_on(session.case, named, session.plan, session.lock)
        if not session.plan:
            case.take_contents(console.progress)
    if options.budget is not None:
        from vlsurgery.cli.workflow.budget import sample_of

        sample = sample_of(Job(case, options), options.budget, TIMED if "merge" in goals else goals)
        options = replace(options, sample=sample)
    flow = Flow(Job(case, options, console.say, console.progress, alignment), STEPS)
    if session.plan:
        from vlsurgery.cli.workflow.estimates import show_plan
        from vlsurgery.cli.workflow.planning import plan

        show_plan(console, plan(flow.job, flow.pending(*goals)))
        return None
    if "merge" in goals:
        check_merge_target(flow.job)
    if "report" in goals:
        check_report_page(flow.job)
    if not all(flow.is_current(goal) for goal in goals if goal not in READING):
        case.check_silent_changes(console.progress)  # What is measured now goes with what was measured before.
    flow.bring(*goals)
    write_reproduction(flow)
    return flow


def _refuse_urls(places: Iterable[str], goals: Sequence[str]) -> None:
    """Raise CheckpointError for a checkpoint at a URL where some step to a goal runs models."""
    running = [goal for goal in goals if goal not in ("diff", *READING)]
    if running:
        refuse_urls(places, "merge --auto" if "merge" in running else running[0])


def named_in_order(
    checkpoints: Sequence[str] | None, new: bool, allow_pickle: bool, text_stacks: Sequence[str] = ()
) -> CheckpointArgs | None:
    """Checkpoints given in order as roles. Raises SurgeryError where there is one alone."""
    if text_stacks and not checkpoints:
        raise SurgeryError("--text-stack: goes with checkpoints; the case keeps what vlsurgery diff was told.")
    if not checkpoints:
        return None
    if len(checkpoints) < 2:
        raise SurgeryError("expected BASE ADAPTED [SAFETY ...], found 1 checkpoint. Give at least two.")
    base, adapted, *safety = checkpoints
    return CheckpointArgs(named_roles(base, adapted, safety), new, allow_pickle, text_stacks)


def check_case_folder(folder: Path) -> None:
    """Refuse a case folder that could not be made, before anything is trained for it. Raises TargetError."""
    nearest = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        reason = "not writable" if nearest.is_dir() else "not a directory"
        raise TargetError(f"{folder}: can't be made, {nearest} is {reason}. Give another folder with --case.")


def _choose_as_recorded(folder: Path, opened: Mapping[str, Checkpoint]) -> None:
    """Take the text stacks that the case in `folder` has for checkpoints of the same identities."""
    if not (folder / FILE).is_file():
        return
    for role, ref in CaseFile.load(folder / FILE).checkpoints.items():
        if ref.text_stack is not None and role in opened and opened[role].is_known_as(ref.identity):
            opened[role].text_stack = ref.text_stack


def _open_on(folder: Path, named: CheckpointArgs, plan: bool, lock: CaseLock) -> tuple[Case, Alignment]:
    """The case of these checkpoints and their alignment: checkpoints that can't be aligned open no case.

    plan: write nothing.
    """
    if plan:
        check_case_folder(folder)
    opened = {role: Checkpoint.open(ref, allow_pickle=named.allow_pickle) for role, ref in named.roles.items()}
    choose_text_stacks(opened.values(), named.text_stacks)
    if not named.text_stacks:
        _choose_as_recorded(folder, opened)
    check_roles(named.roles, opened)
    alignment = align(opened)
    return Case.create(folder, opened, named.new, write=not plan, claim=lock.claim), alignment
