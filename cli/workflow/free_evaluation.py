"""An evaluation of any models, without a case."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from vlsurgery.cli.options import Session
from vlsurgery.cli.workflow.engine import StepOptions, loader_of
from vlsurgery.cli.workflow.estimates import about
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.checkpoint.text_stack import choose_text_stacks

if TYPE_CHECKING:
    from vlsurgery.cli.workflow.estimates import ModelSizes
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
) -> "BehaviourResult | None":
    """Ask models by their references, and count imported logs beside them; under `--plan`, say so and return None.

    All prompts of the user's files are asked, as nothing is fitted to any of them; of the package's, those of `report`.
    file: where completions are kept and resumed from.
    """
    from vlsurgery.cli.workflow.imports import imported
    from vlsurgery.cli.workflow.judge_source import free_judge_source
    from vlsurgery.cli.workflow.prompt_source import prompt_source
    from vlsurgery.probes.evaluation.completions import CompletionFile
    from vlsurgery.probes.evaluation.evaluate import Asking, Subject, evaluate
    from vlsurgery.probes.models import quiet_transformers

    named = by_name([Checkpoint.open(ref, allow_pickle=allow_pickle) for ref in refs])
    choose_text_stacks(named.values(), text_stacks)
    specimen = specimen_of_all(list(named.values()))
    asked = prompt_source(specimen, options.prompts or (), options.images, whole=True)
    source = free_judge_source(options, specimen is not None)

    def planned(prompts: "Sequence[Prompt]") -> "ModelSizes":
        from vlsurgery.cli.workflow.sizes import answer_of, free_sizes

        answer = answer_of(specimen is not None, source.tokens)
        return free_sizes(named, prompts, loader_of(options.running), source.tokens, answer)

    if options.budget is not None and named:
        from vlsurgery.cli.workflow.budget import fitting

        sample = fitting(asked, options.budget, lambda prompts: planned(prompts).seconds("evaluate"))
        asked = replace(asked, sample=sample)
    if session.plan:
        count = sum(prompt.split == "report" for prompt in asked.prompts)
        seconds = planned(asked.prompts).seconds("evaluate") if named else 0.0
        told = {"models": list(named), "prompts": count, "tokens": source.tokens, "seconds": seconds}
        session.console.emit(json.dumps(told))
        session.console.show(
            f"Would ask {len(named)} models ({', '.join(named)}) up to {count} prompts each, {source.tokens} tokens of "
            f"completion at most; {about(seconds)}. Nothing was written."
        )
        return None
    for note in asked.budget_notes:
        session.console.say(note)
    quiet_transformers()
    asking = Asking(
        source.judges,
        source.tokens,
        None if file is None else CompletionFile(file),
        imported(source.imports),
        session.console.progress,
        loader_of(options.running),
    )
    subjects = [Subject(role, checkpoint) for role, checkpoint in named.items()]
    result = evaluate(subjects, asked.prompts, 1, asking)
    checkpoints = {role: checkpoint.ref_model for role, checkpoint in named.items()}
    return result.model_copy(update={"checkpoints": checkpoints, "notes": [*asked.notes, *result.notes]})


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
