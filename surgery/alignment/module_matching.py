"""Partners within modules: vectors that are too short or too even to tell from all others, but not from their siblings.

The pairs found so far tell which module of the other checkpoint each module became. Where that does not decide either,
nothing is paired, and an error is raised rather than a tensor reported as without partner.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from vlsurgery.surgery.alignment.similarity import DISTANCE_RATIO, MATCH_DISTANCE, Similarity, min_cosine
from vlsurgery.surgery.architecture.decoder_stack import Shape
from vlsurgery.surgery.architecture.site import Site
from vlsurgery.surgery.errors import AlignmentError

# Towers of sites whose names tell no tower.
NAMELESS: Final = ("text", "other")

# Last words of names that mean the same in every checkpoint.
LEAVES: Final = ("weight", "bias")

Pair = tuple[Site, Site]


class ModulePosition(NamedTuple):
    """The position of a tensor within the modules of two checkpoints.

    module: the innermost one around it that has a partner, by its name in `like`. path: the numbers below it, None for
    words. leaf: the last word of its name where it is one of LEAVES, else "".
    """

    module: str
    path: tuple[int | None, ...]
    leaf: str
    shape: Shape


@dataclass(frozen=True)
class ModuleMatcher:
    """Pairs unmatched tensors of two roles outside of their text stacks. positions: role -> site -> position."""

    similarity: Similarity
    positions: Mapping[str, Mapping[Site, ModulePosition]]

    @classmethod
    def of(cls, similarity: Similarity, left: Mapping[str, Sequence[Site]]) -> "ModuleMatcher":
        """left: role -> sites without partner."""
        mine, theirs = (similarity.roles[role] for role in (similarity.like, similarity.other))
        shared = [site for site in mine if site in theirs and not in_stack(site)]
        whole = [site for site in shared if mine[site].slices is None and theirs[site].slices is None]
        partners = modules((mine[site].name, theirs[site].name) for site in whole)
        names = {
            similarity.like: {module: module for module in partners},
            similarity.other: {theirs: mine for mine, theirs in partners.items()},
        }
        return cls(
            similarity,
            {
                role: {
                    site: _position(similarity.roles[role][site].name, similarity.shape(role, site), names[role])
                    for site in sites
                    if similarity.roles[role][site].slices is None
                }
                for role, sites in left.items()
            },
        )

    def pairs(self) -> list[Pair]:
        """The pairs of tensors that alone have one position, unless values contradict; and of short vectors that are
        close to each other and far from all others at their position."""
        mine, theirs = (self._by_position(role) for role in (self.similarity.like, self.similarity.other))
        found: list[Pair] = []
        for position in [position for position in mine if position in theirs]:
            first, second = mine[position], theirs[position]
            if len(first) == len(second) == 1:
                found += [(a, b) for a in first for b in second if self._may_be_one(a, b)]
            else:
                found += self._close(first, second)
        return found

    def _by_position(self, role: str) -> dict[ModulePosition, list[Site]]:
        found: dict[ModulePosition, list[Site]] = {}
        for site, position in self.positions[role].items():
            found.setdefault(position, []).append(site)
        return found

    def check(self) -> None:
        """Raise AlignmentError where tensors of one module may be partners, or one weight in two forms, undecided."""
        mine, theirs = (self.positions[role] for role in (self.similarity.like, self.similarity.other))
        rivals: dict[tuple[str, Shape], list[Site]] = {}
        for site, position in theirs.items():
            rivals.setdefault((position.module, position.shape), []).append(site)
        for site, position in mine.items():
            for rival in rivals.get((position.module, position.shape), ()):
                leaves = {position.leaf, theirs[rival].leaf}
                if leaves != {*LEAVES} and self._undecided(site, rival):
                    self._refuse([site], [rival], "may be one weight: they have one shape and stand in one module")
        self._check_forms()

    def _check_forms(self) -> None:
        """Refuse modules whose matrices without partner hold as many entries on both sides, in other shapes."""
        mine, theirs = (self._matrices(role) for role in (self.similarity.like, self.similarity.other))
        for module in [module for module in mine if module in theirs]:
            shapes = [
                sorted(self.positions[role][site].shape for site in sites)
                for role, sites in ((self.similarity.like, mine[module]), (self.similarity.other, theirs[module]))
            ]
            if shapes[0] != shapes[1] and len({sum(map(math.prod, side)) for side in shapes}) == 1:
                self._refuse(mine[module], theirs[module], "may be one weight in two forms: they have as many entries")

    def _matrices(self, role: str) -> dict[str, list[Site]]:
        """Module -> the unmatched matrices in it."""
        found: dict[str, list[Site]] = {}
        for site, position in self.positions[role].items():
            if position.module and len(position.shape) > 1:
                found.setdefault(position.module, []).append(site)
        return found

    def _close(self, mine: Sequence[Site], theirs: Sequence[Site]) -> list[Pair]:
        """Pairs of short vectors that are close to each other and far from all others."""
        table = [[self.similarity.distance(first, second) for second in theirs] for first in mine]
        found = []
        for row, first in enumerate(mine):
            for column, second in enumerate(theirs):
                distance = table[row][column]
                rest = [*table[row][:column], *table[row][column + 1 :]]
                rest += [line[column] for place, line in enumerate(table) if place != row]
                if distance is not None and distance <= MATCH_DISTANCE:
                    far = max(MATCH_DISTANCE, DISTANCE_RATIO * distance)
                    found += [(first, second)] if all(other is not None and other > far for other in rest) else []
        return found

    def _may_be_one(self, mine: Site, theirs: Site) -> bool:
        """Whether neither values nor towers contradict a pair."""
        if mine.tower != theirs.tower and not {mine.tower, theirs.tower} & {*NAMELESS}:
            return False
        cosine = self.similarity.cosine([mine], [theirs])
        size = math.prod(self.similarity.shape(self.similarity.like, mine))
        return cosine >= min_cosine(size) if cosine is not None else self._undecided(mine, theirs)

    def _undecided(self, mine: Site, theirs: Site) -> bool:
        """Whether two tensors are too short or too even to compare, and not clearly different."""
        return self.similarity.cosine([mine], [theirs]) is None and not self.similarity.is_unrelated(mine, theirs)

    def _refuse(self, mine: Iterable[Site], theirs: Iterable[Site], why: str) -> None:
        roles = (self.similarity.like, self.similarity.other)
        ours, others = (
            ", ".join(sorted(self.similarity.roles[role][site].name for site in sites)[:3])
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
    """Module -> the other checkpoint's module that holds the partners of all its tensors; one for one.

    pairs: names of partners. A module whose partners lie in several modules is left out.
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


def _position(name: str, shape: Shape, partners: Mapping[str, str]) -> ModulePosition:
    """partners: a module's name in this checkpoint -> in `like`."""
    segments = name.split(".")
    depth = next((d for d in range(len(segments) - 1, 0, -1) if ".".join(segments[:d]) in partners), 0)
    path = tuple(int(word) if word.isdecimal() else None for word in segments[depth:-1])
    leaf = segments[-1] if segments[-1] in LEAVES else ""
    return ModulePosition(partners.get(".".join(segments[:depth]), ""), path, leaf, shape)
