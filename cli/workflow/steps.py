"""What each step of a case does: calls the rooms, stamps the result with settings and checkpoints, saves it."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from vlsurgery.cli.workflow.case import Case
from vlsurgery.cli.workflow.engine import Files, Job, Settings, Step
from vlsurgery.cli.workflow.process import tuned_for_weights
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.errors import TargetError
from vlsurgery.surgery.results import Result

if TYPE_CHECKING:
    from vlsurgery.probes.evaluation.evaluate import Subject
R = TypeVar("R", bound=Result)

SMALL = 20_000_000  # parameters


def _stamped(result: R, job: Job, settings: Settings) -> R:
    refs = {role: checkpoint.ref_model for role, checkpoint in job.checkpoints.items()}
    return result.model_copy(update={"settings": settings, "checkpoints": refs})


def diff_settings(job: Job) -> Settings:
    """The level of the diff: the one asked for, else the case's own, else full. A full one serves for norms."""
    recorded = job.case.settings_of("diff")
    had = (recorded or {}).get("level")
    if recorded is not None and had == "full" and job.case.is_current("diff", recorded, ()):
        return {"level": "full"}
    return {"level": job.options.level or had or "full"}


def _run_diff(job: Job, settings: Settings) -> None:
    from vlsurgery.surgery.diff.run import diff

    if settings["level"] == "full":
        job.say("diff: finds the spectrum of every matrix (--level norms does without, in a fraction of the time)")
    computed = any(checkpoint.is_computed for checkpoint in job.checkpoints.values())
    with tuned_for_weights(with_torch=settings["level"] == "full" or computed):
        result = diff(job.alignment, settings["level"], job.progress)
    _stamped(result, job, settings).save(job.case.path("diff.json"))


def _prepare_to_run(job: Job) -> None:
    """Settle what models share in this process: transformers' own notices stay silent, small models get one thread.

    The matrices of a small model are too small to divide: on a busy machine threads that wait for each other were
    measured to take ten times as long as one alone.
    """
    import torch

    from vlsurgery.probes.models import quiet_transformers

    quiet_transformers()
    if sum(tensor.numel for tensor in job.checkpoints["adapted"].values()) < SMALL:
        torch.set_num_threads(1)


def _prompt_settings(job: Job) -> Settings:
    return job.material.settings


def _run_probe(job: Job, settings: Settings) -> None:
    from safetensors.torch import save_file

    from vlsurgery.probes.probe import probe

    _prepare_to_run(job)
    for note in job.material.notes:
        job.say(f"probe: {note}")
    _log_look(job, "probe", list(job.checkpoints), settings)
    found = probe(job.alignment, job.prompts, job.progress)
    result = found.result.model_copy(update={"notes": [*found.result.notes, *job.material.notes]})
    partial = job.case.path("directions.safetensors.partial")
    metadata = {role: checkpoint.identity for role, checkpoint in job.checkpoints.items()}
    save_file(found.directions, partial, metadata=metadata)
    os.replace(partial, job.case.path("directions.safetensors"))
    _stamped(found.targets, job, settings).save(job.case.path("targets.json"))
    _stamped(result, job, settings).save(job.case.path("probe.json"))


def _log_look(job: Job, step: str, roles: Sequence[str], settings: Settings) -> int:
    """Note in the case that a step looks at `report` prompts. Returns how many looks there were, this one included."""
    return job.case.log_look({"step": step, "roles": list(roles), "prompts": settings["prompts"]})


def _coefficient_settings(job: Job) -> Settings:
    return {**_prompt_settings(job), "policy": job.options.policy, "sources": list(job.sources)}


def _run_coefficients(job: Job, settings: Settings) -> None:
    from vlsurgery.probes.results import ProbeResult, TargetsResult
    from vlsurgery.probes.selection import choose, recipe_of
    from vlsurgery.surgery.results import DiffResult

    _prepare_to_run(job)
    if job.options.toward == "both" and "safety" not in job.sources:
        job.say("coefficients: this case has no safety checkpoint, so the merge goes toward base only")
    found = job.result(ProbeResult)
    gains = {gain.block: gain.gain for gain in found.attribution if gain.method == "path"}
    changes = {
        block.key: block.metrics.vl.relative
        for block in job.result(DiffResult).blocks
        if block.tower == "text" and block.metrics.vl and block.metrics.vl.relative is not None
    }
    result = choose(
        job.alignment,
        job.prompts,
        job.result(TargetsResult),
        job.options.policy,
        job.options.toward,
        gains,
        changes,
        job.progress,
    )
    recipe = recipe_of(result, job.checkpoints, gains)
    keep_edited_recipe(job)
    recipe.save(job.case.path("recipe.yaml"))
    _stamped(result, job, settings).save(job.case.path("tradeoff.json"))


def keep_edited_recipe(job: Job) -> None:
    """A recipe that somebody changed by hand is moved aside, and not written over."""
    recipe, edited = job.case.path("recipe.yaml"), job.case.path("recipe.edited.yaml")
    left = [job.case.path("tradeoff.json"), recipe]
    done = job.case.settings_of("coefficients") is not None
    if done and recipe.exists() and not job.case.is_untouched("coefficients", left):
        os.replace(recipe, edited)
        job.say(f"coefficients: the changed recipe is kept as {edited}; `vlsurgery merge --recipe` merges by it")


