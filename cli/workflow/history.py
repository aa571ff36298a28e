"""The looks of a case at `report` prompts, one after the other, and which rates changed between them."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, ValidationError

from vlsurgery.figures.wording import cell_name, points, rate_words
from vlsurgery.probes.case_results import HistoryChange, HistoryLook, HistoryResult, HistoryRow
from vlsurgery.probes.evaluation.intervals import unpaired_difference
from vlsurgery.probes.evaluation.limits import MEASURES
from vlsurgery.probes.evaluation.thresholds import MIN_REQUESTS_FOR_A_CLAIM, enough
from vlsurgery.probes.results import BehaviourResult, Rate
from vlsurgery.surgery.errors import SurgeryError
from vlsurgery.surgery.results import Frozen, first_fault
from vlsurgery.surgery.runtime.bounded_json import MAX_BYTES, parse_json
from vlsurgery.surgery.runtime.json_lines import whole_lines
from vlsurgery.surgery.runtime.regular_file import read_regular

CHANCE: Final = 0.05  # of 95% intervals, so many miss


class LoggedRate(Frozen):
    """A rate as history.jsonl keeps it."""

    rate: float
    low: float | None
    high: float | None
    requests: int


class LoggedLook(BaseModel):
    """A line of history.jsonl. Lines of a probe, and those of older versions, have no rates; other keys are left.

    rates: role -> "set.modality" -> measure -> rate.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    time: str
    step: str = ""
    roles: list[str] = []
    rates: dict[str, dict[str, dict[str, LoggedRate]]] = {}
    prompts_digest: str | None = None
    judge: str | None = None


def history_entry(behaviour: BehaviourResult) -> dict[str, Any]:
    """What the line of an evaluation holds beside time, step and roles: rates, prompts_digest and judge."""
    rates: dict[str, dict[str, dict[str, Any]]] = {}
    for row in behaviour.records:
        measured: dict[str, Rate] = {name: getattr(row, name) for name in MEASURES}
        rates.setdefault(row.role, {})[f"{row.set}.{row.modality}"] = {
            name: {"rate": each.rate, "low": each.low, "high": each.high, "requests": each.requests}
            for name, each in measured.items()
            if each.rate is not None
        }
    return {"rates": rates, "prompts_digest": behaviour.prompts_digest, "judge": behaviour.judge.name}


def history_rows(path: Path) -> HistoryResult:
    """The history of a case.

    An evaluation is compared with the latest one before it that asked the same prompts and had the same judge.

    Raises SurgeryError that names the file and the line where one can't be read.
    """
    lines = list(_lines(path))
    looks, changes, notes, compared, last = list[HistoryLook](), list[HistoryChange](), list[str](), 0, ""
    for place, (number, look) in enumerate(lines):
        earlier, note = _comparable(look, lines[:place])
        if earlier is not None:
            found, counted, few = _changes(earlier, (number, look))
            changes += found
            compared += counted
            last = (
                f"{len(found)} of {counted} rates changed beyond their intervals from {earlier[1].time} to {look.time}"
            )
            if few:
                notes.append(
                    f"line {number}: {few} rates of fewer than {MIN_REQUESTS_FOR_A_CLAIM} requests were not compared"
                )
        elif note:
            notes.append(f"line {number}: {note}")
        of_look = {key: getattr(look, key) for key in ("time", "step", "roles", "prompts_digest", "judge")}
        looks.append(
            HistoryLook(line=number, **of_look, compared_with=earlier[0] if earlier else None, note=note or None)
        )
    if compared:
        notes.append(f"of {compared} rates compared, up to about {CHANCE * compared:.0f} would change so by chance")
    return HistoryResult(
        records=[row for number, look in lines for row in _rows(number, look)],
        looks=looks,
        changes=changes,
        notes=notes,
        verdict=last or "nothing to compare: it takes two evaluations of the same prompts by the same judge",
    )


def _lines(path: Path) -> Iterator[tuple[int, LoggedLook]]:
    try:
        lines = [line.decode() for line in whole_lines(read_regular(path, MAX_BYTES))]
    except (OSError, UnicodeDecodeError) as error:
        raise SurgeryError(f"{path}: can't be read ({error}). `vlsurgery evaluate` writes it.") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            look = LoggedLook.model_validate(parse_json(line))
        except ValueError as error:
            first = first_fault(error) if isinstance(error, ValidationError) else error
            raise SurgeryError(
                f"{path}, line {number}: not a look at prompts ({first}). Expected a JSON object with `time`; remove "
                "the line, or restore it."
            ) from error
        yield number, look


def _rows(number: int, look: LoggedLook) -> Iterator[HistoryRow]:
    for role, cells in look.rates.items():
        for cell, measures in cells.items():
            set_, _, modality = cell.partition(".")
            for measure, each in measures.items():
                place = {"set": set_, "modality": modality, "measure": measure}
                yield HistoryRow(line=number, time=look.time, role=role, **place, **each.model_dump())


Line = tuple[int, LoggedLook]


def _comparable(look: LoggedLook, before: Sequence[Line]) -> tuple[Line | None, str]:
    """The evaluation that a look is compared with, or why there is none; no reason for the first one."""
    if not look.rates:
        return None, ""
    if look.prompts_digest is None:
        return None, "it is not known which prompts were asked: not compared"
    evaluations = [line for line in before if line[1].rates]
    same_prompts = [line for line in evaluations if line[1].prompts_digest == look.prompts_digest]
    same_judge = [line for line in same_prompts if line[1].judge == look.judge]
    if same_judge:
        return same_judge[-1], ""
    if same_prompts:
        return None, f"other judge ({look.judge}, before {same_prompts[-1][1].judge}): not compared"
    return None, "other prompts than before: not compared" if evaluations else ""


def _changes(earlier: Line, later: Line) -> tuple[list[HistoryChange], int, int]:
    """The rates that changed, how many were compared, and how many had too few requests for that."""
    found, compared, few = [], 0, 0
    before = {_place(row): row for row in _rows(*earlier)}
    for row in _rows(*later):
        old = before.get(_place(row))
        if old is None:
            continue
        few_requests = not enough(min(row.requests, old.requests))
        difference = None if few_requests else unpaired_difference(old.whole, row.whole)
        if difference is None:
            few += 1
            continue
        compared += 1
        value, low, high = difference
        if low > 0 or high < 0:
            found.append(
                HistoryChange(
                    line=row.line,
                    since=old.line,
                    role=row.role,
                    set=row.set,
                    modality=row.modality,
                    measure=row.measure,
                    difference=value,
                    low=low,
                    high=high,
                    words=f"{row.role}, {cell_name(row.set, row.modality)}, {row.measure}: {rate_words(old.whole)} "
                    f"to {rate_words(row.whole)}, {points(value, low, high)}",
                )
            )
    return found, compared, few


def _place(row: HistoryRow) -> tuple[str, str, str, str]:
    return row.role, row.set, row.modality, row.measure
