"""Partners for what is left in modules of which most has found its partner: vectors that are too short or too even for
their values to tell them from all others, but not from the few that stand beside them.

Names that were changed word for word keep their modules together, so what is paired in a module tells which module of
the other checkpoint it became. Where that is not enough either, nothing is paired, and nobody is told that it has no
partner.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from vlsurgery.surgery.alignment.similarity import CLEAR, CLOSE, Likeness, least
from vlsurgery.surgery.architecture.decoder_stack import Shape
from vlsurgery.surgery.architecture.site import Site
from vlsurgery.surgery.errors import AlignmentError

# Towers that a site gets when its name tells none.
NAMELESS: Final = ("text", "other")

# Leaves that mean the same in every checkpoint.
LEAVES: Final = ("weight", "bias")

Pair = tuple[Site, Site]


class Standing(NamedTuple):
    """Where a tensor stands. home: the innermost module around it that has a partner, by its name in `like`. path: the
    numbers below it, None for words. leaf: the last word of its name, "" where that means nothing elsewhere."""

    home: str
    path: tuple[int | None, ...]
    leaf: str
    shape: Shape


@dataclass(frozen=True)
class Neighbourhood:
    """What is left of two roles outside of their text stacks. standings: role -> site -> where it stands."""

    likeness: Likeness
    standings: Mapping[str, Mapping[Site, Standing]]

    @classmethod
    def of(cls, likeness: Likeness, left: Mapping[str, Sequence[Site]]) -> "Neighbourhood":
        """left: role -> sites without partner."""
        mine, theirs = (likeness.roles[role] for role in (likeness.like, likeness.other))
        shared = [site for site in mine if site in theirs and not in_stack(site)]
        whole = [site for site in shared if mine[site].slices is None and theirs[site].slices is None]
        homes = modules((mine[site].name, theirs[site].name) for site in whole)
        names = {likeness.like: {home: home for home in homes}, likeness.other: {v: k for k, v in homes.items()}}
        return cls(
            likeness,
            {
                role: {
                    site: _standing(likeness.roles[role][site].name, likeness.shape(role, site), names[role])
                    for site in sites
                    if likeness.roles[role][site].slices is None
                }
                for role, sites in left.items()
            },
        )

    def pairs(self) -> list[Pair]:
        """Those that alone stand in one place, unless values object; and short vectors of which each is close to one
        other and far from the rest."""
        mine, theirs = (self._by_standing(role) for role in (self.likeness.like, self.likeness.other))
        found: list[Pair] = []
        for standing in [standing for standing in mine if standing in theirs]:
            first, second = mine[standing], theirs[standing]
            if len(first) == len(second) == 1:
                found += [(a, b) for a in first for b in second if self._may_be_one(a, b)]
            else:
                found += self._close(first, second)
        return found

    def _by_standing(self, role: str) -> dict[Standing, list[Site]]:
        found: dict[Standing, list[Site]] = {}
        for site, standing in self.standings[role].items():
            found.setdefault(standing, []).append(site)
        return found

    def check(self) -> None:
        """Raise AlignmentError where tensors of one module may be partners and nothing tells, or may be one weight in
        two forms."""
        mine, theirs = (self.standings[role] for role in (self.likeness.like, self.likeness.other))
        rivals: dict[tuple[str, Shape], list[Site]] = {}
        for site, standing in theirs.items():
            rivals.setdefault((standing.home, standing.shape), []).append(site)
        for site, standing in mine.items():
            for rival in rivals.get((standing.home, standing.shape), ()):
                leaves = {standing.leaf, theirs[rival].leaf}
                if leaves != {*LEAVES} and self._undecided(site, rival):
                    self._refuse([site], [rival], "may be one weight: they have one shape and stand in one module")
        self._check_forms()

    def _check_forms(self) -> None:
        """Refuse modules whose matrices without partner hold as many entries on both sides, in other shapes."""
        mine, theirs = (self._matrices(role) for role in (self.likeness.like, self.likeness.other))
        for home in [home for home in mine if home in theirs]:
            shapes = [
                sorted(self.standings[role][site].shape for site in sites)
                for role, sites in ((self.likeness.like, mine[home]), (self.likeness.other, theirs[home]))
            ]
            if shapes[0] != shapes[1] and len({sum(map(math.prod, side)) for side in shapes}) == 1:
                self._refuse(mine[home], theirs[home], "may be one weight in two forms: they have as many entries")

    def _matrices(self, role: str) -> dict[str, list[Site]]:
        """Matrices by their home, of those that have one."""
        found: dict[str, list[Site]] = {}
        for site, standing in self.standings[role].items():
            if standing.home and len(standing.shape) > 1:
                found.setdefault(standing.home, []).append(site)
        return found

    def _close(self, mine: Sequence[Site], theirs: Sequence[Site]) -> list[Pair]:
        """Short vectors of which each is close to one other and far from all the rest."""
        table = [[self.likeness.distance(first, second) for second in theirs] for first in mine]
        found = []
        for row, first in enumerate(mine):
            for column, second in enumerate(theirs):
                distance = table[row][column]
                rest = [*table[row][:column], *table[row][column + 1 :]]
                rest += [line[column] for place, line in enumerate(table) if place != row]
                if distance is not None and distance <= CLOSE:
                    least = max(CLOSE, CLEAR * distance)
                    found += [(first, second)] if all(other is not None and other > least for other in rest) else []
        return found

    def _may_be_one(self, mine: Site, theirs: Site) -> bool:
        """Whether neither values nor names of towers speak against a pair."""
        if mine.tower != theirs.tower and not {mine.tower, theirs.tower} & {*NAMELESS}:
            return False
        cosine = self.likeness.cosine([mine], [theirs])
        size = math.prod(self.likeness.shape(self.likeness.like, mine))
        return cosine >= least(size) if cosine is not None else self._undecided(mine, theirs)

    def _undecided(self, mine: Site, theirs: Site) -> bool:
        """Whether two tensors are too short or too even to tell, and not clearly different."""
        return self.likeness.cosine([mine], [theirs]) is None and not self.likeness.apart(mine, theirs)

    def _refuse(self, mine: Iterable[Site], theirs: Iterable[Site], why: str) -> None:
        roles = (self.likeness.like, self.likeness.other)
        ours, others = (
            ", ".join(sorted(self.likeness.roles[role][site].name for site in sites)[:3])
            for role, sites in zip(roles, (mine, theirs), strict=True)
        )
        raise AlignmentError(
            f"{ours} of {roles[0]} and {others} of {roles[1]} {why}, and neither names nor values tell. "
            "Name them as the other checkpoint does"
        )


def in_stack(site: Site) -> bool:
    """Whether a site lies in a layer of the text stack."""
    return site.tower == "text" and (site.layer is not None or site.own_layer is not None)


def modules(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Which module of the other checkpoint each module became, one for one: the one that holds the partners of all
    that it holds. Where they lie in several, there is none.

    pairs: names of partners.
    """
    forth: dict[str, set[str]] = {}
    back: dict[str, set[str]] = {}
    for mine, theirs in pairs:
        while "." in mine and "." in theirs:
            mine, theirs = mine.rpartition(".")[0], theirs.rpartition(".")[0]
            forth.setdefault(mine, set()).add(theirs)
            back.setdefault(theirs, set()).add(mine)
    only = {mine: next(iter(theirs)) for mine, theirs in forth.items() if len(theirs) == 1}
    return {mine: theirs for mine, theirs in only.items() if len(back[theirs]) == 1}


def _standing(name: str, shape: Shape, homes: Mapping[str, str]) -> Standing:
    """homes: a module's name in this checkpoint -> in `like`."""
    segments = name.split(".")
    depth = next((d for d in range(len(segments) - 1, 0, -1) if ".".join(segments[:d]) in homes), 0)
    path = tuple(int(word) if word.isdecimal() else None for word in segments[depth:-1])
    leaf = segments[-1] if segments[-1] in LEAVES else ""
    return Standing(homes.get(".".join(segments[:depth]), ""), path, leaf, shape)
