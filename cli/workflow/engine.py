"""The steps of a case as data, and the engine that runs the ones that are missing.

A step is current while its files are there as it left them, the checkpoints' identities are the ones it saw, its
settings are the ones asked for, and nothing that it read was made again since. Everything else is run, and said.
"""

import textwrap
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from vlsurgery.cli.workflow.case import Case
from vlsurgery.probes.policies import Policy, Toward
from vlsurgery.surgery.alignment import Alignment, align
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.diff import Level
from vlsurgery.surgery.errors import SurgeryError
from vlsurgery.surgery.results import Result
from vlsurgery.surgery.runtime.progress import Progress, no_progress

if TYPE_CHECKING:
    from vlsurgery.cli.workflow.prompt_source import PromptSource
    from vlsurgery.probes.prompts import Prompt

R = TypeVar("R", bound=Result)
Settings = dict[str, Any]
Fault = Literal["missing", "changed", "outdated"]
Files = Callable[[Case, Settings], Sequence[Path]]

REASONS: Mapping[Fault, str] = {
    "missing": "the case has none yet",
    "changed": "its files were changed since",
    "outdated": "made under other settings or checkpoints",
}


@dataclass(frozen=True)
class StepOptions:
    """What the user asked for. `None` means: as the case did it last, else the default.

    prompts: "FILE:KIND" specifications. level: of the diff. out: where the merged checkpoint goes. page: where the
    report goes.
    """

    prompts: tuple[str, ...] | None = None
    policy: Policy = "fit"
    toward: Toward = "both"
    out: Path | None = None
    page: Path | None = None
    cdn: bool = False
    level: Level | None = None


@dataclass
class Job:
    """One command's work on one case: what a step's functions are given.

    say: tells the user one line. progress: shows progress. aligned: the alignment of the case's checkpoints, where the
    command has made it already.
    """

    case: Case
    options: StepOptions = field(default_factory=StepOptions)
    say: Callable[[str], None] = lambda line: None  # noqa: ARG005
    progress: Progress = no_progress
    aligned: Alignment | None = None

    @cached_property
    def alignment(self) -> Alignment:
        """Of all roles: made once for all steps of the command."""
        return align(self.checkpoints) if self.aligned is None else self.aligned

    @cached_property
    def checkpoints(self) -> Mapping[str, Checkpoint]:
        return self.case.checkpoints

    @cached_property
    def material(self) -> "PromptSource":
        """Which prompts this case is asked."""
        from vlsurgery.cli.workflow.prompt_source import material_of

        return material_of(self.case, self.options.prompts)

    @property
    def prompts(self) -> "list[Prompt]":
        return self.material.prompts

    def result(self, kind: type[R]) -> R:
        """A result that an earlier step has left. Raises SurgeryError where it has vanished since."""
        result = self.case.result(kind)
        if result is None:
            raise SurgeryError(f"{self.case.folder}: its {kind.kind} result has vanished. Run the same command again.")
        return result

    @cached_property
    def sources(self) -> tuple[str, ...]:
        """The roles to merge toward, of those that the case has. Raises SurgeryError where there is none."""
        toward = self.options.toward
        wanted = ("base", "safety") if toward == "both" else (toward,)
        found = tuple(role for role in wanted if role in self.checkpoints)
        if not found:
            raise SurgeryError(
                f"--toward {toward}: this case has no {toward} checkpoint, only {', '.join(self.checkpoints)}. "
                f"Open a case that has one (vlsurgery diff BASE ADAPTED SAFETY --new), or use --toward base."
            )
        return found


@dataclass(frozen=True)
class Step:
    """One step of the flow.

    needs: steps whose results it reads; they are run first. uses: steps whose results it reads where they are
    current, and does without otherwise. settings: the options that shape its result. files: what it leaves behind
        under given settings.
    """

    name: str
    needs: tuple[str, ...]
    uses: tuple[str, ...]
    files: Files
    settings: Callable[[Job], Settings]
    run: Callable[[Job, Settings], None]


@dataclass(frozen=True)
class Pending:
    """A step that would be run, and why."""

    step: Step
    reason: str


