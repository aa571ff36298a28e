"""What a command would do: which steps, why, and how many bytes and prompts each takes. Writes nothing.

Everything is counted from headers and prompt files; memory is the peak of the process.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

from vlsurgery.cli.console import Console
from vlsurgery.cli.workflow.engine import Job, Pending
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.runtime.byte_counts import in_words

if TYPE_CHECKING:
    from vlsurgery.probes.prompts import Prompt

PROGRAM_BYTES: Final = 500_000_000  # what torch and transformers take
STREAM_BYTES: Final = 1 << 30  # the most memory that a diff or a merge takes
WORKING_BYTES: Final = 700_000_000  # what batches, gradients and values of checkpoints take beside a running model
WORKING_SHARE: Final = 2.0  # and of a small one, as a share of its weights


@dataclass(frozen=True)
class PlannedStep:
    """A step that would run, why, and what it takes.

    writes: paths of files, those in the case relative to it. bytes_read, bytes_written: of weights. memory: peak bytes
    of the process. prompts: how many different prompts models are asked.
    """

    step: str
    reason: str
    writes: tuple[str, ...]
    bytes_read: int = 0
    bytes_written: int = 0
    memory: int = PROGRAM_BYTES
    prompts: int = 0


@dataclass(frozen=True)
class ModelSizes:
    """What a step's bytes are computed from. stored: bytes of all checkpoints; adapted: of the adapted one. parameters:
    of the adapted model. bytes_each: of a parameter in a running model."""

    stored: int
    adapted: int
    parameters: int
    bytes_each: float
    prompts: "Sequence[Prompt]"

    def needs(self, step: str) -> Mapping[str, int]:
        """The fields of a `PlannedStep` that are numbers."""
        streamed = min(STREAM_BYTES, PROGRAM_BYTES + self.stored)
        match step:
            case "diff":
                return {"bytes_read": self.stored, "memory": streamed}
            case "probe":
                return {"bytes_read": self.stored, "memory": self._memory(), "prompts": len(self.prompts)}
            case "coefficients":
                asked = sum(prompt.split in ("fit", "select") for prompt in self.prompts)
                return {"bytes_read": self.stored, "memory": self._memory(), "prompts": asked}
            case "merge":
                return {"bytes_read": self.stored, "bytes_written": self.adapted, "memory": streamed}
            case "evaluate":
                asked = sum(prompt.split == "report" for prompt in self.prompts)
                return {"bytes_read": self.stored + self.adapted, "memory": self._memory(), "prompts": asked}
            case "layers":
                asked = sum((prompt.split, prompt.set) == ("report", "harmful") for prompt in self.prompts)
                return {"bytes_read": self.stored, "memory": self._memory(), "prompts": asked}
        return {}

    def _memory(self) -> int:
        """Peak bytes of a running model: itself, and what a batch and the checkpoints' values take beside it, which is
        bounded (measured on models of 3 MB, 270 MB and 2.2 GB)."""
        weights = self.bytes_each * self.parameters
        return int(PROGRAM_BYTES + weights + min(WORKING_BYTES, WORKING_SHARE * weights))


def plan(job: Job, pending: Sequence[Pending]) -> list[PlannedStep]:
    """The pending steps of a job with what each takes. Reads headers and prompts, no weights; neither for a report."""
    if all(each.step.name == "report" for each in pending):
        return [PlannedStep(each.step.name, each.reason, _writes(job, each)) for each in pending]
    adapted = job.checkpoints["adapted"]
    nbytes = {role: sum(tensor.nbytes for tensor in each.values()) for role, each in job.checkpoints.items()}
    sizes = ModelSizes(
        stored=sum(nbytes.values()),
        adapted=nbytes["adapted"],
        parameters=sum(tensor.numel for tensor in adapted.values()),
        bytes_each=_bytes_of_a_parameter(job, adapted),
        prompts=job.prompts,
    )
    return [
        PlannedStep(each.step.name, each.reason, _writes(job, each), **sizes.needs(each.step.name)) for each in pending
    ]


def show_plan(console: Console, steps: Sequence[PlannedStep]) -> None:
    """Print a plan, as a table or as JSON."""
    console.emit(json.dumps({"plan": [asdict(step) for step in steps]}, indent=1))
    if not steps:
        console.show("Nothing to do: every step is there, under these settings and checkpoints.")
        return
    from vlsurgery.cli.view.tables import plain_table

    table = plain_table("What would be done", "step", "because", "writes", "reads", "memory", "prompts", left=3)
    for step in steps:
        reads = in_words(step.bytes_read) if step.bytes_read else "–"
        row = (step.step, step.reason, "\n".join(step.writes), reads, in_words(step.memory), str(step.prompts or ""))
        table.add_row(*row)
    console.show(table, "Memory is the peak of the process. Nothing was written.")


def _writes(job: Job, pending: Pending) -> tuple[str, ...]:
    files = pending.step.files(job.case, pending.step.settings(job))
    root = job.case.folder
    return tuple(str(file.relative_to(root) if file.is_relative_to(root) else file) for file in files)


def _bytes_of_a_parameter(job: Job, checkpoint: Checkpoint) -> int:
    """Bytes of a parameter in the dtype in which the checkpoint would run."""
    from vlsurgery.probes.models.dtypes import device_of, run_dtype

    how = job.loader("probe")
    return run_dtype(checkpoint, how.dtype, device_of(how.device)).itemsize
