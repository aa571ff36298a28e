"""Partners for tensors whose names are nobody's: by where they stand, and where that is not enough, by what they hold.

Checkpoints of one family hold nearly the same values, so a handful of entries tells partners from strangers. Tensors
are told apart a pattern at a time (what repeats from layer to layer), so that a sample of one layer speaks for all.
Where neither shapes nor values tell, nothing is paired.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Final

from surgery.anatomy import Site
from surgery.errors import AlignmentError
from surgery.forms import Part, Parts
from surgery.naming import pattern
from surgery.stack import Shape

if TYPE_CHECKING:
    from torch import Tensor

# Entries of a tensor that are compared: at this many, strangers have cosines of 0 to within .02.
SAMPLE: Final = 4096

# Cosines of the samples, each less its mean. Partners have .9 and more unless a delta is as large as the weights;
# below STRANGERS two tensors have nothing in common.
PARTNERS: Final = 0.5
STRANGERS: Final = 0.2

# From this median on, over the pairs that names tell, two checkpoints are taken for relatives.
RELATIVES: Final = 0.8

Read = Callable[[str, Part, int], "Tensor"]


@dataclass(frozen=True)
class Group:
    """The sites of one role that share a pattern: one tensor a layer. members: numbers in the name -> site."""

    pattern: str
    members: Mapping[tuple[int, ...], Site]
    shapes: Mapping[tuple[int, ...], Shape]

    @property
    def signature(self) -> frozenset[tuple[tuple[int, ...], Shape]]:
        """Where it stands: in which layers, with which shapes."""
        return frozenset(self.shapes.items())


@dataclass
class Correspondence:
    """What two roles' tensors have in common beyond their names.

    like, other: roles. shapes: role -> name -> shape. read: entries of a part, (role, part, how many) -> vector.
    reasons: (role, site) -> why a site stays without partner.
    """

    like: str
    other: str
    roles: Mapping[str, Parts]
    shapes: Mapping[str, Mapping[str, Shape]]
    read: Read
    reasons: dict[tuple[str, Site], str] = field(default_factory=dict)
    _samples: dict[tuple[str, str, str], "Tensor | None"] = field(default_factory=dict)

    def settle(self) -> None:
        """Give every tensor of `other` that has a partner in `like` the partner's site, in place.

        Raises AlignmentError where several tensors of the text stack look alike and nothing tells which is which.
        """
        doubted = self._doubted()
        left = {role: self._left(role) for role in (self.like, self.other)}
        if not doubted and not all(left.values()):
            return
        kin = self._kinship()
        for site, cosine in doubted.items():
            if kin is not None and kin >= RELATIVES and cosine is not None and cosine < STRANGERS:
                self._part_ways(site, cosine)
        for of_text in (True, False):
            for grouping in (pattern, lambda name: (name, ())):
                self._match(of_text, grouping, kin)

    def similarity(self, mine: Site, theirs: Site) -> float | None:
        """Cosine of the centred samples of two sites' tensors, in [-1, 1]; None where one is constant or too short."""
        first, second = self._sample(self.like, mine), self._sample(self.other, theirs)
        if first is None or second is None or first.shape != second.shape:
            return None
        return float(first @ second)

    def _sample(self, role: str, site: Site) -> "Tensor | None":
        part = self.roles[role][site]
        key = (role, part.name, str(part.rows))
        if key not in self._samples:
            size = min(SAMPLE, math.prod(part.shape(self.shapes[role][part.name])))
            vector = self.read(role, part, size).double()
            vector = vector - vector.mean()
            norm = float(vector.norm())
            self._samples[key] = vector / norm if size >= 8 and math.isfinite(norm) and norm > 0 else None
        return self._samples[key]

    def _left(self, role: str) -> list[Site]:
        """The sites of a role that the other one lacks."""
        mine, theirs = self.roles[role], self.roles[self.other if role == self.like else self.like]
        return [site for site in mine if site not in theirs]

    def _doubted(self) -> dict[Site, float | None]:
        """Sites that both roles have under names that end differently, one for each pattern, with their similarity.

        Outside of the text stack one name can even mean two things (norm1 is the first norm in one layout, and the
        second in another), so a tower whose names differ anywhere is doubted as a whole.
        """
        shared = [site for site in self.roles[self.like] if site in self.roles[self.other]]
        tails = {site: (self._tail(self.like, site), self._tail(self.other, site)) for site in shared}
        mixed = {site.tower for site, (mine, theirs) in tails.items() if mine != theirs}
        mixed |= {site.tower for role in (self.like, self.other) for site in self._left(role)}
        seen: dict[tuple[str, str, str], Site] = {}
        for site, (mine, theirs) in tails.items():
            if mine != theirs or (site.tower != "text" and site.tower in mixed):
                seen.setdefault((site.tower, mine, theirs), site)
        return {site: self.similarity(site, site) for site in seen.values() if self._same_shape(site, site)}

    def _tail(self, role: str, site: Site) -> str:
        """The end of a tensor's name, without numbers and without what prefixes add."""
        return ".".join(pattern(self.roles[role][site].name)[0].split(".")[-3:]) if site.layer is not None else ""

    def _same_shape(self, mine: Site, theirs: Site) -> bool:
        first, second = self.roles[self.like][mine], self.roles[self.other][theirs]
        return first.shape(self.shapes[self.like][first.name]) == second.shape(self.shapes[self.other][second.name])

    def _kinship(self) -> float | None:
        """How alike the pairs are that names tell; None where there are none to compare."""
        shared = [site for site in self.roles[self.like] if site in self.roles[self.other] and self._is_matrix(site)]
        picked = shared[:: max(1, len(shared) // 16)]
        found = [cosine for site in picked if (cosine := self.similarity(site, site)) is not None]
        return median(found) if found else None

    def _is_matrix(self, site: Site) -> bool:
        return len(self.shapes[self.like][self.roles[self.like][site].name]) > 1 and self._same_shape(site, site)

    def _part_ways(self, doubted: Site, cosine: float) -> None:
        """Take back a pair that names made, in every layer: both go to the tensors that are left."""
        mine, theirs = (self._tail(role, doubted) for role in (self.like, self.other))
        for site in [site for site in self.roles[self.like] if site in self.roles[self.other]]:
            same = site.tower == doubted.tower and site.component == doubted.component
            if same and (self._tail(self.like, site), self._tail(self.other, site)) == (mine, theirs):
                part = self.roles[self.other].pop(site)
                moved = site._replace(component=f"raw:{part.name}")
                self.roles[self.other][moved] = part
                reason = f"has {{}} in its place, with entries in another order or other ones (cosine {cosine:.2f})"
                self.reasons[self.like, site] = f"{self.other} " + reason.format(part.name)
                self.reasons[self.other, moved] = f"{self.like} " + reason.format(self.roles[self.like][site].name)

    def _match(self, of_text: bool, grouping: Callable[[str], tuple[str, tuple[int, ...]]], kin: float | None) -> None:
        """Pair what is left, pattern by pattern, among those that stand in the same layers with the same shapes."""
        mine = self._by_signature(self.like, of_text, grouping)
        theirs = self._by_signature(self.other, of_text, grouping)
        for signature in [signature for signature in mine if signature in theirs]:
            for first, second in self._told(mine[signature], theirs[signature], kin, of_text):
                for number, site in first.members.items():
                    self.roles[self.other][site] = self.roles[self.other].pop(second.members[number])

    def _by_signature(
        self, role: str, of_text: bool, grouping: Callable[[str], tuple[str, tuple[int, ...]]]
    ) -> dict[frozenset[tuple[tuple[int, ...], Shape]], list[Group]]:
        members: dict[str, dict[tuple[int, ...], Site]] = {}
        for site in self._left(role):
            if (site.tower == "text") == of_text:
                name, numbers = self._place(role, site, grouping)
                members.setdefault(name, {})[numbers] = site
        found: dict[frozenset[tuple[tuple[int, ...], Shape]], list[Group]] = {}
        for name, sites in members.items():
            shapes = {number: self._shape(role, site) for number, site in sites.items()}
            group = Group(name, sites, shapes)
            found.setdefault(group.signature, []).append(group)
        return found

    def _place(
        self, role: str, site: Site, grouping: Callable[[str], tuple[str, tuple[int, ...]]]
    ) -> tuple[str, tuple[int, ...]]:
        """A site's pattern and numbers; in the text stack the layer is the base's, whatever the file's number is."""
        name = self.roles[role][site].name
        if site.tower != "text" or site.layer is None:
            return grouping(f"{name}#{site.component}" if self.roles[role][site].rows else name)
        word, numbers = grouping(site.component.removeprefix("raw:"))
        return word, (site.layer, *numbers)

    def _shape(self, role: str, site: Site) -> Shape:
        part = self.roles[role][site]
        return part.shape(self.shapes[role][part.name])

    def _told(
        self, mine: Sequence[Group], theirs: Sequence[Group], kin: float | None, of_text: bool
    ) -> Iterable[tuple[Group, Group]]:
        """The pairs among patterns that stand alike: by values; the one that is left over on both sides; in the
        order of their numbers."""
        pairs = self._by_values(mine, theirs)
        taken = {id(group) for pair in pairs for group in pair}
        mine = [group for group in mine if id(group) not in taken]
        theirs = [group for group in theirs if id(group) not in taken]
        if len(mine) == len(theirs) == 1:
            cosine = self._alike(mine[0], theirs[0])
            # Constants (fresh norms) say nothing; strangers say no, unless the whole checkpoint is one.
            if cosine is None or cosine >= STRANGERS or kin is None or kin < RELATIVES:
                return [*pairs, (mine[0], theirs[0])]
        elif mine and theirs:
            numbered = _in_number_order(mine, theirs)
            if numbered or not of_text:
                return [*pairs, *numbered]
            if len(mine) == len(theirs) and all(self._alike(a, b) is None for a in mine for b in theirs):
                first, second = (", ".join(sorted(group.pattern for group in side)) for side in (mine, theirs))
                raise AlignmentError(
                    f"{first} of {self.like} and {second} of {self.other} have the same shapes in the same layers, and "
                    "neither their names nor their values tell which is which. Rename them as the other checkpoint does"
                )
        return pairs

    def _alike(self, first: Group, second: Group) -> float | None:
        number = min(first.members)
        return self.similarity(first.members[number], second.members[number])

    def _by_values(self, mine: Sequence[Group], theirs: Sequence[Group]) -> list[tuple[Group, Group]]:
        """Pairs that prefer each other to all others, clearly."""
        table = [[self._alike(first, second) for second in theirs] for first in mine]
        pairs = []
        for row, first in enumerate(mine):
            place, best, margin = _best(table[row])
            if place is None or best < PARTNERS or margin < STRANGERS:
                continue
            back, _, margin = _best([line[place] for line in table])
            if back == row and margin >= STRANGERS:
                pairs.append((first, theirs[place]))
        return pairs


def _best(cosines: Sequence[float | None]) -> tuple[int | None, float, float]:
    """The place of the largest cosine, it, and by how much it leads."""
    ranked = sorted(((cosine, place) for place, cosine in enumerate(cosines) if cosine is not None), reverse=True)
    if not ranked:
        return None, 0.0, 0.0
    second = ranked[1][0] if len(ranked) > 1 else 0.0
    return ranked[0][1], ranked[0][0], ranked[0][0] - max(second, 0.0)


def _in_number_order(mine: Sequence[Group], theirs: Sequence[Group]) -> list[tuple[Group, Group]]:
    """Patterns that differ by a number alone on both sides ("norm0", "norm1" and "ln.1", "ln.2"): pairs in order."""
    if len(mine) != len(theirs):
        return []
    sides = []
    for groups in (mine, theirs):
        stems = {"".join(c for c in group.pattern if not c.isdecimal()) for group in groups}
        if len(stems) != 1:
            return []
        sides.append(sorted(groups, key=lambda group: [int(n) for n in _numbers(group.pattern)]))
    return list(zip(*sides, strict=True))


def _numbers(text: str) -> list[str]:
    return "".join(c if c.isdecimal() else " " for c in text).split()
