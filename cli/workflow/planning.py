"""The plan of a job: each pending step with what it takes."""

from collections.abc import Sequence

from vlsurgery.cli.workflow.engine import Job, Pending
from vlsurgery.cli.workflow.estimates import PlannedStep


def plan(job: Job, pending: Sequence[Pending]) -> list[PlannedStep]:
    """The pending steps of a job with what each takes. Reads headers and prompts, no weights; neither for a report."""
    if all(each.step.name == "report" for each in pending):
        return [PlannedStep(each.step.name, each.reason, _writes(job, each)) for each in pending]
    from vlsurgery.cli.workflow.sizes import sizes_of

    is_merged = job.case.settings_of("merge") is not None or any(each.step.name == "merge" for each in pending)
    sizes = sizes_of(job, job.prompts, is_merged)
    return [sizes.planned(each.step.name, each.reason, _writes(job, each)) for each in pending]


def _writes(job: Job, pending: Pending) -> tuple[str, ...]:
    files = pending.step.files(job.case, pending.step.settings(job))
    root = job.case.folder
    return tuple(str(file.relative_to(root) if file.is_relative_to(root) else file) for file in files)
