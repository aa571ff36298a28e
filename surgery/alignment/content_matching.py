"""Partners for tensors whose names are nobody's: by where they stand, and where that is not enough, by what they hold.

Checkpoints of one family hold nearly the same values, so a handful of entries tells partners from strangers. Tensors
are told apart a pattern at a time (what repeats from layer to layer), so that a sample of one layer speaks for all.
Where neither shapes nor values tell, nothing is paired.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Final

from vlsurgery.surgery.alignment.groups import Group, Pairing, Signature, by_ends, in_number_order, repeated, single
from vlsurgery.surgery.alignment.module_matching import NAMELESS, Neighbourhood, in_stack
from vlsurgery.surgery.alignment.permutations import COLUMNS, Left, arrangements, cut_sites
from vlsurgery.surgery.alignment.similarity import PARTNERS, STRANGERS, Likeness, least
from vlsurgery.surgery.architecture.layouts import EMBED, TensorView
from vlsurgery.surgery.architecture.naming import pattern, split_leaf
from vlsurgery.surgery.architecture.site import Site
from vlsurgery.surgery.errors import AlignmentError

if TYPE_CHECKING:
    from torch import Tensor

# From this median on, over the pairs that names tell, two checkpoints are taken for relatives.
RELATIVES: Final = 0.8


Where = Callable[[Site], bool]
Place = Callable[[Site, TensorView], tuple[str, tuple[int, ...]]]
Tell = Callable[[Sequence[Group], Sequence[Group]], Iterable[Pairing]]


@dataclass
class Correspondence:
    """What two roles' tensors have in common beyond their names.

    likeness: how alike their tensors are. is_weight: whether a part holds weights, (role, part) -> bool. reasons:
    (role, site) -> why a site stays without partner.
    """

    likeness: Likeness
    is_weight: Callable[[str, TensorView], bool]
    reasons: dict[tuple[str, Site], str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.like, self.other = self.likeness.like, self.likeness.other
        self.roles, self.shapes = self.likeness.roles, self.likeness.shapes

    def settle(self) -> None:
        """Give every tensor of `other` that has a partner in `like` the partner's site, in place.

        Raises AlignmentError where several tensors of the text stack look alike and nothing tells which is which.
        """
        self._part_shapes()
        left = {role: self._left(role) for role in (self.like, self.other)}
        doubted = self._doubted([*left[self.like], *left[self.other]])
        if not doubted and not all(left.values()):
            return
        kin = self._kinship()
        for site, cosine in doubted.items():
            if kin is not None and kin >= RELATIVES and cosine is not None and cosine < PARTNERS:
                self._part_ways(site, cosine)
        for where in (in_stack, _out_of_stack):
            self._match(where, repeated, lambda mine, theirs: self._told(mine, theirs, kin))
        for where in (_in_text, _out_of_stack):
            self._match(where, single, self._by_values)
        if self._follow_weights():
            self._match(_out_of_stack, repeated, lambda mine, theirs: self._told(mine, theirs, kin))
        self._rearrange()
        for mine, theirs in self._neighbourhood().pairs():
            self._join(mine, theirs)
        self._check_told()
        self._check_forms()
        self._neighbourhood().check()

    def _match(self, where: "Where", place: "Place", tell: "Tell") -> None:
        """Pair what is left, pattern by pattern, among those that stand in the same layers with the same shapes."""
        mine, theirs = (self._by_signature(role, where, place) for role in (self.like, self.other))
        for signature in [signature for signature in mine if signature in theirs]:
            for first, second in tell(mine[signature], theirs[signature]):
                for number, site in first.members.items():
                    self._join(site, second.members[number])

    def _join(self, mine: Site, theirs: Site) -> None:
        """Give two tensors one site: that of `like`, unless only the other's name tells a tower."""
        part = self.roles[self.other].pop(theirs)
        elsewhere = any(mine in parts for role, parts in self.roles.items() if role != self.like)
        if mine.tower in NAMELESS and not in_stack(mine) and theirs.tower not in NAMELESS and not elsewhere:
            self.roles[self.like][theirs] = self.roles[self.like].pop(mine)
            mine = theirs
        self.roles[self.other][mine] = part

    def _told(self, mine: Sequence[Group], theirs: Sequence[Group], kin: float | None) -> list[Pairing]:
        """The pairs among patterns that stand alike: by values; by the ends of their names, or because they alone are
        left, where values don't object; in the order of their numbers."""
        pairs = self._by_values(mine, theirs)

        def left() -> tuple[list[Group], list[Group]]:
            taken = {id(group) for pair in pairs for group in pair}
            return [g for g in mine if id(g) not in taken], [g for g in theirs if id(g) not in taken]

        def agree(first: Group, second: Group) -> bool:
            # Constants (fresh norms) say nothing; strangers say no, unless the whole checkpoint is one.
            cosine = self._alike(first, second)
            if kin is None or kin < RELATIVES:
                return True
            if cosine is not None:
                return cosine >= PARTNERS
            return not any(self.likeness.apart(site, second.members[n]) for n, site in first.members.items())

        for words in (2, 1):
            pairs += [pair for pair in by_ends(*left(), words) if agree(*pair)]
        first, second = left()
        if len(first) == len(second) == 1:
            return [*pairs, (first[0], second[0])] if agree(first[0], second[0]) else pairs
        return [*pairs, *(pair for pair in in_number_order(first, second) if agree(*pair))]

    def _follow_weights(self) -> bool:
        """Pair the biases that are left, often too short or too even to tell, in modules whose weights are paired."""
        mine, theirs = (
            {part.name: site for site, part in self.roles[role].items() if part.slices is None}
            for role in (self.like, self.other)
        )
        pairs = []
        for site in self._left(self.like):
            module, ending = split_leaf(self.roles[self.like][site].name)
            weight = mine.get(f"{module}.weight") if ending else None
            partner = self.roles[self.other].get(weight) if weight is not None else None
            bias = theirs.get(f"{split_leaf(partner.name)[0]}{ending}") if partner is not None else None
            if bias is None or bias in self.roles[self.like]:
                continue
            if self.likeness.shape(self.like, site) == self.likeness.shape(self.other, bias):
                pairs.append((site, bias))
        for site, bias in pairs:
            self._join(site, bias)
        return bool(pairs)

    def _rearrange(self) -> None:
        """Pair what is left slice by slice, where one layout holds the rows of the other fused or in another order."""
        mine, theirs = (self._left_whole(role) for role in (self.like, self.other))
        if not mine or not theirs:
            return
        known: dict[tuple[str, Site], Tensor] = {}

        def load(group: Left) -> "Tensor":
            site = group.members[min(group.members)]
            if (group.role, site) not in known:
                shape = self.likeness.shape(group.role, site)
                entries = self.likeness.read(group.role, self.roles[group.role][site], math.prod(shape))
                known[group.role, site] = entries.reshape(shape[0], -1)[:, :COLUMNS].float()
            return known[group.role, site]

        for found in arrangements(mine, theirs, load):
            cut_sites(found, self.like, self.roles, lambda role, part: part.shape(self.shapes[role][part.name]))

    def _neighbourhood(self) -> Neighbourhood:
        """What is left outside of the text stack."""
        left = {
            role: [
                site for site in self._left(role) if not in_stack(site) and self.is_weight(role, self.roles[role][site])
            ]
            for role in (self.like, self.other)
        }
        return Neighbourhood.of(self.likeness, left)

    def _left_whole(self, role: str) -> list[Left]:
        """What is left of a role's whole tensors, pattern by pattern."""
        found = self._by_signature(role, lambda site: self._is_whole(role, site), repeated)
        return [Left(role, group.pattern, group.members, group.shapes) for groups in found.values() for group in groups]

    def _is_whole(self, role: str, site: Site) -> bool:
        part = self.roles[role][site]
        return part.slices is None and not part.transposed

    def _check_forms(self) -> None:
        """Refuse text stacks that in one layer leave matrices on both sides, as many entries as if they were one weight
        in two forms, under names that are in no table; and a vocabulary's table that the other side must have."""
        for role, other in ((self.like, self.other), (self.other, self.like)):
            if EMBED in self.roles[role] and EMBED not in self.roles[other]:
                raise AlignmentError(
                    f"{self.roles[role][EMBED].name} of {role} is the table of its vocabulary, and nothing tells which "
                    f"tensor is that of {other}. Name it as the other checkpoint does"
                )
        left = {role: self._left_matrices(role) for role in (self.like, self.other)}
        for layer in sorted(left[self.like].keys() & left[self.other].keys()):
            sides = [left[role][layer] for role in (self.like, self.other)]
            sizes = [
                sum(math.prod(self.likeness.shape(role, site)) for site in side)
                for role, side in zip((self.like, self.other), sides, strict=True)
            ]
            named = all(not site.component.startswith("raw:") for side in sides for site in side)
            if not named and 2 * min(sizes) >= max(sizes):
                ours, others = (
                    ", ".join(sorted({self.roles[role][site].name for site in side})[:3])
                    for role, side in zip((self.like, self.other), sides, strict=True)
                )
                raise AlignmentError(
                    f"{ours} of {self.like} and {others} of {self.other} may be one weight in two forms, and neither "
                    "names nor values tell how the one lies in the other. Name them as the other checkpoint does"
                )

    def _left_matrices(self, role: str) -> dict[int, list[Site]]:
        """The matrices of the text stack's layers that have no partner, by layer."""
        found: dict[int, list[Site]] = {}
        for site in self._left(role):
            if site.tower == "text" and site.layer is not None and len(self.likeness.shape(role, site)) > 1:
                found.setdefault(site.layer, []).append(site)
        return found

    def _check_told(self) -> None:
        """Refuse text stacks in which as many patterns are left on either side, alike in all that can be seen."""
        mine, theirs = (self._by_signature(role, in_stack, repeated) for role in (self.like, self.other))
        for signature in [signature for signature in mine if signature in theirs]:
            first, second = mine[signature], theirs[signature]
            if len(first) == len(second) and all(self._alike(a, b) is None for a in first for b in second):
                ours, others = (", ".join(sorted(group.pattern for group in side)) for side in (first, second))
                raise AlignmentError(
                    f"{ours} of {self.like} and {others} of {self.other} have the same shapes in the same layers, and "
                    "neither names nor values tell which is which. Name them as the other checkpoint does"
                )

    def _left(self, role: str) -> list[Site]:
        """The sites of a role that the other one lacks."""
        mine, theirs = self.roles[role], self.roles[self.other if role == self.like else self.like]
        if mine.keys() <= theirs.keys():
            return []
        return [site for site in mine if site not in theirs]

    def _doubted(self, left: Sequence[Site]) -> dict[Site, float | None]:
        """Sites that both roles have under names that end differently, one for each pattern, with their similarity.

        Outside of the text stack one name can even mean two things (norm1 is the first norm in one layout, and the
        second in another), so a tower whose names differ anywhere is doubted as a whole.

        left: the sites that one of the roles lacks.
        """
        found = self.roles[self.other]
        shared = [(site, part.name, found[site].name) for site, part in self.roles[self.like].items() if site in found]
        differing = {site for site, mine, theirs in shared if site.layer is not None and not _end_alike(mine, theirs)}
        mixed = {site.tower for site in (*differing, *left)} - {"text"}
        seen: dict[tuple[str, str, str], list[Site]] = {}
        for site, *_ in shared if differing or mixed else ():
            if site in differing or site.tower in mixed:
                tails = (site.tower, self._tail(self.like, site), self._tail(self.other, site))
                if self._same_shape(site, site):
                    seen.setdefault(tails, []).append(site)
        # What lies outside of layers shares no pattern, so that one of them speaks for itself alone.
        samples = [sites if sites[0].layer is not None else sites[:1] for sites in seen.values()]
        return {sites[0]: self.likeness.cosine(sites, sites) for sites in samples}

    def _tail(self, role: str, site: Site) -> str:
        """The end of a tensor's name, without numbers and without what prefixes add."""
        return "" if site.layer is None else _tail_of(self.roles[role][site].name)

    def _same_shape(self, mine: Site, theirs: Site) -> bool:
        first, second = self.roles[self.like][mine], self.roles[self.other][theirs]
        return first.shape(self.shapes[self.like][first.name]) == second.shape(self.shapes[self.other][second.name])

    def _kinship(self) -> float | None:
        """How alike the pairs are that names tell; None where there are none to compare."""
        shared = [site for site in self.roles[self.like] if site in self.roles[self.other] and self._is_matrix(site)]
        picked = shared[:: max(1, len(shared) // 16)]
        found = [cosine for site in picked if (cosine := self.likeness.cosine([site], [site])) is not None]
        return median(found) if found else None

    def _is_matrix(self, site: Site) -> bool:
        return len(self.shapes[self.like][self.roles[self.like][site].name]) > 1 and self._same_shape(site, site)

    def _part_shapes(self) -> None:
        """Outside of the text stack, tensors of one site but of two shapes only share a name."""
        for site in [site for site in self.roles[self.like] if site.tower != "text" and site in self.roles[self.other]]:
            if self.likeness.shape(self.like, site) != self.likeness.shape(self.other, site):
                mine, theirs = (
                    " x ".join(map(str, self.likeness.shape(role, site))) for role in (self.like, self.other)
                )
                self._move_away(site, f"shapes differ: {theirs} in {self.other}, {mine} in {self.like}")

    def _part_ways(self, doubted: Site, cosine: float) -> None:
        """Take back a pair that names made, in every layer: both go to the tensors that are left."""
        mine, theirs = (self._tail(role, doubted) for role in (self.like, self.other))
        for site in [site for site in self.roles[self.like] if site in self.roles[self.other]]:
            same = site.tower == doubted.tower and site.component == doubted.component
            if same and (self._tail(self.like, site), self._tail(self.other, site)) == (mine, theirs):
                self._move_away(site, f"entries in another order, or other ones (cosine {cosine:.2f})")

    def _move_away(self, site: Site, reason: str) -> None:
        """Give the other role's tensor a site of its own, as if nothing were known of it."""
        part = self.roles[self.other].pop(site)
        moved = site._replace(component=f"raw:{part.name}")
        self.roles[self.other][moved] = part
        self.reasons[self.like, site] = self.reasons[self.other, moved] = (
            f"{self.roles[self.like][site].name} of {self.like} and {part.name} of {self.other} stand in one place, "
            f"but they are not the same weight: {reason}"
        )

    def _by_signature(self, role: str, where: "Where", place: "Place") -> "dict[Signature, list[Group]]":
        members: dict[str, dict[tuple[int, ...], Site]] = {}
        for site in self._left(role):
            if where(site):
                name, numbers = place(site, self.roles[role][site])
                members.setdefault(name, {})[numbers] = site
        found: dict[Signature, list[Group]] = {}
        for name, sites in members.items():
            group = Group(name, sites, {number: self.likeness.shape(role, site) for number, site in sites.items()})
            found.setdefault(group.signature, []).append(group)
        return found

    def _alike(self, first: Group, second: Group) -> float | None:
        numbers = sorted(first.members)
        return self.likeness.cosine([first.members[n] for n in numbers], [second.members[n] for n in numbers])

    def _by_values(self, mine: Sequence[Group], theirs: Sequence[Group]) -> list[Pairing]:
        """Pairs that prefer each other to all others, clearly."""
        table = [[self._alike(first, second) for second in theirs] for first in mine]
        pairs = []
        for row, first in enumerate(mine):
            place, best, margin = _best(table[row])
            if place is None or best < least(sum(map(math.prod, first.shapes.values()))) or margin < STRANGERS:
                continue
            back, _, margin = _best([line[place] for line in table])
            if back == row and margin >= STRANGERS:
                pairs.append((first, theirs[place]))
        return pairs


def _tail_of(name: str) -> str:
    """The last three words of a name, without numbers."""
    return ".".join(pattern(name)[0].rsplit(".", 3)[-3:])


def _end_alike(mine: str, theirs: str) -> bool:
    """Whether two names have the same tail. Most of those that do end alike to the letter, and need no pattern."""
    return mine.rsplit(".", 3)[-3:] == theirs.rsplit(".", 3)[-3:] or _tail_of(mine) == _tail_of(theirs)


def _out_of_stack(site: Site) -> bool:
    return not in_stack(site)


def _in_text(site: Site) -> bool:
    return site.tower == "text"


def _best(cosines: Sequence[float | None]) -> tuple[int | None, float, float]:
    """The place of the largest cosine, it, and by how much it leads."""
    ranked = sorted(((cosine, place) for place, cosine in enumerate(cosines) if cosine is not None), reverse=True)
    if not ranked:
        return None, 0.0, 0.0
    second = ranked[1][0] if len(ranked) > 1 else 0.0
    return ranked[0][1], ranked[0][0], ranked[0][0] - max(second, 0.0)
