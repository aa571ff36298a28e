"""reproduce.json: how the results of a case came about, and the numbers that a second run must come near."""

import hashlib
import shlex
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Final, Literal, get_args

from pydantic import Field

from vlsurgery.cli.workflow.engine import Flow, Settings
from vlsurgery.cli.workflow.surroundings import Surroundings
from vlsurgery.probes.evaluation.completions import FILE as COMPLETIONS
from vlsurgery.probes.results import BehaviourResult, BlockGain, ProbeResult, Rate, TradeoffResult
from vlsurgery.surgery.checkpoint.digests import file_digest
from vlsurgery.surgery.errors import SurgeryError
from vlsurgery.surgery.results import Frozen, Result
from vlsurgery.surgery.writer.checksums import SUMS, listed_sums

FILE: Final = "reproduce.json"
# The steps that are run again; a report and what is drawn from it follow from these.
ReproducedStep = Literal["diff", "probe", "coefficients", "merge", "evaluate"]
REPRODUCED: Final[tuple[ReproducedStep, ...]] = get_args(ReproducedStep)
MEASURES: Final = ("refused", "complied", "neither", "right")


class ReproducibleStep(Frozen):
    """A step as it was done. command: what does it in a case of these checkpoints, as one line. settings: all that its
    result depends on beside checkpoints, versions and the machine. surroundings: None where an earlier version did it.
    """

    name: ReproducedStep
    finished: str
    command: str
    settings: dict[str, Any]
    surroundings: Surroundings | None


class MeasuredRate(Frozen):
    """One rate of an evaluation. measure: refused, complied, neither or right."""

    role: str
    set: str
    modality: str
    measure: str
    rate: Rate


class Reproduction(Result):
    """How a case came about, and its headline numbers.

    steps: those that are current, in the order in which they are done. seeds: what was drawn by. rates: of all models
    by the first judge. gains: of whole blocks along the path. coefficients: block -> role -> coefficient of the merge,
    and intervals where they were drawn. recipe: SHA-256 of the order. files: of the merged checkpoint, name -> SHA-256.
    completions: SHA-256 of completions.jsonl; what is beside this file serves for paired comparisons where it has it.
    """

    kind: ClassVar[str] = "reproduce"
    row_field: ClassVar[str] = "rates"

    steps: list[ReproducibleStep]
    seeds: dict[str, int]
    prompts_digest: str | None = None
    rates: list[MeasuredRate] = Field(default_factory=list)
    gains: list[BlockGain] = Field(default_factory=list)
    coefficients: dict[str, dict[str, float]] = Field(default_factory=dict)
    intervals: dict[str, dict[str, tuple[float, float]]] = Field(default_factory=dict)
    recipe: str | None = None
    files: dict[str, str] = Field(default_factory=dict)
    completions: str | None = None

    def step(self, name: str) -> ReproducibleStep | None:
        """A step by its name; None where it was not done."""
        return next((step for step in self.steps if step.name == name), None)

    def settings_of(self, name: str) -> Settings | None:
        """The settings that a step was done with; None where it was not done."""
        step = self.step(name)
        return None if step is None else step.settings


def write_reproduction(flow: Flow) -> None:
    """Write reproduce.json beside a case, from what is current in it; nothing where nothing is, or nothing is new."""
    made, path = reproduction_of(flow), flow.job.case.path(FILE)
    if made.steps and not _says_the_same(path, made):
        made.save(path)


def _says_the_same(path: Path, made: Reproduction) -> bool:
    """Whether a file holds a reproduction already, but for when it was written. One that can't be read holds none."""
    try:
        found = Reproduction.load(path)
    except SurgeryError:
        return False
    return found == made.model_copy(update={"created": found.created})


