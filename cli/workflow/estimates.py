"""What a command would do: which steps, with a rough estimate of time, memory and prompts. Runs and writes nothing.

Time is counted in tokens read or written, each of 2 x parameters operations (Kaplan et al., arXiv 2001.08361, section
2.1) plus a fixed cost, at the speed of a short matrix product on this machine. Expect the truth within about a factor
of three.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from vlsurgery.cli.console import Console
from vlsurgery.cli.workflow.engine import Job, Pending
from vlsurgery.cli.workflow.speed import duration, operations_per_second, seconds_of_diff
from vlsurgery.cli.workflow.steps import diff_settings
from vlsurgery.surgery.alignment import align
from vlsurgery.surgery.checkpoint import Checkpoint

if TYPE_CHECKING:
    from vlsurgery.probes.prompts.prompts import Prompt

PROMPT_TOKENS = 32
ANSWER_TOKENS = 24
TOKEN_SECONDS = 2e-5  # what a token costs in a model so small that its arithmetic is free
BYTES_PER_SECOND = 3e8  # read, compared and written
START_SECONDS = 2.0  # imports and loading, of any step that runs a model
PROGRAM_BYTES = 5e8  # torch and transformers themselves
STREAM_BYTES = 1e9  # the most that a diff or a merge takes, whatever the model
BACKWARD = 3  # a forward pass with its backward, in forward passes
SPECIMEN_FACTS = {
    "parameters": 700_000,
    "moved": 500_000,
    "stored": 8_000_000,
    "blocks": 19,
    "width": 4,
    "roles": 3,
    "sources": 2,
}
SPECIMEN_DIFF_SECONDS = 3.0
TRAINING_SECONDS = 90.0
HARMFUL = ("harmful", "jailbroken")


@dataclass(frozen=True)
class Facts:
    """What estimates rest on.

    parameters: of the adapted model. moved: those of its text stack, which are moved and have gradients. stored:
    bytes of all checkpoints. blocks: that can be moved on their own. width: bytes of a parameter in a model that runs.
    roles, sources: how many checkpoints there are, and how many of them are merged toward. fits: whether
    coefficients are fitted. diff_seconds: what a diff takes. token_seconds: the cost of a token on this machine.
    """

    parameters: int
    moved: int
    stored: int
    blocks: int
    width: float
    roles: int
    sources: int
    fits: bool
    diff_seconds: float
    token_seconds: float
    prompts: "Sequence[Prompt]"

    def count(self, *splits: str, sets: Sequence[str] | None = None) -> int:
        return sum(p.split in splits and (sets is None or p.set in sets) for p in self.prompts)


@dataclass(frozen=True)
class Estimate:
    """What a step would take.

    memory: bytes at its peak, of weights and gradients; activations come on top, and grow with the length of prompts.
    prompts: different ones that models are asked.
    """

    seconds: float
    memory: float
    prompts: int


@dataclass(frozen=True)
class PlannedStep:
    """A step that would run, why, what it would write, and what it would take."""

    step: str
    reason: str
    writes: tuple[str, ...]
    estimate: Estimate


def facts_of(job: Job) -> Facts:
    """Look at headers and prompts of a job; no weights are read."""
    checkpoints = job.checkpoints
    tensors = [tensor for checkpoint in checkpoints.values() for tensor in checkpoint.values()]
    parameters = sum(tensor.numel for tensor in checkpoints["adapted"].values())
    alignment = align(checkpoints)
    pairs = [pair for pair in alignment.pairs if pair.site.tower == "text"]
    speed = operations_per_second()
    blocks = {pair.site.block for pair in pairs}
    return Facts(
        parameters=parameters,
        moved=sum(math.prod(pair.shape) for pair in pairs),
        stored=sum(tensor.nbytes for tensor in tensors),
        blocks=len(blocks),
        width=_width(checkpoints["adapted"]),
        roles=len(checkpoints),
        sources=len(job.sources),
        fits=job.options.policy == "fit",
        diff_seconds=seconds_of_diff(alignment, str(diff_settings(job)["level"]), speed),
        token_seconds=TOKEN_SECONDS + 2 * parameters / speed,
        prompts=job.prompts,
    )


def plan(job: Job, pending: Sequence[Pending]) -> list[PlannedStep]:
    """The pending steps of a job with their estimates."""
    facts = facts_of(job) if pending else None
    return [
        PlannedStep(each.step.name, each.reason, _writes(job, each), ESTIMATES[each.step.name](facts))
        for each in pending
        if facts
    ]


def show_plan(console: Console, steps: Sequence[PlannedStep]) -> None:
    """Print a plan, as a table or as JSON."""
    console.emit(json.dumps({"plan": [asdict(step) for step in steps]}, indent=1))
    if not steps:
        console.show("Nothing to do: every step is there, under these settings and checkpoints.")
        return
    from vlsurgery.cli.view.tables import plain_table

    table = plain_table("What would be done", "step", "because", "writes", "time", "memory", "prompts", left=3)
    for step in steps:
        took = step.estimate
        row = (step.step, step.reason, "\n".join(step.writes), duration(took.seconds), _size(took.memory))
        table.add_row(*row, str(took.prompts or ""))
    total = duration(sum(step.estimate.seconds for step in steps))
    console.show(
        table,
        f"About {total} in all; times are estimates, good to a factor of about three. Memory is that of weights and "
        "gradients; activations come on top. Nothing was written.",
    )


def _writes(job: Job, pending: Pending) -> tuple[str, ...]:
    """The names that a step would write, inside the case as the case calls them."""
    files = pending.step.files(job.case, pending.step.settings(job))
    root = job.case.folder
    return tuple(str(file.relative_to(root) if file.is_relative_to(root) else file) for file in files)


def _width(checkpoint: Checkpoint) -> float:
    """Bytes of a parameter as `models.load` holds it: float32 on a CPU, else as it is stored."""
    import torch

    if not torch.cuda.is_available():
        return 4
    tensors = checkpoint.values()
    return sum(tensor.nbytes for tensor in tensors) / sum(tensor.numel for tensor in tensors)


def _streamed(passes: float) -> Callable[[Facts], Estimate]:
    """A step that reads or writes all weights `passes` times, a piece at a time."""
    return lambda facts: Estimate(
        1 + passes * facts.stored / BYTES_PER_SECOND, min(STREAM_BYTES, PROGRAM_BYTES + facts.stored), 0
    )


def _probe(facts: Facts) -> Estimate:
    """Own answers of base and adapted, activations of every role, gradients along the path, transplants."""
    from vlsurgery.probes.attribution import MOST_KEPT, MOST_LOST, POINTS

    answers = facts.count("fit", "select") + facts.count("fit", "select", sets=HARMFUL)
    shown = (facts.roles + 1) * facts.count("fit", "select", "report", sets=("harmful", "harmless"))
    gradients = BACKWARD * POINTS[0] * 2 * MOST_LOST
    transplants = facts.blocks * (2 * MOST_LOST + MOST_KEPT)
    return _with_gradients(facts, _asked(facts, answers, shown + gradients + transplants, 1, len(facts.prompts)))


def _coefficients(facts: Facts) -> Estimate:
    """A grid of uniform merges and, where asked for, the fit."""
    from vlsurgery.probes import choice, fitting

    grid = len(choice.STRENGTHS) if facts.sources == 1 else len(choice.STRENGTHS) * (len(choice.STRENGTHS) + 1) // 2
    passes = grid * (2 * choice.MOST_LOST + choice.MOST_KEPT)
    if facts.fits:
        passes += BACKWARD * fitting.STEPS * (fitting.MOST_REFUSED + fitting.MOST_KEPT)
    estimate = _asked(facts, 0, passes, facts.sources, facts.count("fit", "select"))
    return _with_gradients(facts, estimate) if facts.fits else estimate


def _evaluate(facts: Facts) -> Estimate:
    """Whole answers of every role, the graft, the best uniform merge and the merge."""
    asked = facts.count("report")
    return _asked(facts, (facts.roles + 3) * asked, 0, 2, asked)


def _report(facts: Facts) -> Estimate:  # noqa: ARG001
    return Estimate(1.0, PROGRAM_BYTES, 0)


def _asked(facts: Facts, answers: int, passes: int, sources: int, prompts: int) -> Estimate:
    """A step that runs models. answers: whole ones. passes: forward passes of a prompt. sources: checkpoints held
    in memory beside the adapted one, in float32."""
    tokens = answers * (PROMPT_TOKENS + ANSWER_TOKENS) + passes * PROMPT_TOKENS
    memory = PROGRAM_BYTES + 4 * facts.parameters * (2 + sources)
    return Estimate(START_SECONDS + tokens * facts.token_seconds, memory, prompts)


def _with_gradients(facts: Facts, estimate: Estimate) -> Estimate:
    """Backward passes hold one gradient, as wide as the weight, for everything that can be moved."""
    return replace(estimate, memory=estimate.memory + facts.width * facts.moved)


ESTIMATES: Mapping[str, Callable[[Facts], Estimate]] = {
    "diff": lambda facts: Estimate(facts.diff_seconds, min(STREAM_BYTES, PROGRAM_BYTES + facts.stored), 0),
    "probe": _probe,
    "coefficients": _coefficients,
    "merge": _streamed(2),
    "evaluate": _evaluate,
    "report": _report,
}


def _size(memory: float) -> str:
    return f"{memory / 1e9:.1f} GB"


def plan_demo(seed: int, goals: Sequence[str]) -> list[PlannedStep]:
    """The demo from nothing: training, then every step at the specimen's size. What is cached or done is skipped."""
    from vlsurgery.probes.specimens.miniature import prompts

    facts = Facts(
        **SPECIMEN_FACTS,
        fits=True,
        diff_seconds=SPECIMEN_DIFF_SECONDS,
        token_seconds=TOKEN_SECONDS,
        prompts=prompts(seed),
    )
    train = PlannedStep("train", "unless it is cached", ("the cache directory",), Estimate(TRAINING_SECONDS, 1e9, 0))
    return [train, *(PlannedStep(goal, "unless the case has it", (), ESTIMATES[goal](facts)) for goal in goals)]
