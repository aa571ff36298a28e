"""The steps of a case as data, and the engine that runs those that are not current.

A step is current while its files are as it wrote them, checkpoints and settings are those that it was run with, and
none of the steps whose results it reads was run again since.
"""

import textwrap
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from vlsurgery.cli.options import Running
from vlsurgery.cli.workflow.case import Case
from vlsurgery.cli.workflow.sample import Sample
from vlsurgery.probes.policies import Policy, Toward
from vlsurgery.probes.sources import toward_roles
from vlsurgery.surgery.alignment import Alignment, align
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.diff import Level
from vlsurgery.surgery.errors import SurgeryError
from vlsurgery.surgery.results import Result
from vlsurgery.surgery.runtime.progress import Progress, no_progress

if TYPE_CHECKING:
    from vlsurgery.cli.workflow.judge_source import JudgeSource
    from vlsurgery.cli.workflow.prompt_source import PromptSource
    from vlsurgery.probes.evaluation.limits import Limits
    from vlsurgery.probes.models import Loader
    from vlsurgery.probes.prompts import Prompt

R = TypeVar("R", bound=Result)
Settings = dict[str, Any]
Fault = Literal["missing", "changed", "outdated"]
Files = Callable[[Case, Settings], Sequence[Path]]

DEFAULTS = ("default", "auto")  # what is said of thoughts, and of dtypes, where nothing is

# What a plan gives as the reason, and what is said when the step runs.
REASONS: Mapping[Fault, str] = {
    "missing": "the case has none yet",
    "changed": "its files were changed since",
    "outdated": "made under other settings or checkpoints",
}
NOTICES: Mapping[Fault, str] = {
    "missing": "has no {step} yet: running it first",
    "changed": "has {step} whose files were changed since it was done: running it again",
    "outdated": "has {step} of other settings or checkpoints: running it again",
}


@dataclass(frozen=True)
class StepOptions:
    """What the user asked for. `None` means: as the case did it last, else the default.

    prompts: "FILE:KIND" specifications. images: the directory that ordinary pictures are taken from. budget: about
    how long models may run, as `--budget` says it; sample: how many prompts are asked, which follows from it. judges:
    as `--judge` names them, the first for the rates. judge_labels: what the labels of a judge that is a classifier
    mean. tokens: of a completion, at most. imports: "FILE[:SET[@ROLE]]" of logs. level: of the diff. out: where the
    merged checkpoint goes. page: where the report goes. cdn: whether the report loads plotly.js from the network.
    sparse: whether coefficients that may be 0 become 0. extrapolate: whether they may exceed 1. frontier: points of
    the frontier. price: of an over-refusal, whose merge is written. limits: the user's, which the choice of
    coefficients keeps; write_anyway: whether a merge is written that is not predicted to keep them. ignored: names of
    mismatches that a merge goes on with. ray: the address of a Ray cluster that divides the work. running: how models
    are run; whether a checkpoint's own Python may run is to be said anew every time, and so are device and memory.
    """

    prompts: Sequence[str] | None = None
    images: Path | None = None
    budget: str | None = None
    sample: Sample | None = None
    judges: Sequence[str] | None = None
    judge_labels: str | None = None
    tokens: int | None = None
    imports: Sequence[str] | None = None
    policy: Policy = "best"
    sparse: bool = False
    extrapolate: bool = False
    frontier: int = 0
    price: float | None = None
    limits: "Limits | None" = None
    write_anyway: bool = False
    toward: Toward = "both"
    out: Path | None = None
    page: Path | None = None
    cdn: bool = False
    level: Level | None = None
    ignored: Sequence[str] = ()
    ray: str | None = None
    running: Running = field(default_factory=Running)


def loader_of(running: Running, recorded: Settings | None = None) -> "Loader":
    """How checkpoints become chat models: as the user said, else as recorded settings have it."""
    from vlsurgery.probes.models import Loader

    settings = running_settings(running, recorded or {})
    thinking = settings.get("thinking")
    return Loader(
        running.trust_remote_code,
        None if thinking is None else thinking == "on",
        settings.get("dtype", "auto"),
        running.device,
        running.memory,
    )


def running_settings(running: Running, recorded: Settings) -> Settings:
    """What results depend on of how models are run: what the user said, else as recorded; without what is default."""
    said = {"thinking": running.thinking, "dtype": running.dtype}
    found = {name: recorded.get(name) if value is None else value for name, value in said.items()}
    return {name: value for name, value in found.items() if value not in (None, *DEFAULTS)}


