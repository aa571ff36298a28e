"""An evaluation of any models, without a case."""

import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from vlsurgery.cli.options import Session
from vlsurgery.cli.workflow.engine import StepOptions, loader_of
from vlsurgery.cli.workflow.engines import engine_for_models
from vlsurgery.cli.workflow.estimates import PlannedStep, about
from vlsurgery.cli.workflow.served import beside, interviewed
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.checkpoint.text_stack import choose_text_stacks
from vlsurgery.surgery.errors import SurgeryError
from vlsurgery.surgery.runtime.urls import refuse_urls

if TYPE_CHECKING:
    from vlsurgery.cli.workflow.judge_source import JudgeSource
    from vlsurgery.cli.workflow.prompt_source import PromptSource
    from vlsurgery.probes.endpoint import ServedModel
    from vlsurgery.probes.evaluation.completions import CompletionFile
    from vlsurgery.probes.prompts import Prompt
    from vlsurgery.probes.results import BehaviourResult
    from vlsurgery.probes.specimens.miniature import Specimen


def evaluate_models(
    session: Session,
    refs: Sequence[str],
    options: StepOptions,
    file: Path | None,
    allow_pickle: bool,
    text_stacks: Sequence[str] = (),
    served: "Sequence[ServedModel]" = (),
) -> "BehaviourResult | None":
    """Ask models by their references and those that servers run, and count imported logs beside them; under `--plan`,
    say so and return None.

    All prompts of the user's files are asked, as nothing is fitted to any of them; of the package's, those of `report`.
    file: where completions are kept and resumed from.
    """
    from vlsurgery.cli.workflow.judge_source import free_judge_source
    from vlsurgery.cli.workflow.prompt_source import prompt_source
    from vlsurgery.probes.evaluation.completions import CompletionFile

    refuse_urls(refs, "evaluate")
    named = by_name([Checkpoint.open(ref, allow_pickle=allow_pickle) for ref in refs])
    choose_text_stacks(named.values(), text_stacks)
    served = [beside(named, each) for each in served]
    specimen = specimen_of_all(list(named.values())) if named else None
    asked = prompt_source(specimen, options.prompts or (), options.images, whole=True)
    source = free_judge_source(options, specimen is not None)
    _check_ray(options.ray, named, file)
    if options.budget is not None and named:
        from vlsurgery.cli.workflow.budget import fitting

        sample = fitting(
            asked, options.budget, lambda prompts: _planned(named, options, source, prompts).seconds or 0.0
        )
        asked = replace(asked, sample=sample)
    elif options.budget is not None and served:
        raise SurgeryError("--budget: how fast an endpoint's model answers isn't known. Give fewer with --prompts.")
    if session.plan:
        step = None if not named else _planned(named, options, source, asked.prompts)
        _show_plan(session, asked.prompts, source, served, named, step)
        return None
    for note in asked.budget_notes:
        session.console.say(note)
    kept = None if file is None else CompletionFile(file)
    source.judges  # noqa: B018  (a judge that can't be had is told before a file is made)
    with nullcontext() if kept is None else kept.alone():
        result = _measured(session, named, served, asked, source, options, kept)
    return result.model_copy(update={"notes": [*asked.notes, *result.notes]})


def _check_ray(address: str | None, named: Mapping[str, Checkpoint], file: Path | None) -> None:
    """Raise SurgeryError where --ray has nothing to divide, or its machines could not exchange what they must."""
    if address is None:
        return
    if not named:
        raise SurgeryError(f"--ray {address}: divides models that are run here, and there is none. Leave it out.")
    if "adapted" in named and file is None and not address.startswith("local"):
        raise SurgeryError(
            f"--ray {address}: the KL from `adapted` is measured by files that workers exchange. Name a place for them "
            "that all machines see: --completions FILE.jsonl."
        )