def _merge_settings(job: Job) -> Settings:
    recipe = job.case.path("recipe.yaml")
    digest = hashlib.sha256(recipe.read_bytes()).hexdigest() if recipe.exists() else None
    out = "merged" if job.options.out is None else str(job.options.out.absolute())
    return {"out": out, "recipe": digest}


def merged_path(case: Case, settings: Settings) -> Path:
    """Where a merge of these settings wrote its checkpoint."""
    return case.path(settings["out"])


def _run_merge(job: Job, settings: Settings) -> None:
    from vlsurgery.surgery.merge.recipe import Recipe
    from vlsurgery.surgery.merge.run import prepare_merge, run_merge

    recipe = Recipe.load(job.case.path("recipe.yaml"))
    prepared = prepare_merge(recipe, job.alignment)
    with tuned_for_weights(any(checkpoint.is_computed for checkpoint in prepared.checkpoints.values())):
        run_merge(recipe, merged_path(job.case, settings), job.progress, prepared)


def check_merge_target(job: Job) -> None:
    """Refuse a place that can't be merged into before hours are spent on the way there. Raises TargetError."""
    from vlsurgery.surgery.writer.output_directory import check_target

    inputs = [checkpoint.path for checkpoint in job.checkpoints.values()]
    needed = sum(tensor.nbytes for tensor in job.checkpoints["adapted"].values())
    check_target(merged_path(job.case, _merge_settings(job)), inputs, needed)


def _evaluate_settings(job: Job) -> Settings:
    """A merge whose files are not what the merge left is not opened: it may be broken, and is not shown either."""
    recorded = job.case.settings_of("merge")
    merged = merged_path(job.case, recorded) if recorded else None
    whole = merged is not None and merged.exists() and job.case.is_untouched("merge", [merged])
    identity = Checkpoint.open(merged).identity if merged and whole else None
    return {**_prompt_settings(job), "merged": identity}


def _run_evaluate(job: Job, settings: Settings) -> None:
    from vlsurgery.probes.evaluation.evaluate import evaluate

    _prepare_to_run(job)
    subjects = _subjects(job, with_merge="merge" in settings["uses"])
    looks = _log_look(job, "evaluate", [subject.role for subject in subjects], settings)
    result = evaluate(subjects, job.prompts, looks, job.progress)
    _stamped(result, job, settings).save(job.case.path("behaviour.json"))


def _subjects(job: Job, with_merge: bool) -> "list[Subject]":
    """Everyone whose behaviour is shown: the case's roles, the graft, and the merges where there are some."""
    from vlsurgery.probes.evaluation.evaluate import Subject, graft
    from vlsurgery.probes.results import TradeoffResult

    base, adapted = job.checkpoints["base"], job.checkpoints["adapted"]
    subjects = [Subject("base", base), graft(adapted, base)]
    subjects += [Subject(role, checkpoint) for role, checkpoint in job.checkpoints.items() if role != "base"]
    if with_merge:
        uniform = job.result(TradeoffResult).chosen("uniform")
        assert uniform is not None  # `choose` always compares with the best uniform merge.
        sources = {role: job.checkpoints[role] for role in uniform.parameters}
        merged = merged_path(job.case, job.case.settings_of("merge") or {})
        subjects.append(Subject("merged:uniform", adapted, uniform.coefficients, sources))
        subjects.append(Subject("merged", Checkpoint.open(merged)))
    return subjects


def _report_settings(job: Job) -> Settings:
    return {
        "page": "report.html" if job.options.page is None else str(job.options.page.absolute()),
        "cdn": job.options.cdn,
    }


def page_path(case: Case, settings: Settings) -> Path:
    """Where a report of these settings was written."""
    return case.path(settings["page"])


def _run_report(job: Job, settings: Settings) -> None:
    from vlsurgery.figures.report import write_report
    from vlsurgery.probes.results import BehaviourResult, ProbeResult, TradeoffResult
    from vlsurgery.surgery.results import DiffResult

    page, uses = page_path(job.case, settings), settings["uses"]
    results = (
        job.result(DiffResult),
        job.result(ProbeResult) if "probe" in uses else None,
        job.result(BehaviourResult) if "evaluate" in uses else None,
        job.result(TradeoffResult) if "coefficients" in uses else None,
    )
    try:
        write_report(page, *results, settings["cdn"])
    except OSError as error:
        raise TargetError(f"{page}: can't write the report ({error.strerror}). Name another file with -o.") from error


def _named(*names: str) -> Files:
    """Files of the case whose names never change."""
    return lambda case, settings: [case.path(name) for name in names]  # noqa: ARG005


STEPS = (
    Step("diff", (), (), _named("diff.json"), diff_settings, _run_diff),
    Step("probe", (), (), _named("probe.json", "targets.json", "directions.safetensors"), _prompt_settings, _run_probe),
    Step(
        "coefficients",
        ("diff", "probe"),
        (),
        _named("tradeoff.json", "recipe.yaml"),
        _coefficient_settings,
        _run_coefficients,
    ),
    Step(
        "merge",
        ("coefficients",),
        (),
        lambda case, settings: [merged_path(case, settings)],
        _merge_settings,
        _run_merge,
    ),
    Step("evaluate", (), ("merge",), _named("behaviour.json"), _evaluate_settings, _run_evaluate),
    Step(
        "report",
        ("diff",),
        ("probe", "coefficients", "evaluate"),
        lambda case, settings: [page_path(case, settings)],
        _report_settings,
        _run_report,
    ),
)
AUTO_GOALS = ("merge", "evaluate", "report")  # what `vlsurgery merge --auto` brings about