@dataclass
class Job:
    """One command's work on one case: what the functions of a step are given.

    say: prints a notice of one line. aligned: the alignment of the case's checkpoints, where there is one already.
    """

    case: Case
    options: StepOptions = field(default_factory=StepOptions)
    say: Callable[[str], None] = lambda line: None  # noqa: ARG005
    progress: Progress = no_progress
    aligned: Alignment | None = None

    @cached_property
    def alignment(self) -> Alignment:
        """The alignment of all roles, made once for all steps of the command."""
        return align(self.checkpoints) if self.aligned is None else self.aligned

    @cached_property
    def checkpoints(self) -> Mapping[str, Checkpoint]:
        return self.case.checkpoints

    @cached_property
    def prompt_source(self) -> "PromptSource":
        """Where the prompts come from that models are asked."""
        from vlsurgery.cli.workflow.prompt_source import prompt_source_of

        return prompt_source_of(self.case, self.options.prompts, self.options.images, self.options.sample)

    @cached_property
    def judge_source(self) -> "JudgeSource":
        """Which judges judge what models say."""
        from vlsurgery.cli.workflow.judge_source import judge_source_of

        return judge_source_of(self.case, self.prompt_source.specimen is not None, self.options)

    def running_settings(self, step: str) -> Settings:
        """What a step's results depend on of how models are run: what the user said, else as the case did it last."""
        return running_settings(self.options.running, self._recorded(step))

    def loader(self, step: str) -> "Loader":
        """How checkpoints become chat models in a step."""
        return loader_of(self.options.running, self._recorded(step))

    def _recorded(self, step: str) -> Settings:
        return self.case.settings_of(step) or self.case.settings_of("probe") or {}

    @property
    def prompts(self) -> "list[Prompt]":
        return self.prompt_source.prompts

    @cached_property
    def merged(self) -> Checkpoint | None:
        """The checkpoint that the case's merge wrote; None where there is none, and where its files are no longer as
        they were written: it may be broken. To be asked for when the merge is done, for it is opened once."""
        recorded = self.case.settings_of("merge")
        folder = recorded and "out" in recorded and self.case.path(recorded["out"])
        if not folder or not folder.exists() or not self.case.is_untouched("merge", [folder]):
            return None
        return Checkpoint.open(folder, text_stack=self.checkpoints["adapted"].text_stack)

    def result(self, kind: type[R]) -> R:
        """The result of a step that is done. Raises SurgeryError where its file is gone."""
        result = self.case.result(kind)
        if result is None:
            raise SurgeryError(f"{self.case.folder}: its {kind.kind} result has vanished. Run the same command again.")
        return result

    @cached_property
    def sources(self) -> tuple[str, ...]:
        """The roles to merge toward, of those that the case has. Raises SurgeryError where there is none."""
        toward = self.options.toward
        found = toward_roles(self.checkpoints, toward)
        if not found:
            raise SurgeryError(
                f"--toward {toward}: this case has no {toward} checkpoint, only {', '.join(self.checkpoints)}. "
                f"Open a case that has one (vlsurgery diff BASE ADAPTED SAFETY --new), or use --toward base."
            )
        return found


@dataclass(frozen=True)
class Step:
    """One step of the flow.

    needs: steps whose results it reads; they are run first. uses: steps whose results it reads where they are current,
        and does without otherwise. settings: what its result depends on beside checkpoints and other steps.
    files: what it writes under given settings.
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
        for step, fault, _ in self._walk(goals):
            is_goal = step.name in goals
            if fault is None:
                if is_goal:
                    say(f"{step.name}: nothing changed since it was done, {folder} has it")
                continue
            if fault != "missing" or not is_goal:
                say(f"{folder} {NOTICES[fault].format(step=step.name)}")
            self._run(step)

    def pending(self, *goals: str) -> list[Pending]:
        """The steps that `bring` would run, without running any."""
        return [
            Pending(step, f"{before} comes before it" if before else REASONS[fault])
            for step, fault, before in self._walk(goals)
            if fault
        ]

    def files(self, name: str) -> Sequence[Path]:
        """The files that a step that is done has written."""
        return self.steps[name].files(self.job.case, self.job.case.settings_of(name) or {})

    def is_current(self, name: str) -> bool:
        """Whether a step is current under the settings that it was last run with, whatever is asked for now."""
        step, recorded = self.steps[name], self.job.case.settings_of(name)
        if recorded is None or self._file_fault(step) or not all(self.is_current(other) for other in step.needs):
            return False
        return self.job.case.is_current(name, recorded, (*step.needs, *recorded.get("uses", ())))

    def why_stale(self, step: Step) -> Fault | None:
        """Why a step must run; None where its result can be used as it is."""
        fault = self._file_fault(step)
        if fault is not None:
            return fault
        settings = self._settings(step)
        inputs = (*step.needs, *settings["uses"])
        return None if self.job.case.is_current(step.name, settings, inputs) else "outdated"

    def _walk(self, goals: Sequence[str]) -> Iterator[tuple[Step, Fault | None, str | None]]:
        """The goals and what they need, in the order of the table: step, why it must run, and the last step with a
        fault that it reads. Each is looked at when it is its turn: `bring` has run those before it by then."""
        wanted = set(goals)
        for step in reversed(self.steps.values()):
            if step.name in wanted:
                wanted.update(step.needs)
        faulty: list[str] = []
        for step in self.steps.values():
            if step.name not in wanted:
                continue
            before = next((name for name in reversed(faulty) if name in (*step.needs, *step.uses)), None)
            fault = self.why_stale(step) or ("outdated" if before else None)
            if fault:
                faulty.append(step.name)
            yield step, fault, before

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
        """The step's own settings, and under "uses" the steps of its `uses` that are current."""
        return {**step.settings(self.job), "uses": [name for name in step.uses if self.is_current(name)]}

    def _file_fault(self, step: Step) -> Fault | None:
        """What is wrong with the files that a step has written."""
        recorded = self.job.case.settings_of(step.name)
        files = [] if recorded is None else step.files(self.job.case, recorded)
        if recorded is None or not all(path.exists() for path in files):
            return "missing"
        return None if self.job.case.is_untouched(step.name, files) else "changed"


def _is_out_of_memory(error: Exception) -> bool:
    """Whether memory ran out, by the error's class name, and on a CPU by torch's message: this module doesn't import
    torch."""
    name = type(error).__name__
    return name in ("OutOfMemoryError", "MemoryError") or "DefaultCPUAllocator" in str(error)
