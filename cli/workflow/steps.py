"""What each step of a case does: call the room whose work it is, and save the result with settings and checkpoints."""

import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from vlsurgery.cli.outputs import check_output, is_report
from vlsurgery.cli.workflow.choice import choice_settings, chosen_coefficients, path_gains
from vlsurgery.cli.workflow.engine import Files, Job, Settings, Step
from vlsurgery.cli.workflow.engines import engine_for_models, engine_for_weights
from vlsurgery.cli.workflow.process import tuned_for_weights
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.errors import SurgeryError, TargetError
from vlsurgery.surgery.runtime.atomic_file import replacing

if TYPE_CHECKING:
    from torch import Tensor

    from vlsurgery.probes.evaluation.subjects import Subject
    from vlsurgery.probes.results import BehaviourResult, ProbeResult, TradeoffResult
    from vlsurgery.surgery.results import DiffResult

SINGLE_THREAD_PARAMETERS = 20_000_000  # models with fewer run in one thread


def diff_settings(job: Job) -> Settings:
    """The level of the diff: the one asked for, else the case's own, else full. A full one serves for norms."""
    recorded = job.case.settings_of("diff")
    done = (recorded or {}).get("level")
    if recorded and done == "full" and job.case.is_current("diff", recorded):
        return recorded
    return {"level": job.options.level or done or "full"}


def _run_diff(job: Job, settings: Settings) -> None:
    from vlsurgery.surgery.diff.run import diff

    if settings["level"] == "full":
        job.say("diff: finds the spectrum of every matrix (--level norms does without, in a fraction of the time)")
    tuned = tuned_for_weights(job.checkpoints.values(), with_torch=settings["level"] == "full")
    with tuned, engine_for_weights(job.options.ray) as engine:
        result = diff(job.alignment, settings["level"], job.progress, engine)
    job.case.save(result, settings)


def prepare_to_run(job: Job) -> None:
    """Silence transformers' own notices, and run small models in one thread.

    The matrices of a small model are too small to divide: on a busy machine, several threads that wait for each other
    were measured to take ten times as long as one.
    """
    import torch

    from vlsurgery.probes.models import quiet_transformers

    quiet_transformers()
    if sum(tensor.numel for tensor in job.checkpoints["adapted"].values()) < SINGLE_THREAD_PARAMETERS:
        torch.set_num_threads(1)


def _probe_settings(job: Job) -> Settings:
    return _asking_settings(job, "probe")


def _asking_settings(job: Job, step: str) -> Settings:
    """The prompts, and how models are run where that is not the default."""
    return {**job.prompt_source.settings, **job.running_settings(step)}


def _run_probe(job: Job, settings: Settings) -> None:
    from vlsurgery.probes.probe import probe

    prepare_to_run(job)
    options = job.options
    for note in job.prompt_source.notes:
        job.say(f"probe: {note}")
    job.case.log_look({"step": "probe", "roles": list(job.checkpoints), "prompts": settings["prompts"]})
    judge, loader = job.judge_source.default, job.loader("probe")
    with (
        engine_for_models(options.ray, job.checkpoints.values(), options.running.device) as engine,
        _scratch(job) as at,
    ):
        found = probe(job.alignment, job.prompts, job.progress, judge, loader, engine, at)
    result = found.result.model_copy(update={"notes": [*found.result.notes, *job.prompt_source.notes]})
    _save_directions(job, found.directions)
    job.case.save(found.targets, settings)
    job.case.save(result, settings)


@contextmanager
def _scratch(job: Job) -> Iterator[Path]:
    """A folder in the case, which all machines of a cluster see. It is left as it is by a probe that is cut short, with
    what models answered, for the next one."""
    folder = job.case.path(".probe")
    folder.mkdir(exist_ok=True)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def _save_directions(job: Job, directions: "Mapping[str, Tensor]") -> None:
    """Write the directions; the same ones give the same bytes. Raises TargetError where that can't be done."""
    from vlsurgery.probes.tensor_file import tensor_file

    path = job.case.path("directions.safetensors")
    metadata = {role: reference.identity for role, reference in job.case.refs.items()}
    try:
        with replacing(path) as fresh:
            fresh.write_bytes(tensor_file(directions, metadata))
    except OSError as error:
        raise TargetError(f"{path}: can't be written ({error.strerror or error}).") from error


def _coefficient_settings(job: Job) -> Settings:
    return {**_asking_settings(job, "probe"), **choice_settings(job)}