def _measured(
    session: Session,
    named: Mapping[str, Checkpoint],
    served: "Sequence[ServedModel]",
    asked: "PromptSource",
    source: "JudgeSource",
    options: StepOptions,
    file: "CompletionFile | None",
) -> "BehaviourResult":
    """What the models do: first those that servers run are asked, then those that are run here."""
    from vlsurgery.cli.workflow.imports import imported
    from vlsurgery.probes.evaluation.concluding import conclude
    from vlsurgery.probes.evaluation.tabulate import Measured

    judges, progress = source.judges, session.console.progress
    said = [interviewed(session, each, asked.prompts, source.tokens, file) for each in served]
    records = [*(record for each in said for record in each.records), *imported(source.imports)]
    notes = [note for each in said for note in each.notes]
    checkpoints = {each.role: found.ref for each, found in zip(served, said, strict=True)}
    no_divergence = {each.role: each.no_kl for each in served}
    if named:
        from vlsurgery.probes.evaluation.evaluate import Asking, evaluate
        from vlsurgery.probes.evaluation.subjects import Subject
        from vlsurgery.probes.models import quiet_transformers

        quiet_transformers()
        loader = loader_of(options.running)
        with engine_for_models(options.ray, named.values(), options.running.device) as engine:
            asking = Asking(judges, source.tokens, file, records, progress, loader, no_divergence, engine)
            result = evaluate([Subject(role, each) for role, each in named.items()], asked.prompts, 1, asking)
        checkpoints = {role: each.ref_model for role, each in named.items()} | checkpoints
        return result.model_copy(update={"checkpoints": checkpoints, "notes": [*result.notes, *notes]})
    measured = Measured(notes=notes, no_divergence=no_divergence)
    result = conclude(records, judges, source.tokens, measured, file, progress)
    return result.model_copy(update={"checkpoints": checkpoints})


def _planned(
    named: Mapping[str, Checkpoint], options: StepOptions, source: "JudgeSource", prompts: "Sequence[Prompt]"
) -> PlannedStep:
    """What the models that are run here take for these prompts."""
    from vlsurgery.cli.workflow.sizes import answer_of, free_sizes

    answer = answer_of(source.specimen, source.tokens)
    sizes = free_sizes(named, prompts, loader_of(options.running), source.tokens, answer)
    step = sizes.planned("evaluate", "asked for")
    if options.ray is None:
        return step
    from vlsurgery.cli.workflow.divided import divided_evaluation

    return replace(step, ray=divided_evaluation(options.ray, step, len(named)))


def _show_plan(
    session: Session,
    prompts: "Sequence[Prompt]",
    source: "JudgeSource",
    served: "Sequence[ServedModel]",
    named: Mapping[str, Checkpoint],
    step: PlannedStep | None,
) -> None:
    """Say what would be asked, of whom, and how long that takes here; no server is asked anything.

    step: of the models that are run here.
    """
    report = [prompt for prompt in prompts if prompt.split == "report"]
    pictured = sum(prompt.image is not None for prompt in report)
    seconds = (step and step.seconds) or 0.0
    told = {"models": list(named), "prompts": len(report), "tokens": source.tokens, "seconds": seconds}
    if served:
        told["served"] = {each.role: each.endpoint.url for each in served}
        told["requests"] = len(report) * len(served)
    divided = step and step.ray
    if divided:
        told["ray"] = asdict(divided)
    session.console.emit(json.dumps(told))
    lines = [
        f"Would send up to {len(report)} requests ({pictured} with pictures) for {each.name} to {each.endpoint.url}, "
        f"{each.connections} at a time, {source.tokens} tokens of completion at most. How fast it answers isn't known."
        for each in served
    ]
    if named or not served:
        lines.append(
            f"Would ask {len(named)} models ({', '.join(named)}) up to {len(report)} prompts each, {source.tokens} "
            f"tokens of completion at most; {about(seconds)}."
        )
    if divided:
        lines.append(f"Divided: {divided.sentence()}.")
    session.console.show(*lines, "Nothing was written.")


def by_name(checkpoints: Sequence[Checkpoint]) -> dict[str, Checkpoint]:
    """The checkpoints by the last part of their references, or by the whole reference where that is taken."""
    found: dict[str, Checkpoint] = {}
    for checkpoint in checkpoints:
        name = checkpoint.ref.rstrip("/").rpartition("/")[2]
        found[checkpoint.ref if name in found else name] = checkpoint
    return found


def specimen_of_all(checkpoints: "Sequence[Checkpoint]") -> "Specimen | None":
    """The built-in specimen that all of the models are of, which has its own prompts and judge."""
    from vlsurgery.probes.specimens.miniature import specimen_of

    found = {each.root: each for each in map(specimen_of, (checkpoint.path for checkpoint in checkpoints)) if each}
    whole = all(specimen_of(checkpoint.path) for checkpoint in checkpoints)
    return next(iter(found.values())) if whole and len(found) == 1 else None
