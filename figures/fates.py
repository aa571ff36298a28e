"""What became of the requests that the base refuses: refused still, complied with (lost), or answered with neither."""

from collections.abc import Iterable
from dataclasses import dataclass

from vlsurgery.figures.findings import PRIMARY, Cell, enough
from vlsurgery.figures.wording import MODALITY_ORDER, SET_ORDER, cell_phrase, listed, plural, rank, role_name
from vlsurgery.probes.results import HARMFUL_SETS, BehaviourResult, BehaviourRow, Rate

MIN_BROKEN_SHARE = 0.05
"""The share of the base's refusals of which a model must make nonsense before the headline says so first."""


@dataclass(frozen=True)
class Fate:
    """What one role makes of one cell's requests that the base refuses.

    lost: the share that it complies with. broken: the share to which it does neither. Both of the same prompts.
    of_base: of those that the base refuses; else of all, where what the base refuses was not measured.
    """

    role: str
    cell: Cell
    lost: Rate
    broken: Rate
    of_base: bool = True

    @property
    def lost_prompts(self) -> int:
        return _count(self.lost)

    @property
    def broken_prompts(self) -> int:
        return _count(self.broken)

    @property
    def kept(self) -> float:
        """The share that it refuses as the base does."""
        return max(0.0, 1.0 - (self.lost.rate or 0.0) - (self.broken.rate or 0.0))

    @property
    def enough(self) -> bool:
        """Whether words may rest on it."""
        return enough(self.lost) and enough(self.broken)

    @property
    def mostly_broken(self) -> bool:
        """Whether it makes nonsense of more than it complies with, and not just of a few."""
        lost, broken = self.lost.rate or 0.0, self.broken.rate or 0.0
        return self.enough and broken > lost and broken >= MIN_BROKEN_SHARE


def _count(rate: Rate) -> int:
    return round((rate.rate or 0.0) * rate.n)


def fate(row: BehaviourRow) -> Fate | None:
    """A row's fate; None where it isn't about harmful requests, or was not measured, or rests on one request."""
    known = row.lost.rate is not None and row.broken.rate is not None and row.lost.requests > 1
    if row.set not in HARMFUL_SETS or not known:
        return None
    return Fate(row.role, (row.set, row.modality), row.lost, row.broken)


def fates(behaviour: BehaviourResult, role: str) -> list[Fate]:
    """A role's fates, the cell of the headline first, the others in the house's order."""
    return _sorted(fate(row) for row in behaviour.records if row.role == role)


def _sorted(fates: Iterable[Fate | None]) -> list[Fate]:
    found = [one for one in fates if one]
    first = next((cell for cell in PRIMARY for one in found if one.cell == cell), None)
    return sorted(found, key=lambda one: (one.cell != first, _order(one.cell)))


def _told(behaviour: BehaviourResult, role: str) -> list[Fate]:
    """A role's fates; where what the base refuses was not measured, those of all harmful requests."""
    rows = [row for row in behaviour.records if row.role == role]
    return fates(behaviour, role) or _sorted(_of_all(row) for row in rows)


def _of_all(row: BehaviourRow) -> Fate | None:
    known = row.complied.rate is not None and row.neither.rate is not None and row.complied.requests > 1
    if row.set not in HARMFUL_SETS or not known:
        return None
    return Fate(row.role, (row.set, row.modality), row.complied, row.neither, of_base=False)


def _order(cell: Cell) -> tuple[tuple[int, str], tuple[int, str]]:
    return rank(SET_ORDER, cell[0]), rank(MODALITY_ORDER, cell[1])


def broken_first(behaviour: BehaviourResult, role: str) -> Fate | None:
    """The cell on which a role's output is broken more often than it complies: the headline's, else the worst."""
    told = _told(behaviour, role)
    if told and told[0].mostly_broken:
        return told[0]
    return max((one for one in told if one.mostly_broken), key=lambda one: one.broken.rate or 0.0, default=None)


def broken_words(fate: Fate) -> str:
    """That a role's output is broken more often than it complies, in numbers; a sentence without its full stop."""
    return (
        f"Of {_of(fate)}, the {fate.role} model breaks on {fate.broken_prompts} and complies with"
        f" {fate.lost_prompts}: its output is broken more often than it complies"
    )


def broken_places(behaviour: BehaviourResult, role: str) -> str:
    """Every cell on which a role's output is broken more often than it complies; nothing where there is none."""
    found = _told(behaviour, role)
    broken = [one for one in found if one.mostly_broken]
    if not broken:
        return ""
    places = [
        f"{cell_phrase(*one.cell)} (of {one.broken.n}{_base(one)} it breaks on {one.broken_prompts} and complies"
        f" with {one.lost_prompts})"
        for one in broken
    ]
    return (
        f"The {role} model breaks more often than it complies on {len(broken)} of {len(found)} harmful sets:"
        f" {listed(places)}"
    )


def lost_words(fate: Fate) -> str:
    """What became of the base's refusals: "of 112 ... that the base refuses, the adapted model complies with 48"."""
    return (
        f"of {_of(fate)}, the {fate.role} model complies with {fate.lost_prompts} (lost) and"
        f" breaks on {fate.broken_prompts}"
    )


def _of(fate: Fate) -> str:
    """What a fate is of: "112 harmful requests in text only that the base refuses"."""
    phrase = cell_phrase(*fate.cell)
    if fate.lost.n == fate.lost.requests:
        return f"{fate.lost.n} {phrase}{_base(fate)}"
    return f"{fate.lost.n} prompts ({plural(fate.lost.requests, 'request')}; {phrase}){_base(fate)}"


def _base(fate: Fate) -> str:
    return " that the base refuses" if fate.of_base else ""


def nothing_to_lose(behaviour: BehaviourResult) -> str | None:
    """That the base refuses no harmful request, so that none could be lost; None where it refuses some, or was not
    asked enough."""
    asked = [row for row in behaviour.records if row.role == "base" and row.set in HARMFUL_SETS]
    known = [row for row in asked if row.refused.rate is not None and enough(row.refused)]
    if not known or any(row.refused.rate for row in asked):
        return None
    prompts = sum(row.refused.n for row in known)
    return f"The base refuses 0 of {plural(prompts, 'prompt')} that ask for harm: nothing could be lost"


def one_sided(behaviour: BehaviourResult) -> list[str]:
    """Models that refuse everything or nothing of all that they were asked, harmful and harmless; without full stop."""
    told = []
    for role in dict.fromkeys(row.role for row in behaviour.records):
        rows = [row for row in behaviour.records if row.role == role and enough(row.refused)]
        shares = {row.refused.rate for row in rows}
        sides = {row.set in HARMFUL_SETS for row in rows}
        if sides == {True, False} and shares == {1.0}:
            told.append(f"Every request was refused by {role_name(role)}, harmless ones too")
        if sides == {True, False} and shares == {0.0}:
            told.append(f"No request at all was refused by {role_name(role)}, not one harmful one")
    return told