def _run_coefficients(job: Job, settings: Settings) -> None:
    from vlsurgery.probes.selection import recipe_of

    prepare_to_run(job)
    if job.options.toward == "both" and "safety" not in job.sources:
        job.say("coefficients: this case has no safety checkpoint, so the merge goes toward base only")
    result = chosen_coefficients(job, settings)
    recipe = recipe_of(result, job.checkpoints, path_gains(job))
    keep_edited_recipe(job)
    recipe.save(job.case.path("recipe.yaml"))
    job.case.save(result, settings)


def keep_edited_recipe(job: Job) -> None:
    """Move a recipe that was changed by hand aside, so that it is not overwritten."""
    recipe, edited = job.case.path("recipe.yaml"), job.case.path("recipe.edited.yaml")
    done = job.case.settings_of("coefficients") is not None
    if done and recipe.exists() and not job.case.is_untouched("coefficients", [job.case.path("tradeoff.json"), recipe]):
        os.replace(recipe, edited)
        job.say(f"coefficients: the changed recipe is kept as {edited}; `vlsurgery merge --recipe` merges by it")


def _merge_settings(job: Job) -> Settings:
    recipe = job.case.path("recipe.yaml")
    digest = hashlib.sha256(recipe.read_bytes()).hexdigest() if recipe.is_file() else None
    out = "merged" if job.options.out is None else str(job.options.out.absolute())
    return {"out": out, "recipe": digest}


def _run_merge(job: Job, settings: Settings) -> None:
    from vlsurgery.surgery.merge.preparation import prepare_merge
    from vlsurgery.surgery.merge.run import run_merge
    from vlsurgery.surgery.mergekit import load_recipe

    recipe = load_recipe(job.case.path("recipe.yaml"), job.case.checkpoints.allow_pickle)
    prepared = prepare_merge(recipe, job.alignment)
    out, ignored = job.case.path(settings["out"]), job.options.ignored
    with tuned_for_weights(prepared.checkpoints.values()), engine_for_weights(job.options.ray) as engine:
        made = run_merge(recipe, out, job.progress, prepared, ignored=ignored, engine=engine)
    for note in made.notes:
        job.say(f"merge: {note}")


def check_merge_target(job: Job) -> None:
    """Refuse a target that can't be merged into, and roles whose tokens differ, before hours are spent on the steps
    before. Raises TargetError, AlignmentError."""
    from vlsurgery.surgery.alignment.mismatches import fit_of
    from vlsurgery.surgery.merge.preparation import check_ignored, refuse_serious
    from vlsurgery.surgery.writer.output_directory import check_target

    check_ignored(job.options.ignored)
    refuse_serious(fit_of(job.alignment).mismatches, job.options.ignored)
    inputs = [checkpoint.path for checkpoint in job.checkpoints.values()]
    needed = sum(tensor.nbytes for tensor in job.checkpoints["adapted"].values())
    check_target(job.case.path(_merge_settings(job)["out"]), inputs, needed)


def _evaluate_settings(job: Job) -> Settings:
    return {
        **_asking_settings(job, "evaluate"),
        **job.judge_source.settings,
        "merged": job.merged and job.merged.identity,
    }


def _run_evaluate(job: Job, settings: Settings) -> None:
    from vlsurgery.cli.workflow.history import history_entry
    from vlsurgery.cli.workflow.human_labels import with_human_labels
    from vlsurgery.cli.workflow.imports import imported
    from vlsurgery.figures.findings import roles_look_swapped
    from vlsurgery.probes.evaluation.completions import FILE as COMPLETIONS, CompletionFile
    from vlsurgery.probes.evaluation.evaluate import Asking, evaluate

    prepare_to_run(job)
    for note in job.prompt_source.budget_notes:
        job.say(f"evaluate: {note}")
    source = job.judge_source
    subjects = _subjects(job, job.merged if "merge" in settings["uses"] else None)
    roles = [subject.role for subject in subjects]
    looks = 1 + job.case.looks
    file = CompletionFile(job.case.path(COMPLETIONS))
    loader, said = job.loader("evaluate"), imported(source.imports)
    models = [subject.checkpoint for subject in subjects]
    with engine_for_models(job.options.ray, models, job.options.running.device) as engine:
        asking = Asking(source.judges, source.tokens, file, said, job.progress, loader, engine=engine)
        result = evaluate(subjects, job.prompts, looks, asking)
    result = with_human_labels(job.case, result.model_copy(update={"notes": [*job.prompt_source.notes, *result.notes]}))
    job.case.save(result, settings)
    job.case.log_look({"step": "evaluate", "roles": roles, "prompts": settings["prompts"], **history_entry(result)})
    if swapped := roles_look_swapped(result):
        raise SurgeryError(
            f"{swapped} The completions and {job.case.path('behaviour.json')} are kept. Open the case again with the "
            "roles the other way round: vlsurgery diff BASE ADAPTED [SAFETY] --new."
        )


