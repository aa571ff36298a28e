"""Open the case that a command works on, and bring it to the command's goal, or only say what that would take."""

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from cli.flow import Flow, Job, Wishes
from cli.options import Session
from cli.steps import STEPS, check_merge_target
from surgery.alignment import align
from surgery.case import Case
from surgery.checkpoint import Checkpoint
from surgery.errors import SurgeryError, TargetError


def perform(
    session: Session, wishes: Wishes, *goals: str, roles: Mapping[str, str] | None = None, new: bool = False
) -> Flow | None:
    """Bring the case to `goals` and return its flow; under `--plan`, show the plan instead and return None.

    roles: role -> checkpoint to open the case on; None for the checkpoints that it holds.
    """
    console = session.console
    if session.plan:
        from cli.plan import plan, show_plan

        with _case_to_plan(session.case, roles, new) as case:
            job = Job(case, wishes)
            show_plan(console, plan(job, Flow(job, STEPS).pending(*goals)))
        return None
    case = Case.open(session.case) if roles is None else _create(session.case, roles, new)
    flow = Flow(Job(case, wishes, console.say, console.track), STEPS)
    if "merge" in goals:
        check_merge_target(flow.job)
    flow.bring(*goals)
    return flow


def roles_of(checkpoints: Sequence[str] | None) -> dict[str, str] | None:
    """Checkpoints given in order as roles. Raises SurgeryError where there are not two or three."""
    if not checkpoints:
        return None
    if len(checkpoints) not in (2, 3):
        raise SurgeryError(f"expected BASE ADAPTED [SAFETY], found {len(checkpoints)} checkpoint(s)")
    return dict(zip(("base", "adapted", "safety"), checkpoints, strict=False))


def check_case_folder(folder: Path) -> None:
    """Refuse a case folder that could not be made, before anything is trained for it. Raises TargetError."""
    nearest = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        reason = "not writable" if nearest.is_dir() else "not a directory"
        raise TargetError(f"{folder}: can't be made, {nearest} is {reason}. Give another folder with --case.")


def _create(directory: Path, roles: Mapping[str, str], new: bool) -> Case:
    """Open a case on checkpoints that were seen to belong together: a case that can't be used is never made."""
    align({role: Checkpoint.open(ref) for role, ref in roles.items()})
    return Case.create(directory, dict(roles), new)


@contextmanager
def _case_to_plan(directory: Path, roles: Mapping[str, str] | None, new: bool) -> Iterator[Case]:
    """The case as it would be opened; one that is not there yet is made in a temporary folder."""
    if roles is None or _holds(directory, roles):
        yield Case.open(directory)
        return
    if directory.exists() and not new:
        raise TargetError(
            f"{directory}: holds something else. Give --new to move it aside, or another folder with --case."
        )
    check_case_folder(directory)
    with tempfile.TemporaryDirectory(prefix="vlsurgery-plan-") as folder:
        yield _create(Path(folder) / "case", roles, False)


def _holds(directory: Path, roles: Mapping[str, str]) -> bool:
    """Whether the directory is a case of these very checkpoints."""
    if not (directory / "case.json").is_file():
        return False
    held = {role: os.path.realpath(checkpoint.path) for role, checkpoint in Case.open(directory).checkpoints.items()}
    return held == {role: os.path.realpath(ref) for role, ref in roles.items()}
