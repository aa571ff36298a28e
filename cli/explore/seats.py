"""The roles of a case that a typed prompt can be read with, and why some can't."""

from functools import partial
from typing import TYPE_CHECKING

from vlsurgery.cli.explore.bench import Seat
from vlsurgery.cli.workflow.engine import Job
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.errors import SurgeryError

if TYPE_CHECKING:
    from vlsurgery.probes.evaluation.subjects import Subject


def seats_of(job: Job) -> dict[str, Seat]:
    """Every role of the case, the graft, and the merge where the case wrote one; each may be absent."""
    absent = {role: _why_absent(job, role) for role in job.checkpoints}
    seats = [Seat("base", partial(_checkpoint, job, "base"), absent["base"])]
    seats.append(Seat("graft", partial(_graft, job), absent["base"] or absent["adapted"]))
    others = [role for role in job.checkpoints if role != "base"]
    seats += [Seat(role, partial(_checkpoint, job, role), absent[role]) for role in others]
    if job.case.settings_of("merge") is not None:
        seats.append(Seat("merged", partial(_merged, job), absent["adapted"] or _why_no_merge(job)))
    return {seat.role: seat for seat in seats}


def _why_absent(job: Job, role: str) -> str | None:
    """Why a checkpoint of the case can't be loaded."""
    try:
        job.checkpoints[role]
    except SurgeryError as error:
        return str(error)
    return None


def _why_no_merge(job: Job) -> str | None:
    """Why the merge can't be loaded."""
    try:
        found = job.merged
    except SurgeryError as error:
        return str(error)
    return None if found else "merged: not as the case wrote it. Make it again: vlsurgery merge --auto"


def _checkpoint(job: Job, role: str) -> "Subject":
    from vlsurgery.probes.evaluation.subjects import Subject

    return Subject(role, job.checkpoints[role])


def _graft(job: Job) -> "Subject":
    from vlsurgery.probes.evaluation.subjects import graft

    return graft(job.checkpoints["adapted"], job.checkpoints["base"])


def _merged(job: Job) -> "Subject":
    from vlsurgery.probes.evaluation.subjects import Subject

    merged: Checkpoint | None = job.merged
    assert merged is not None  # `_why_no_merge` has looked.
    return Subject("merged", merged)
