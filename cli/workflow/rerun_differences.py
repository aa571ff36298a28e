"""How a second run of a case agrees with the first: line by line, and beyond intervals or not."""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

from pydantic import Field

from vlsurgery.cli.workflow.comparison import compare_cases, row_words
from vlsurgery.cli.workflow.reproduction import MeasuredRate, ReproducibleStep, Reproduction
from vlsurgery.figures.wording import cell_name, points, rate_words
from vlsurgery.probes.case_results import ComparedRow
from vlsurgery.probes.evaluation.completions import FILE as COMPLETIONS, load_completions
from vlsurgery.probes.evaluation.intervals import unpaired_difference
from vlsurgery.surgery.errors import SurgeryError
from vlsurgery.surgery.results import Frozen, Result

# Rounding that is no difference: of sums in another order.
SLACK: Final = 1e-6
# Settings that say where a result lies, or follow from results that are compared themselves.
FOLLOWING: Final = ("out", "recipe", "merged", "uses")


class NotReproduced(SurgeryError):
    """A second run differs from the first beyond intervals. Exit code 3."""

    exit_code = 3


class RerunDifference(Frozen):
    """One thing that is not as it was. what: rate, gain, coefficient, file, settings or surroundings. beyond: whether
    it is beyond what the first run's uncertainty allows; what is measured otherwise is told, and is no such thing."""

    what: str
    words: str
    beyond: bool


class RerunResult(Result):
    """What differs between two runs. compared: what -> how many were compared."""

    kind: ClassVar[str] = "rerun"
    row_field: ClassVar[str] = "differences"

    differences: list[RerunDifference]
    compared: dict[str, int]
    notes: list[str] = Field(default_factory=list)
    verdict: str

    @property
    def beyond(self) -> list[RerunDifference]:
        """The differences that no uncertainty explains."""
        return [each for each in self.differences if each.beyond]


def compare_runs(first: Reproduction, second: Reproduction, beside: Path, case: Path) -> RerunResult:
    """How the second run agrees with the first. beside: the folder of the first run's file, whose completions serve for
    paired comparisons where they are those that it was made of; case: the second run's folder."""
    paired = _same_completions(first, beside)
    rates = list(_paired_rates(beside, case) if paired else _unpaired_rates(first.rates, second.rates))
    gains = list(_gains(first, second))
    coefficients = list(_coefficients(first, second))
    found = [
        *_missing(first, second),
        *filter(None, [*rates, *gains, *coefficients]),
        *_files(first, second),
        *_settings(first.steps, second),
        *_surroundings(first.steps, second),
    ]
    compared = {
        "rates": len(rates),
        "gains": len(gains),
        "coefficients": len(coefficients),
        "files": len(first.files.keys() & second.files.keys()),
    }
    how = (
        "paired, prompt by prompt" if paired else "from intervals alone: the first run's completions are not beside it"
    )
    notes = [f"rates are compared {how}"] if first.rates else []
    return RerunResult(differences=found, compared=compared, notes=notes, verdict=_verdict(found, compared))


def _same_completions(first: Reproduction, beside: Path) -> bool:
    path = beside / COMPLETIONS
    if first.completions is None or not path.is_file():
        return False
    return hashlib.sha256(path.read_bytes()).hexdigest() == first.completions


def _paired_rates(beside: Path, case: Path) -> Iterator[RerunDifference | None]:
    ours, theirs = (load_completions(folder / COMPLETIONS).records for folder in (beside, case))
    for row in compare_cases(ours, theirs).records:
        yield _rate(row)


def _rate(row: ComparedRow) -> RerunDifference | None:
    if abs(row.difference) <= SLACK:
        return None
    return RerunDifference(what="rate", words=row_words(row), beyond=_excludes_0(row.low, row.high))


def _unpaired_rates(first: Sequence[MeasuredRate], second: Sequence[MeasuredRate]) -> Iterator[RerunDifference | None]:
    theirs = {(each.role, each.set, each.modality, each.measure): each.rate for each in second}
    for each in first:
        after = theirs.get((each.role, each.set, each.modality, each.measure))
        test = None if after is None else unpaired_difference(each.rate, after)
        if after is None or test is None:
            continue
        value, low, high = test
        if abs(value) <= SLACK:
            yield None
            continue
        name = f"{each.role}, {cell_name(each.set, each.modality)}, {each.measure}"
        words = f"{name}: {rate_words(each.rate)} to {rate_words(after)}, {points(value, low, high)}"
        yield RerunDifference(what="rate", words=words, beyond=_excludes_0(low, high))


def _excludes_0(low: float | None, high: float | None) -> bool:
    """Whether the interval of a difference does, on however few requests: no sentence is made of it here."""
    return low is not None and high is not None and (low > 0 or high < 0)


