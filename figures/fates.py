"""What became of the requests that the base refuses: refused still, complied with (lost), or answered with neither."""

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
    """

    role: str
    cell: Cell
    lost: Rate
    broken: Rate

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
        """Whether more of the base's refusals turned to nonsense than to compliance, and not just a few."""
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
    found = [fate(row) for row in behaviour.records if row.role == role]
    first = next((cell for cell in PRIMARY for one in found if one and one.cell == cell), None)
    return sorted((one for one in found if one), key=lambda one: (one.cell != first, _order(one.cell)))


def _order(cell: Cell) -> tuple[tuple[int, str], tuple[int, str]]:
    return rank(SET_ORDER, cell[0]), rank(MODALITY_ORDER, cell[1])


def broken_first(behaviour: BehaviourResult, role: str) -> Fate | None:
    """The cell on which a role's output is broken more often than it complies: the headline's, else the worst."""
    found = [one for one in fates(behaviour, role) if one.mostly_broken]
    told = fates(behaviour, role)[:1]
    return told[0] if told and told[0] in found else max(found, key=lambda one: one.broken.rate or 0.0, default=None)


def broken_words(fate: Fate) -> str:
    """That a role's output is broken more often than it complies, in numbers; a sentence without its full stop."""
    return (
        f"Of {_of(fate)} that the base refuses, the {fate.role} model breaks on {fate.broken_prompts} and complies with"
        f" {fate.lost_prompts}: its output is broken more often than it complies"
    )


def broken_places(behaviour: BehaviourResult, role: str) -> str:
    """Every cell on which a role's output is broken more often than it complies; nothing where there is none."""
    found = fates(behaviour, role)
    broken = [one for one in found if one.mostly_broken]
    if not broken:
        return ""
    places = [
        f"{cell_phrase(*one.cell)} (of {one.broken.n} that the base refuses it breaks on {one.broken_prompts} and"
        f" complies with {one.lost_prompts})"
        for one in broken
    ]
    return (
        f"The {role} model breaks more often than it complies on {len(broken)} of {len(found)} harmful sets:"
        f" {listed(places)}"
    )


def lost_words(fate: Fate) -> str:
    """What became of the base's refusals: "of 112 ... that the base refuses, the adapted model complies with 48"."""
    return (
        f"of {_of(fate)} that the base refuses, the {fate.role} model complies with {fate.lost_prompts} (lost) and"
        f" breaks on {fate.broken_prompts}"
    )


def _of(fate: Fate) -> str:
    """The requests that the base refuses: "112 harmful requests in text only"."""
    phrase = cell_phrase(*fate.cell)
    if fate.lost.n == fate.lost.requests:
        return f"{fate.lost.n} {phrase}"
    return f"{fate.lost.n} prompts ({plural(fate.lost.requests, 'request')}; {phrase})"


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
