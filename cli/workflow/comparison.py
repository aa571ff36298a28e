"""Two cases side by side: what their models did, and how that differs."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from vlsurgery.figures.wording import (
    MODALITY_ORDER,
    ROLE_ORDER,
    SET_ORDER,
    cell_name,
    listed,
    points,
    rank,
    rate_words,
)
from vlsurgery.probes.case_results import CaseComparison, ComparedRow
from vlsurgery.probes.evaluation.intervals import rate, unpaired_difference
from vlsurgery.probes.evaluation.judges import is_right
from vlsurgery.probes.evaluation.paired import paired_difference
from vlsurgery.probes.evaluation.thresholds import MIN_REQUESTS_FOR_A_CLAIM, enough
from vlsurgery.probes.results import LABELS, CompletionRecord, Rate
from vlsurgery.surgery.errors import SurgeryError

RIGHT: Final = "right"

Place = tuple[str, str, str]  # role, set, modality
Cell = dict[str, CompletionRecord]  # by prompt id
Done = Callable[[CompletionRecord], bool]


def row_words(row: ComparedRow) -> str:
    """A rate of both cases and how they differ, in words."""
    return (
        f"{row.role}, {cell_name(row.set, row.modality)}, {row.measure}: {rate_words(row.first)} to "
        f"{rate_words(row.second)}, {points(row.difference, row.low, row.high)}"
    )


def compare_cases(
    first: Sequence[CompletionRecord], second: Sequence[CompletionRecord], judge: str | None = None
) -> CaseComparison:
    """How the models of two cases differ, by role, prompt set and modality.

    judge: whose verdicts count; by default the one that the first case's rates are made of. Where both asked the same
    prompts (the same id and text), the difference is paired.

    Raises SurgeryError where a case has no completions, nothing is shared, or a completion was not judged by `judge`.
    """
    if not first or not second:
        raise SurgeryError(
            f"the {'second' if first else 'first'} case has no completions. Run `vlsurgery evaluate` on it."
        )
    name = judge or next(iter(first[0].verdicts), "")
    ours, theirs = (_cells(records, name, which) for records, which in ((first, "first"), (second, "second")))
    shared = sorted(ours.keys() & theirs.keys(), key=_order)
    if not shared:
        raise SurgeryError("the cases share no role that was asked the same prompt set. Evaluate both alike.")
    rows = [row for place in shared for row in _compared(place, ours[place], theirs[place], name)]
    return CaseComparison(records=rows, judge=name, notes=_alone(ours, theirs), verdict=_verdict(rows))


def _cells(records: Sequence[CompletionRecord], judge: str, which: str) -> dict[Place, Cell]:
    cells: dict[Place, Cell] = {}
    for record in records:
        if judge not in record.verdicts:
            judges = listed(list(record.verdicts)) or "no judge"
            raise SurgeryError(
                f"{which} case: {record.role}'s completion of {record.id!r} has verdicts of {judges}, not of "
                f"{judge or 'any judge'!r}. Name a judge that both cases have, or run `vlsurgery rejudge`."
            )
        cell = cells.setdefault((record.role, record.set, record.modality), {})
        if record.id in cell:
            raise SurgeryError(
                f"{which} case: {record.role} has two completions of {record.id!r}. Expected one; evaluate it again."
            )
        cell[record.id] = record
    return cells


def _order(place: Place) -> tuple[tuple[int, str], ...]:
    role, set_, modality = place
    return rank(ROLE_ORDER, role), rank(SET_ORDER, set_), rank(MODALITY_ORDER, modality)


def _compared(place: Place, ours: Cell, theirs: Cell, judge: str) -> list[ComparedRow]:
    shared = [key for key, record in ours.items() if key in theirs and theirs[key].prompt == record.prompt]
    requests = len({ours[key].request for key in shared})
    whole = len(shared) == len(ours) == len(theirs)
    if not whole and not enough(requests):
        shared = []
    if whole:
        note = "the same prompts"
    elif shared:
        note = f"the {len(shared)} prompts that both were asked"
    else:
        note = "other prompts: not paired"
    measures = _measures(judge, [*ours.values(), *theirs.values()])
    return [_row(place, measure, done, ours, theirs, shared, note) for measure, done in measures.items()]


def _measures(judge: str, records: Sequence[CompletionRecord]) -> dict[str, Done]:
    """The three verdicts, and right answers where all prompts have one."""

    def labelled(label: str) -> Done:
        return lambda record: record.verdicts[judge].label == label

    made: dict[str, Done] = {label: labelled(label) for label in LABELS}
    if all(record.answer is not None for record in records):
        made[RIGHT] = lambda record: is_right(record.text, record.answer or "")
    return made


def _row(
    place: Place, measure: str, done: Done, ours: Cell, theirs: Cell, shared: Sequence[str], note: str
) -> ComparedRow:
    first, second = (
        rate([done(record) for record in cell.values()], [record.request for record in cell.values()])
        for cell in (ours, theirs)
    )
    role, set_, modality = place
    where = {"role": role, "set": set_, "modality": modality, "measure": measure, "first": first, "second": second}
    if shared:
        keys = [ours[key].request for key in shared]
        test = paired_difference([done(theirs[key]) for key in shared], [done(ours[key]) for key in shared], keys)
        bounds = {"difference": test.value, "low": test.low, "high": test.high, "p": test.p}
        return ComparedRow.model_validate({**where, **bounds, "paired": True, "requests": len(set(keys)), "note": note})
    value, low, high = unpaired_difference(first, second) or (_difference(first, second), None, None)
    fewer = min(first.requests, second.requests)
    bounds = {"difference": value, "low": low, "high": high}
    return ComparedRow.model_validate({**where, **bounds, "paired": False, "requests": fewer, "note": note})


def _difference(first: Rate, second: Rate) -> float:
    assert first.rate is not None
    assert second.rate is not None
    return second.rate - first.rate


def _alone(ours: Mapping[Place, Cell], theirs: Mapping[Place, Cell]) -> list[str]:
    """What only one case has, a line a role."""
    notes = []
    for which, mine, others in (("first", ours, theirs), ("second", theirs, ours)):
        for role in sorted({place[0] for place in mine}, key=lambda role: rank(ROLE_ORDER, role)):
            cells = [place for place in sorted(mine, key=_order) if place[0] == role and place not in others]
            if cells and not any(place[0] == role for place in others):
                notes.append(f"{role} is in the {which} case only")
            elif cells:
                names = listed([cell_name(set_, modality) for _, set_, modality in cells])
                notes.append(f"{role} was asked {names} in the {which} case only")
    return notes


def _verdict(rows: Sequence[ComparedRow]) -> str:
    tested = [row for row in rows if enough(row.requests)]
    differing = [row for row in tested if row.differs]
    text = f"{len(differing)} of {len(tested)} rates differ beyond their intervals"
    if differing:
        text += f", most of all {row_words(max(differing, key=lambda row: abs(row.difference)))}"
    if few := len(rows) - len(tested):
        text += f"; {few} rest on fewer than {MIN_REQUESTS_FOR_A_CLAIM} requests, of which nothing is said"
    return f"{text}."
