"""What a command would do: which steps, why, how many bytes and passes through models each takes, and how long.

Writes nothing. Bytes are counted from headers, passes from prompts; memory is the peak of the process. Time is what the
passes take at the speed that is measured now.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Final

from vlsurgery.cli.console import Console
from vlsurgery.surgery.runtime.byte_counts import in_words

if TYPE_CHECKING:
    from vlsurgery.cli.workflow.divided import DividedWork
    from vlsurgery.cli.workflow.speed import ModelShape, Speed
    from vlsurgery.cli.workflow.workload import Workload

PROGRAM_BYTES: Final = 640_000_000  # what torch and transformers take
STREAM_BYTES: Final = 1 << 30  # the most memory that a diff or a merge takes
STREAM_SHARE: Final = 0.25  # of small checkpoints, what is in memory of them at once
WORKING_BYTES: Final = 1_900_000_000  # what batches, gradients and values of checkpoints take beside a running model
WORKING_SHARE: Final = 7.0  # and of a small one, as a share of its weights
TOLD_IN: Final = ((90.0, 1, "s"), (5400.0, 60, "min"), (float("inf"), 3600, "h"))  # seconds up to which, unit, name


@dataclass(frozen=True)
class PlannedStep:
    """A step that would run, why, and what it takes.

    writes: paths of files, those in the case relative to it. bytes_read, bytes_written: of weights. memory: peak bytes
    of the process. prompts: how many different prompts models are asked. forward, gradient: passes of one prompt
    through a model, without and with a gradient. completions: that models write; tokens: of these, as many as are
    expected. seconds: that models run; None where a step runs none. ray: how a cluster divides the work; None without.
    """

    step: str
    reason: str
    writes: tuple[str, ...]
    bytes_read: int = 0
    bytes_written: int = 0
    memory: int = PROGRAM_BYTES
    prompts: int = 0
    forward: int = 0
    gradient: int = 0
    completions: int = 0
    tokens: int = 0
    seconds: float | None = None
    ray: "DividedWork | None" = None


@dataclass(frozen=True)
class ModelSizes:
    """What a step's needs are computed from. stored: bytes of all checkpoints; adapted: of the adapted one. shape: of
    the adapted model."""

    stored: int
    adapted: int
    shape: "ModelShape"
    workload: "Workload"
    speed: "Speed"

    def planned(self, step: str, reason: str, writes: tuple[str, ...] = (), name: str = "") -> PlannedStep:
        """A step with what it takes. name: what it is called, where not by the step's."""
        found = PlannedStep(name or step, reason, writes)
        streamed = min(STREAM_BYTES, int(PROGRAM_BYTES + STREAM_SHARE * self.stored))
        match step:
            case "diff":
                return replace(found, bytes_read=self.stored, memory=streamed)
            case "merge":
                return replace(found, bytes_read=self.stored, bytes_written=self.adapted, memory=streamed)
            case "evaluate":
                return replace(self._running(found, step), bytes_read=self.stored + self.adapted)
            case "probe" | "coefficients" | "layers":
                return replace(self._running(found, step), bytes_read=self.stored)
        return found

    def _running(self, found: PlannedStep, step: str) -> PlannedStep:
        work = self.workload.of(step)
        return replace(
            found,
            memory=self._memory(),
            prompts=self.workload.asked(step),
            forward=round(work.forward),
            gradient=round(work.gradient),
            completions=round(work.completions),
            tokens=round(work.written_tokens),
            seconds=self.speed.seconds(work, self.shape),
        )

    def seconds(self, step: str) -> float:
        """How long models run in a step, at the speed that the machine has now."""
        return self.speed.seconds(self.workload.of(step), self.shape)

    def divided(self, step: str, workers: int) -> tuple[int, float]:
        """How many tasks workers have of a probe or of a choice of coefficients, and how long one process takes for
        them."""
        choice = step == "coefficients"
        count, work = self.workload.divided_choice() if choice else self.workload.divided_probe(workers)
        return count, self.speed.seconds(work, self.shape)

    def _memory(self) -> int:
        """Peak bytes of a running model: itself, and what a batch and the checkpoints' values take beside it, which is
        bounded (measured on models of 3 MB and 270 MB)."""
        weights = self.shape.bytes_each * self.shape.all
        return int(PROGRAM_BYTES + weights + min(WORKING_BYTES, WORKING_SHARE * weights))


def show_plan(console: Console, steps: Sequence[PlannedStep]) -> None:
    """Print a plan, as a table or as JSON."""
    console.emit(json.dumps({"plan": [asdict(step) for step in steps]}, indent=1))
    if not steps:
        console.show("Nothing to do: every step is there, under these settings and checkpoints.")
        return
    from vlsurgery.cli.view.tables import plain_table

    table = plain_table("What would be done", "step", "because", "writes", "reads", "memory", "models run", left=3)
    for step in steps:
        reads = in_words(step.bytes_read) if step.bytes_read else "–"
        time = "" if step.seconds is None else about(step.seconds)
        table.add_row(step.step, step.reason, "\n".join(step.writes), reads, in_words(step.memory), time)
    console.show(table)
    for step in steps:
        if step.seconds is not None:
            console.show(
                f"{step.step}: {step.prompts:,} prompts; {step.completions:,} completions of {step.tokens:,} tokens, "
                f"{step.forward:,} forward passes of a prompt and {step.gradient:,} with a gradient"
            )
        if step.ray is not None:
            console.show(f"{step.step}: {step.ray.sentence()}")
    total = sum(step.seconds or 0.0 for step in steps)
    told = f" Models run {about(total)} in all, at the speed that this machine has now." if total else ""
    console.show(f"Memory is the peak of the process.{told} Nothing was written.")


def about(seconds: float) -> str:
    """A time as people say it: about 40 s, about 3 min, about 2.5 h."""
    _, unit, name = next(each for each in TOLD_IN if seconds < each[0])
    value = seconds / unit
    return f"about {value:.1f} {name}" if name == "h" and value < 10 else f"about {max(1, round(value))} {name}"