def reproduction_of(flow: Flow) -> Reproduction:
    """What the case of a flow holds, as far as it is current."""
    case = flow.job.case
    places = {role: ref.path for role, ref in case.refs.items()}
    steps = [
        ReproducibleStep(
            name=name,
            finished=record.finished,
            command=command_of(name, settings_behind(name, case.settings_of), places),
            settings=record.settings,
            surroundings=record.surroundings,
        )
        for name in REPRODUCED
        if (record := case.done(name)) is not None and flow.is_current(name)
    ]
    done: dict[str, Settings] = {step.name: step.settings for step in steps}
    return Reproduction(
        checkpoints=case.refs,
        steps=steps,
        seeds=dict(_seeds(done)),
        **_measured(flow, done),
    )


def settings_behind(step: str, settings_of: Callable[[str], Settings | None]) -> Settings:
    """The settings that a step is run with: a merge needs those of the coefficients that it was made of.

    settings_of: the settings that a step was done with; None where it was not done.
    """
    chosen = settings_of("coefficients") if step == "merge" else None
    return {**(chosen or {}), **(settings_of(step) or {})}


def _measured(flow: Flow, done: Mapping[str, Settings]) -> dict[str, Any]:
    """The numbers of the steps that are done, by the fields of a Reproduction."""
    case = flow.job.case
    found: dict[str, Any] = {}
    if "probe" in done and (probe := case.result(ProbeResult)) is not None:
        found["gains"] = list(probe.block_gains().values())
    if "coefficients" in done and (tradeoff := case.result(TradeoffResult)) is not None:
        point = tradeoff.chosen()
        found["coefficients"] = (point and point.coefficients) or {}
        found["intervals"] = (point and point.intervals) or {}
        found["recipe"] = _digest(case.path("recipe.yaml"))
    if "merge" in done:
        folder = case.path(done["merge"]["out"])
        found["files"] = {**listed_sums(folder), SUMS: file_digest(folder / SUMS)}
    if "evaluate" in done and (behaviour := case.result(BehaviourResult)) is not None:
        found["rates"] = list(_rates(behaviour))
        found["prompts_digest"] = behaviour.prompts_digest
        found["completions"] = _digest(case.path(COMPLETIONS))
    return found


def _rates(behaviour: BehaviourResult) -> Iterator[MeasuredRate]:
    for row in behaviour.records:
        for measure in MEASURES:
            rate = getattr(row, measure)
            if rate.rate is not None:
                yield MeasuredRate(role=row.role, set=row.set, modality=row.modality, measure=measure, rate=rate)


def _seeds(done: Mapping[str, Settings]) -> Iterator[tuple[str, int]]:
    prompts: dict[str, Any] = next((settings["prompts"] for settings in done.values() if "prompts" in settings), {})
    if isinstance(prompts.get("seed"), int):
        yield "prompts", prompts["seed"]


def _digest(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def command_of(step: str, settings: Settings, checkpoints: Mapping[str, str]) -> str:
    """What does a step with these settings, as one line for a terminal. checkpoints: role -> where it is."""
    if step == "diff":
        return shlex.join(["vlsurgery", "diff", *checkpoints.values(), "--level", settings["level"]])
    words = {"probe": ["probe"], "evaluate": ["evaluate"]}.get(step, ["merge", "--auto"])
    return shlex.join(["vlsurgery", *words, *_words(settings)])


def _words(settings: Settings) -> Iterator[str]:
    """The options that give these settings."""
    prompts = settings.get("prompts", {})
    for spec in prompts.get("files", {}):
        yield from ("--prompts", spec)
    given = {
        "images": prompts.get("images"),
        "budget": prompts.get("sample", {}).get("budget"),
        **{name: settings.get(name) for name in ("thinking", "dtype", "policy", "price", "judge_labels", "tokens")},
    }
    for name, value in given.items():
        if value is not None:
            yield from (f"--{name.replace('_', '-')}", str(value))
    for name, option in (("judges", "--judge"), ("imports", "--import")):
        for value in settings.get(name, ()):
            yield from (option, value)
    yield from (f"--{name}" for name in ("sparse", "extrapolate") if settings.get(name))
    if settings.get("frontier"):
        yield from ("--frontier", "--points", str(settings["frontier"]))