def _subjects(job: Job, merged: Checkpoint | None) -> "list[Subject]":
    """The models to evaluate: the case's roles and the graft, and with `merged` also the best uniform merge."""
    from vlsurgery.probes.evaluation.subjects import Subject, graft
    from vlsurgery.probes.results import TradeoffResult

    base, adapted = job.checkpoints["base"], job.checkpoints["adapted"]
    subjects = [Subject("base", base), graft(adapted, base)]
    subjects += [Subject(role, checkpoint) for role, checkpoint in job.checkpoints.items() if role != "base"]
    if merged:
        uniform = job.result(TradeoffResult).chosen("uniform")
        assert uniform is not None  # `choose` always compares with the best uniform merge.
        sources = {role: job.checkpoints[role] for role in uniform.parameters}
        subjects.append(Subject("merged:uniform", adapted, uniform.coefficients, sources))
        subjects.append(Subject("merged", merged))
    return subjects


def _layers_settings(job: Job) -> Settings:
    return _asking_settings(job, "evaluate")


def _run_layers(job: Job, settings: Settings) -> None:
    from vlsurgery.probes.evaluation.completions import FILE as COMPLETIONS, load_completions
    from vlsurgery.probes.layer_gains import layer_gains

    prepare_to_run(job)
    said = load_completions(job.case.path(COMPLETIONS)).records
    job.case.save(layer_gains(job.alignment, job.prompts, said, job.progress, job.loader("evaluate")), settings)


def _report_settings(job: Job) -> Settings:
    page = job.options.page
    return {"page": "report.html" if page is None else str(page.absolute()), "cdn": job.options.cdn}


def check_report_page(job: Job) -> None:
    """Refuse to write the report over a file that is none, before hours are spent on the steps before. Raises
    TargetError."""
    check_output(job.case.path(_report_settings(job)["page"]), is_report, "a report of ours", "-o")


def report_results(
    job: Job, settings: Settings
) -> tuple["DiffResult", "ProbeResult | None", "BehaviourResult | None", "TradeoffResult | None"]:
    """What a report with these settings shows; None for what the case lacks, or holds out of date."""
    from vlsurgery.probes.results import BehaviourResult, ProbeResult, TradeoffResult
    from vlsurgery.surgery.results import DiffResult

    uses = settings["uses"]
    return (
        job.result(DiffResult),
        job.result(ProbeResult) if "probe" in uses else None,
        job.result(BehaviourResult) if "evaluate" in uses else None,
        job.result(TradeoffResult) if "coefficients" in uses else None,
    )


def _run_report(job: Job, settings: Settings) -> None:
    from vlsurgery.figures.report import write_report
    from vlsurgery.probes.evaluation.completions import FILE as COMPLETIONS, load_completions

    check_report_page(job)
    page, uses = job.case.path(settings["page"]), settings["uses"]
    results = report_results(job, settings)
    said = job.case.path(COMPLETIONS)
    completions = load_completions(said) if "evaluate" in uses and said.is_file() else None
    try:
        write_report(page, *results, settings["cdn"], completions)
    except OSError as error:
        raise TargetError(f"{page}: can't write the report ({error.strerror}). Name another file with -o.") from error


def _named(*names: str) -> Files:
    """Files of the case whose names never change."""
    return lambda case, settings: [case.path(name) for name in names]  # noqa: ARG005


def _at(setting: str) -> Files:
    """The file or directory that a setting names."""
    return lambda case, settings: [case.path(settings[setting])] if setting in settings else []


# name, needs, uses, files, settings, run
STEPS = (
    Step("diff", (), (), _named("diff.json"), diff_settings, _run_diff),
    Step("probe", (), (), _named("probe.json", "targets.json", "directions.safetensors"), _probe_settings, _run_probe),
    Step(
        "coefficients",
        ("diff", "probe"),
        (),
        _named("tradeoff.json", "recipe.yaml"),
        _coefficient_settings,
        _run_coefficients,
    ),
    Step("merge", ("coefficients",), (), _at("out"), _merge_settings, _run_merge),
    Step("evaluate", (), ("merge",), _named("behaviour.json", "completions.jsonl"), _evaluate_settings, _run_evaluate),
    Step("report", ("diff",), ("probe", "coefficients", "evaluate"), _at("page"), _report_settings, _run_report),
    Step("layers", ("evaluate",), (), _named("layers.json"), _layers_settings, _run_layers),
)
AUTO_GOALS = ("merge", "evaluate", "report")  # what `vlsurgery merge --auto` brings about
