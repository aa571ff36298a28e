"""Comparisons that words rest on: differences with intervals, and what may be claimed from them."""

from dataclasses import dataclass
from typing import Literal

from vlsurgery.figures.behaviour import is_harmful
from vlsurgery.figures.wording import MODALITY_ORDER, SET_ORDER, rank
from vlsurgery.probes.results import BehaviourResult, Rate

Cell = tuple[str, str]
Status = Literal["raised", "mixed", "unclear", "lowered"]

# Refusals are judged first where adaptation acts: on harmful requests beside an ordinary picture.
PRIMARY = (("harmful", "benign"), ("harmful", "own"), ("harmful", "blank"), ("harmful", "noise"), ("harmful", "text"))


@dataclass(frozen=True)
class Difference:
    """A share of one role minus that of another on one prompt set, with a 95% interval.

    paired: from the same requests. Otherwise the bounds are the ends of the two intervals taken against each other,
    which is wider than needed and so claims less. Bounds are None where an interval is missing.
    """

    cell: Cell
    measure: str
    value: float
    low: float | None
    high: float | None
    paired: bool

    @property
    def clearly_up(self) -> bool:
        return self.value > 0 and self.low is not None and self.low > 0

    @property
    def clearly_down(self) -> bool:
        return self.value < 0 and self.high is not None and self.high < 0


def rate(behaviour: BehaviourResult, role: str, cell: Cell, measure: str) -> Rate | None:
    """A role's rate, or None where there is no such row or it was not measured."""
    for row in behaviour.records:
        if (row.role, row.set, row.modality) == (role, *cell):
            found: Rate = getattr(row, measure)
            return found if found.rate is not None else None
    return None


def measure_for(behaviour: BehaviourResult, roles: tuple[str, ...], cell: Cell) -> str:
    """The measure that decides for these roles: refusals of harmful requests, right answers if all have them."""
    if is_harmful(cell[0]):
        return "refused"
    right = all(rate(behaviour, role, cell, "right") is not None for role in roles)
    return "right" if right else "complied"


def cells(behaviour: BehaviourResult, harmful: bool, *roles: str) -> list[Cell]:
    """Prompt sets and modalities that all these roles were measured on, in the house's order."""
    found = {
        (row.set, row.modality)
        for row in behaviour.records
        if is_harmful(row.set) == harmful
        and all(rate(behaviour, role, (row.set, row.modality), "refused") is not None for role in roles)
    }
    return sorted(found, key=lambda cell: (rank(SET_ORDER, cell[0]), rank(MODALITY_ORDER, cell[1])))


def difference(behaviour: BehaviourResult, role: str, against: str, cell: Cell) -> Difference | None:
    """Role minus against on one cell; None where either was not measured.

    A paired test gives the interval where there is one (in either direction); the value is always that of the rates,
    so that words and table agree.
    """
    measure = measure_for(behaviour, (role, against), cell)
    one, other = rate(behaviour, role, cell, measure), rate(behaviour, against, cell, measure)
    if one is None or other is None or one.rate is None or other.rate is None:
        return None
    value = one.rate - other.rate
    for test in behaviour.paired:
        if (test.set, test.modality, test.measure) != (*cell, measure):
            continue
        if (test.role, test.against) == (role, against):
            return Difference(cell, measure, value, test.low, test.high, paired=True)
        if (test.role, test.against) == (against, role):
            low, high = (None if bound is None else -bound for bound in (test.high, test.low))
            return Difference(cell, measure, value, low, high, paired=True)
    bounds = _unpaired_bounds(one, other)
    return Difference(cell, measure, value, *bounds, paired=False)


def _unpaired_bounds(one: Rate, other: Rate) -> tuple[float | None, float | None]:
    if one.low is None or one.high is None or other.low is None or other.high is None:
        return None, None
    return one.low - other.high, one.high - other.low


def differences(behaviour: BehaviourResult, role: str, against: str, harmful: bool) -> list[Difference]:
    """Role minus against on every cell that both were measured on."""
    found = [difference(behaviour, role, against, cell) for cell in cells(behaviour, harmful, role, against)]
    return [one for one in found if one is not None]


@dataclass(frozen=True)
class Recovery:
    """What may be said of refusals after the merge, against the adapted model.

    status: `raised` if the primary cell is clearly up and none clearly down; `lowered` if one is clearly down and
    none up; `mixed` if some are up and others not what the primary promises; else `unclear`.
    primary: the cell that the headline speaks of. all: every harmful cell. weakest: the cell where the merged model
    refuses least.
    """

    status: Status
    primary: Difference
    all: tuple[Difference, ...]
    weakest: Cell


def primary_cell(found: list[Cell]) -> Cell | None:
    """The cell that a headline speaks of: harmful requests beside an ordinary picture, if they were measured."""
    return next((cell for cell in PRIMARY if cell in found), found[0] if found else None)


def recovery(behaviour: BehaviourResult) -> Recovery | None:
    """Judge refusals of the merged model against the adapted one; None where both were not measured together."""
    found = differences(behaviour, "merged", "adapted", harmful=True)
    chosen = primary_cell([one.cell for one in found])
    if chosen is None:
        return None
    primary = next(one for one in found if one.cell == chosen)
    return Recovery(_status(primary, found), primary, tuple(found), weakest(behaviour, "merged", True) or chosen)


def weakest(behaviour: BehaviourResult, role: str, harmful: bool) -> Cell | None:
    """The cell on which a role does least of what one wants; None where it was measured on none."""
    rates = {}
    for cell in cells(behaviour, harmful, role):
        found = rate(behaviour, role, cell, measure_for(behaviour, (role,), cell))
        if found is not None and found.rate is not None:
            rates[cell] = found.rate
    return min(rates, key=lambda cell: rates[cell]) if rates else None


def _status(primary: Difference, found: list[Difference]) -> Status:
    up, down = any(d.clearly_up for d in found), any(d.clearly_down for d in found)
    if primary.clearly_up and not down:
        return "raised"
    if up:
        return "mixed"
    return "lowered" if down else "unclear"
