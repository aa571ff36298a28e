"""The plan of a job: each pending step with what it takes."""

from collections.abc import Sequence
from dataclasses import replace

from vlsurgery.cli.workflow.engine import Job, Pending
from vlsurgery.cli.workflow.estimates import ModelSizes, PlannedStep
from vlsurgery.cli.workflow.steps import diff_settings


def plan(job: Job, pending: Sequence[Pending]) -> list[PlannedStep]:
    """The pending steps of a job with what each takes. Reads headers and prompts, no weights; neither for a report."""
    if all(each.step.name == "report" for each in pending):
        return [PlannedStep(each.step.name, each.reason, _writes(job, each)) for each in pending]
    from vlsurgery.cli.workflow.sizes import sizes_of

    is_merged = job.case.settings_of("merge") is not None or any(each.step.name == "merge" for each in pending)
    sizes = sizes_of(job, job.prompts, is_merged)
    steps = [sizes.planned(each.step.name, each.reason, _writes(job, each)) for each in pending]
    if job.options.ray is None:
        return steps
    models = len(job.checkpoints) + 1 + 2 * is_merged  # the graft; the merge and the best uniform one
    return [_divided(job, step, job.options.ray, models, sizes) for step in steps]


def _divided(job: Job, step: PlannedStep, address: str, models: int, sizes: ModelSizes) -> PlannedStep:
    """The step, with how a Ray cluster would divide it where it does. models: that an evaluation asks."""
    from vlsurgery.cli.workflow.divided import divided_diff, divided_evaluation, divided_merge, divided_models
    from vlsurgery.probes.grid_search import coarse_grid
    from vlsurgery.probes.targets import working_prompts

    if step.step == "diff":
        level = diff_settings(job)["level"]
        return replace(step, ray=divided_diff(address, job.alignment, level))
    if step.step == "merge":
        from vlsurgery.surgery.merge.preparation import prepare_merge
        from vlsurgery.surgery.merge.recipe import Recipe

        # The recipe may not be written yet; a blend takes as long whatever its coefficients are.
        recipe = Recipe.of(job.checkpoints, {"default": dict.fromkeys(job.sources, 0.5)})
        return replace(step, ray=divided_merge(address, recipe, prepare_merge(recipe, job.alignment), step.bytes_read))
    if step.step == "coefficients":
        return replace(step, ray=divided_models(address, step, sizes, len(coarse_grid(len(job.sources)))))
    if step.step == "probe":
        return replace(step, ray=divided_models(address, step, sizes, len(working_prompts(job.prompts))))
    if step.step == "evaluate":
        return replace(step, ray=divided_evaluation(address, step, models))
    return step


def _writes(job: Job, pending: Pending) -> tuple[str, ...]:
    files = pending.step.files(job.case, pending.step.settings(job))
    root = job.case.folder
    return tuple(str(file.relative_to(root) if file.is_relative_to(root) else file) for file in files)
