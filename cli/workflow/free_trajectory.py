"""A training run measured by references, without a case."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vlsurgery.cli.options import Session
from vlsurgery.cli.workflow.engine import StepOptions, loader_of
from vlsurgery.cli.workflow.free_evaluation import specimen_of_all
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.checkpoint.text_stack import choose_text_stacks
from vlsurgery.surgery.runtime.urls import refuse_urls

if TYPE_CHECKING:
    from vlsurgery.probes.trajectory_results import TrajectoryResult


@dataclass(frozen=True)
class RunAsked:
    """A training run as the command names it. requests: of a prompt set, at most. generate: also count completions.
    keep: the file that what models gave is kept in."""

    base: str
    checkpoints: Sequence[str]
    requests: int
    generate: bool = False
    keep: Path | None = None
    allow_pickle: bool = False
    text_stacks: Sequence[str] = ()


def measure_run(session: Session, asked: RunAsked, options: StepOptions) -> "TrajectoryResult | None":
    """Measure a training run; under `--plan`, say what would be asked and return None."""
    from vlsurgery.cli.workflow.judge_source import free_judge_source
    from vlsurgery.cli.workflow.prompt_source import prompt_source
    from vlsurgery.probes.models import quiet_transformers
    from vlsurgery.probes.prompts import prompts_digest
    from vlsurgery.probes.trajectory.base_completions import Answering
    from vlsurgery.probes.trajectory.interview import TrajectorySettings
    from vlsurgery.probes.trajectory.kept import KeptRun
    from vlsurgery.probes.trajectory.run import asked_prompts, trajectory
    from vlsurgery.probes.trajectory.steps import in_order

    refuse_urls((asked.base, *asked.checkpoints), "trajectory")
    refs = in_order(asked.checkpoints)
    opened = [Checkpoint.open(ref, allow_pickle=asked.allow_pickle) for ref in (asked.base, *refs)]
    choose_text_stacks(opened, asked.text_stacks)
    specimen = specimen_of_all(opened)
    source = prompt_source(specimen, options.prompts or (), options.images, whole=True)
    judges = free_judge_source(options, specimen is not None)
    prompts = asked_prompts(source.prompts, asked.requests)
    if session.plan:
        plan = {"checkpoints": refs, "prompts": len(prompts), "tokens": judges.tokens}
        session.console.emit(json.dumps(plan))
        what = "scored and answered" if asked.generate else "scored"
        session.console.show(
            f"Would ask the base {len(prompts)} prompts, {judges.tokens} tokens of completion at most, have them "
            f"{what} by {len(asked.checkpoints)} checkpoints, and compare the weights of each with the base's. Nothing "
            "was written."
        )
        return None
    quiet_transformers()
    kept = KeptRun(asked.keep)
    if len(kept):
        session.console.say(f"goes on from {asked.keep}: what models gave there is not asked again")
    answering = Answering(judges.default, judges.tokens)
    how = TrajectorySettings(answering, asked.generate, loader_of(options.running), kept)
    result = trajectory(opened[0], opened[1:], prompts, how, session.console.progress)
    asking = {"files": source.files, "images": str(source.images) if source.images else None}
    settings = {
        "requests": asked.requests,
        "generate": asked.generate,
        "tokens": judges.tokens,
        "prompts": {**asking, "digest": prompts_digest(prompts)},
    }
    return result.model_copy(update={"settings": settings, "notes": [*source.notes, *result.notes]})
