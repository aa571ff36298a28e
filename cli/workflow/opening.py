"""Open the case that a command works on, and bring it to the command's goal, or only say what that would take."""

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from vlsurgery.cli.options import Session
from vlsurgery.cli.workflow.case import Case
from vlsurgery.cli.workflow.engine import Flow, Job, StepOptions
from vlsurgery.cli.workflow.steps import STEPS, check_merge_target
from vlsurgery.surgery.alignment import Alignment, align
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.errors import SurgeryError, TargetError


@dataclass(frozen=True)
class CheckpointArgs:
    """The checkpoints that a command names, to open a case on.

    new: move a case of other checkpoints aside. allow_pickle: take pickled weights.
    """

    roles: Mapping[str, str]
    new: bool = False
    allow_pickle: bool = False

    @cached_property
    def opened(self) -> dict[str, Checkpoint]:
        return {role: Checkpoint.open(ref, allow_pickle=self.allow_pickle) for role, ref in self.roles.items()}


def perform(session: Session, options: StepOptions, *goals: str, named: CheckpointArgs | None = None) -> Flow | None:
    """Bring the case to `goals` and return its flow; under `--plan`, show the plan instead and return None.

    named: what to open the case on; None for the checkpoints that it holds.
    """
    console = session.console
    if session.plan:
        from vlsurgery.cli.workflow.estimates import plan, show_plan

        with _case_to_plan(session.case, named) as (case, alignment):
            job = Job(case, options, aligned=alignment)
            show_plan(console, plan(job, Flow(job, STEPS).pending(*goals)))
        return None
    case, alignment = (Case.open(session.case), None) if named is None else _create(session.case, named)
    flow = Flow(Job(case, options, console.say, console.progress, alignment), STEPS)
    if "merge" in goals:
        check_merge_target(flow.job)
    flow.bring(*goals)
    return flow


def named_in_order(checkpoints: Sequence[str] | None, new: bool, allow_pickle: bool) -> CheckpointArgs | None:
    """Checkpoints given in order as roles. Raises SurgeryError where there are not two or three."""
    if not checkpoints:
        return None
    if len(checkpoints) not in (2, 3):
        raise SurgeryError(f"expected BASE ADAPTED [SAFETY], found {len(checkpoints)} checkpoint(s)")
    return CheckpointArgs(dict(zip(("base", "adapted", "safety"), checkpoints, strict=False)), new, allow_pickle)


def check_case_folder(folder: Path) -> None:
    """Refuse a case folder that could not be made, before anything is trained for it. Raises TargetError."""
    nearest = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        reason = "not writable" if nearest.is_dir() else "not a directory"
        raise TargetError(f"{folder}: can't be made, {nearest} is {reason}. Give another folder with --case.")


def _create(directory: Path, named: CheckpointArgs, new: bool | None = None) -> tuple[Case, Alignment]:
    """Open a case on checkpoints that belong together: one that can't be used is never made."""
    alignment = align(named.opened)
    return Case.create(directory, named.opened, named.new if new is None else new), alignment


@contextmanager
def _case_to_plan(directory: Path, named: CheckpointArgs | None) -> Iterator[tuple[Case, Alignment | None]]:
    """The case as it would be opened; one that is not there yet is made in a temporary folder."""
    if named is None or _holds(directory, named):
        yield Case.open(directory), None
        return
    if directory.exists() and not named.new:
        raise TargetError(
            f"{directory}: holds something else. Give --new to move it aside, or another folder with --case."
        )
    check_case_folder(directory)
    with tempfile.TemporaryDirectory(prefix="vlsurgery-plan-") as folder:
        yield _create(Path(folder) / "case", named, new=False)


def _holds(directory: Path, named: CheckpointArgs) -> bool:
    """Whether the directory is a case of these very checkpoints."""
    if not (directory / "case.json").is_file():
        return False
    held = {role: checkpoint.location for role, checkpoint in Case.open(directory).checkpoints.items()}
    return held == {role: checkpoint.location for role, checkpoint in named.opened.items()}