def _gains(first: Reproduction, second: Reproduction) -> Iterator[RerunDifference | None]:
    """The gains of blocks along the path, against the first run's intervals."""
    theirs = {gain.block: gain.gain for gain in second.gains}
    for gain in first.gains:
        after = theirs.get(gain.block)
        if after is None:
            continue
        if abs(after - gain.gain) <= SLACK * max(1.0, abs(gain.gain)):
            yield None
            continue
        known = gain.low is not None and gain.high is not None
        beyond = known and not (gain.low or 0.0) - SLACK <= after <= (gain.high or 0.0) + SLACK
        bounds = f" ({gain.low:.3f} to {gain.high:.3f})" if known else ""
        yield RerunDifference(
            what="gain", words=f"{gain.block}: {gain.gain:.3f}{bounds} to {after:.3f} nats", beyond=beyond
        )


def _coefficients(first: Reproduction, second: Reproduction) -> Iterator[RerunDifference | None]:
    """The merge's coefficients, against the first run's intervals where they were drawn."""
    for block, row in first.coefficients.items():
        for role, before in row.items():
            after = second.coefficients.get(block, {}).get(role)
            if after is None:
                continue
            if abs(after - before) <= SLACK:
                yield None
                continue
            bounds = first.intervals.get(block, {}).get(role)
            beyond = bounds is not None and not bounds[0] - SLACK <= after <= bounds[1] + SLACK
            told = f" ({bounds[0]:.3f} to {bounds[1]:.3f})" if bounds else ""
            words = f"{block}, {role}: {before:.3f}{told} to {after:.3f}"
            yield RerunDifference(what="coefficient", words=words, beyond=beyond)


def _files(first: Reproduction, second: Reproduction) -> Iterator[RerunDifference]:
    """Files of the merge with other bytes. Of one and the same order, other weights are no matter of chance."""
    same_order = first.recipe is not None and first.recipe == second.recipe
    for name in sorted(first.files.keys() & second.files.keys()):
        if first.files[name] != second.files[name]:
            beyond = same_order and name.endswith((".safetensors", ".bin"))
            why = "other bytes, by the same recipe" if same_order else "other bytes, by another recipe"
            yield RerunDifference(what="file", words=f"{name}: {why}", beyond=beyond)


def _missing(first: Reproduction, second: Reproduction) -> Iterator[RerunDifference]:
    """What the second run does not have though the first one did: models that were asked, files, blocks."""
    for what, ours, theirs in (
        ("rate", {each.role for each in first.rates}, {each.role for each in second.rates}),
        ("gain", {each.block for each in first.gains}, {each.block for each in second.gains}),
        ("coefficient", first.coefficients.keys(), second.coefficients.keys()),
        ("file", first.files.keys(), second.files.keys()),
    ):
        for name in sorted(ours - theirs):
            yield RerunDifference(what=what, words=f"{name}: not in the second run", beyond=True)


def _settings(steps: Sequence[ReproducibleStep], second: Reproduction) -> Iterator[RerunDifference]:
    """Settings that are not those of the first run, such as prompts that have changed. Where the merge lies is none."""
    for step in steps:
        after = second.step(step.name)
        if after is None:
            continue
        for key in sorted(step.settings.keys() | after.settings.keys()):
            ours, theirs = (_without_places(key, settings.get(key)) for settings in (step.settings, after.settings))
            if ours != theirs and key not in FOLLOWING:
                yield RerunDifference(what="settings", words=f"{step.name}: {key} not as before", beyond=False)


def _without_places(key: str, value: Any) -> Any:
    """A setting without the places of files, which tell nothing of what is in them."""
    if key == "imports" and isinstance(value, dict):
        return sorted(map(str, value.values()))
    return (
        {name: each for name, each in value.items() if name not in ("files", "images")} if key == "prompts" else value
    )


def _surroundings(steps: Sequence[ReproducibleStep], second: Reproduction) -> Iterator[RerunDifference]:
    """Versions and machine, each difference once."""
    told: dict[str, None] = {}
    for step in steps:
        after = second.step(step.name)
        if after is None or step.surroundings is None or after.surroundings is None:
            continue
        ours, theirs = step.surroundings.model_dump(), after.surroundings.model_dump()
        pairs = [(name, ours["packages"].get(name), theirs["packages"].get(name)) for name in ours["packages"]]
        pairs += [(name, ours[name], theirs[name]) for name in ours if name not in ("packages", "threads")]
        pairs += [(f"threads of {step.name}", ours["threads"], theirs["threads"])]
        told |= dict.fromkeys(f"{name}: {before} to {now}" for name, before, now in pairs if before != now)
    yield from (RerunDifference(what="surroundings", words=words, beyond=False) for words in told)


def _verdict(found: Sequence[RerunDifference], compared: dict[str, int]) -> str:
    beyond = sum(each.beyond for each in found)
    counted = ", ".join(f"{number} {name}" for name, number in compared.items() if number)
    start = f"Compared {counted or 'nothing'}:"
    if beyond:
        return f"{start} {beyond} differ{'s' if beyond == 1 else ''} beyond what the first run's intervals allow."
    measured = [each for each in found if each.what not in ("settings", "surroundings")]
    if measured:
        return f"{start} {len(measured)} not the same, all within intervals."
    return f"{start} nothing differs."