class Flow:
    """Runs steps of one case in order. `steps` is the table of `workflow.steps`, or another one in tests."""

    def __init__(self, job: Job, steps: Sequence[Step]) -> None:
        self.job = job
        self.steps = {step.name: step for step in steps}

    def bring(self, *goals: str) -> None:
        """Bring the case to where every goal is current; goals and what they need run in the order of the table."""
        say, folder = self.job.say, self.job.case.folder
        for step in self._order(goals):
            fault = self.why_stale(step)
            if fault is None:
                if step.name in goals:
                    say(f"{step.name}: nothing changed since it was done, {folder} has it")
                continue
            if step.name not in goals and fault == "missing":
                say(f"{folder} has no {step.name} yet: running it first")
            elif fault == "changed":
                say(f"{folder} has {step.name} whose files were changed since it was done: running it again")
            elif fault == "outdated":
                say(f"{folder} has {step.name} of other settings or checkpoints: running it again")
            self._run(step)

    def files(self, name: str) -> Sequence[Path]:
        """What a step that is done has left behind."""
        return self.steps[name].files(self.job.case, self.job.case.settings_of(name) or {})

    def result(self, kind: type[R]) -> R:
        """A result that a step has left. Raises SurgeryError where it has vanished since."""
        return self.job.result(kind)

    def pending(self, *goals: str) -> list[Pending]:
        """The steps that `bring` would run, without running any."""
        found: list[Pending] = []
        for step in self._order(goals):
            upstream = [each.step.name for each in found if each.step.name in (*step.needs, *step.uses)]
            fault = "outdated" if upstream else self.why_stale(step)
            if fault is not None:
                reason = f"{upstream[-1]} comes before it" if upstream else REASONS[fault]
                found.append(Pending(step, reason))
        return found

    def is_current(self, name: str) -> bool:
        """Whether a step's result still holds under the settings that made it, whatever is asked for now."""
        recorded = self.job.case.settings_of(name)
        step = self.steps[name]
        if recorded is None or not all(self.is_current(other) for other in step.needs):
            return False
        inputs = (*step.needs, *recorded["uses"])
        return self._file_fault(step, recorded) is None and self.job.case.is_current(name, recorded, inputs)

    def why_stale(self, step: Step) -> Fault | None:
        """Why a step must run; None where its result can be used as it is."""
        recorded = self.job.case.settings_of(step.name)
        fault = "missing" if recorded is None else self._file_fault(step, recorded)
        if fault is not None:
            return fault
        current = self.job.case.is_current(step.name, self._settings(step), self._inputs(step))
        return None if current else "outdated"

    def _run(self, step: Step) -> None:
        began = time.perf_counter()
        for name in step.uses:
            if self.job.case.settings_of(name) is not None and not self.is_current(name):
                self.job.say(f"{step.name}: the {name} in {self.job.case.folder} is out of date and is left out")
        settings = self._settings(step)
        try:
            step.run(self.job, settings)
        except (RuntimeError, MemoryError) as error:
            if not _is_out_of_memory(error):
                raise
            reason = textwrap.shorten(str(error), 120, placeholder=" ...") or "no more could be had"
            raise SurgeryError(
                f"{step.name}: out of memory ({reason}). Use a machine with more memory, give fewer prompts with "
                "--prompts, or keep off the graphics card: put CUDA_VISIBLE_DEVICES= before the command. Steps that "
                "are done are kept."
            ) from error
        self.job.case.record(step.name, settings, step.files(self.job.case, settings))
        self.job.say(f"{step.name}: done in {time.perf_counter() - began:.1f} s")

    def _settings(self, step: Step) -> Settings:
        """The step's own settings, and which of the results that it can do without it has."""
        return {**step.settings(self.job), "uses": [name for name in step.uses if self.is_current(name)]}

    def _inputs(self, step: Step) -> tuple[str, ...]:
        return (*step.needs, *(name for name in step.uses if self.is_current(name)))

    def _order(self, goals: Sequence[str]) -> Iterator[Step]:
        wanted = set(goals)
        for step in reversed(self.steps.values()):
            if step.name in wanted:
                wanted.update(step.needs)
        return (step for step in self.steps.values() if step.name in wanted)

    def _file_fault(self, step: Step, recorded: Settings) -> Fault | None:
        """What is wrong with the files that a step left when it was done."""
        files = step.files(self.job.case, recorded)
        if not all(path.exists() for path in files):
            return "missing"
        return None if self.job.case.is_untouched(step.name, files) else "changed"


def _is_out_of_memory(error: Exception) -> bool:
    """Known by name, and on a CPU by torch's wording: this module must not wait for torch to be imported."""
    name = type(error).__name__
    return name in ("OutOfMemoryError", "MemoryError") or "DefaultCPUAllocator" in str(error)
