"""Partners for tensors that no name table knows: by layer and shape, and where these do not decide, by their values.

Checkpoints of one family hold nearly the same values, so a sample of entries tells whether two tensors are partners.
Tensors are compared a pattern at a time (the tensor of every layer under one name), so that a sample of some layers
decides for all. Where neither shapes nor values decide, nothing is paired.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING, Final

from vlsurgery.surgery.alignment.groups import (
    Pairing,
    Signature,
    TensorGroup,
    by_ends,
    in_number_order,
    repeated,
    single,
)
from vlsurgery.surgery.alignment.module_matching import NAMELESS, ModuleMatcher, in_stack
from vlsurgery.surgery.alignment.permutations import MAX_COLUMNS, UnmatchedGroup, row_permutations, split_rows
from vlsurgery.surgery.alignment.similarity import MARGIN, MATCH_COSINE, Similarity, min_cosine, read_view
from vlsurgery.surgery.architecture.decoder_stack import Shape, format_shape
from vlsurgery.surgery.architecture.layouts import EMBED, SiteViews, TensorView
from vlsurgery.surgery.architecture.naming import pattern, split_leaf
from vlsurgery.surgery.architecture.site import Site
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.errors import AlignmentError

if TYPE_CHECKING:
    from torch import Tensor

# Least median cosine, over the pairs that names give, of two related checkpoints.
RELATED_COSINE: Final = 0.8

Where = Callable[[Site], bool]
PatternOf = Callable[[Site, TensorView], tuple[str, tuple[int, ...]]]
FindPairs = Callable[[Sequence[TensorGroup], Sequence[TensorGroup]], Iterable[Pairing]]


class ContentMatcher:
    """Finds partners of two roles beyond those with one site.

    like, other: the roles. roles: role -> site -> view, of all roles; left as it is. reasons: (role, site) -> why a
    tensor has no partner, once `match` has run.
    """

    def __init__(
        self,
        checkpoints: Mapping[str, Checkpoint],
        shapes: Mapping[str, Mapping[str, Shape]],
        like: str,
        other: str,
        roles: Mapping[str, SiteViews],
    ) -> None:
        def read(role: str, view: TensorView, count: int) -> "Tensor":
            return read_view(checkpoints[role][view.name], view, 0, count)

        self.checkpoints = checkpoints
        self.shapes = shapes
        self.like, self.other = like, other
        self.roles = {role: dict(sites) for role, sites in roles.items()}
        self.similarity = Similarity(like, other, self.roles, shapes, read)
        self.reasons: dict[tuple[str, Site], str] = {}

    def match(self) -> dict[str, SiteViews]:
        """Role -> site -> view, with every tensor of `other` that has a partner in `like` at the partner's site.

        Raises AlignmentError where several tensors of the text stack look alike and nothing decides between them.
        """
        self._unmatch_shapes()
        left = {role: self._left(role) for role in (self.like, self.other)}
        suspects = self._suspects([*left[self.like], *left[self.other]])
        if not suspects and not all(left.values()):
            return self.roles
        related = self._are_related()
        for site, cosine in suspects.items():
            if related and cosine is not None and cosine < MATCH_COSINE:
                self._unmatch(site, cosine)

        def match_group(mine: Sequence[TensorGroup], theirs: Sequence[TensorGroup]) -> list[Pairing]:
            return self._match_group(mine, theirs, related)

        for where in (in_stack, _out_of_stack):
            self._match(where, repeated, match_group)
        for where in (_in_text, _out_of_stack):
            self._match(where, single, self._by_values)
        if self._match_biases():
            self._match(_out_of_stack, repeated, match_group)
        self._match_permuted()
        for mine, theirs in self._module_matcher().pairs():
            self._join(mine, theirs)
        self._check_ambiguous()
        self._check_tables()
        self._check_forms()
        self._module_matcher().check()
        return self.roles

    def _match(self, where: Where, pattern_of: PatternOf, find_pairs: FindPairs) -> None:
        """Pair unmatched tensors, pattern by pattern, among patterns of the same layers and shapes."""
        mine, theirs = (self._by_signature(role, where, pattern_of) for role in (self.like, self.other))
        for signature in [signature for signature in mine if signature in theirs]:
            for first, second in find_pairs(mine[signature], theirs[signature]):
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

    def _match_group(self, mine: Sequence[TensorGroup], theirs: Sequence[TensorGroup], related: bool) -> list[Pairing]:
        """The pairs among patterns of one signature: by values; then, where values do not contradict, by the ends of
        their names, as the only ones left, or in the order of their numbers."""
        pairs = self._by_values(mine, theirs)

        def left() -> tuple[list[TensorGroup], list[TensorGroup]]:
            taken = {id(group) for pair in pairs for group in pair}
            return [g for g in mine if id(g) not in taken], [g for g in theirs if id(g) not in taken]

        def agree(first: TensorGroup, second: TensorGroup) -> bool:
            # Constants (fresh norms) have no cosine, and values of unrelated checkpoints decide nothing.
            if not related:
                return True
            cosine = self._cosine(first, second)
            if cosine is not None:
                return cosine >= MATCH_COSINE
            return not any(self.similarity.is_unrelated(site, second.members[n]) for n, site in first.members.items())

        for words in (2, 1):
            pairs += [pair for pair in by_ends(*left(), words) if agree(*pair)]
        first, second = left()
        rest = [(first[0], second[0])] if len(first) == len(second) == 1 else in_number_order(first, second)
        return [*pairs, *(pair for pair in rest if agree(*pair))]

    def _match_biases(self) -> bool:
        """Pair unmatched biases, often too short or too even to compare, of modules whose weights are paired. Returns
        whether there were any."""
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
            if self.similarity.shape(self.like, site) == self.similarity.shape(self.other, bias):
                pairs.append((site, bias))
        for site, bias in pairs:
            self._join(site, bias)
        return bool(pairs)

    def _match_permuted(self) -> None:
        """Pair unmatched tensors slice by slice, where one layout holds the rows of the other fused or reordered."""
        mine, theirs = (self._left_whole(role) for role in (self.like, self.other))
        if not mine or not theirs:
            return
        known: dict[tuple[str, Site], Tensor] = {}

        def load(group: UnmatchedGroup) -> "Tensor":
            site = group.members[min(group.members)]
            if (group.role, site) not in known:
                shape = self.similarity.shape(group.role, site)
                entries = self.similarity.read(group.role, self.roles[group.role][site], math.prod(shape))
                known[group.role, site] = entries.reshape(shape[0], -1)[:, :MAX_COLUMNS].float()
            return known[group.role, site]

        for found in row_permutations(mine, theirs, load):
            self.roles.update(split_rows(found, self.like, self.roles, self.shapes))

    def _module_matcher(self) -> ModuleMatcher:
        """The matcher of unmatched weights outside of the text stack."""
        left = {
            role: [site for site in self._left(role) if not in_stack(site) and self._is_weight(role, site)]
            for role in (self.like, self.other)
        }
        return ModuleMatcher.of(self.similarity, left)

    def _is_weight(self, role: str, site: Site) -> bool:
        tensor = self.checkpoints[role][self.roles[role][site].name]
        return tensor.is_float and tensor.numel > 0

    def _left_whole(self, role: str) -> list[UnmatchedGroup]:
        """A role's unmatched whole tensors, pattern by pattern."""
        whole = {site for site, view in self.roles[role].items() if view == TensorView(view.name)}
        found = self._by_signature(role, whole.__contains__, repeated)
        return [UnmatchedGroup(role, *group) for groups in found.values() for group in groups]

    def _check_ambiguous(self) -> None:
        """Refuse text stacks with as many unmatched patterns of one signature on either side, and no cosine to tell."""
        mine, theirs = (self._by_signature(role, in_stack, repeated) for role in (self.like, self.other))
        for signature in [signature for signature in mine if signature in theirs]:
            first, second = mine[signature], theirs[signature]
            if len(first) == len(second) and all(self._cosine(a, b) is None for a in first for b in second):
                ours, others = (", ".join(sorted(group.pattern for group in side)) for side in (first, second))
                raise AlignmentError(
                    f"{ours} of {self.like} and {others} of {self.other} have the same shapes in the same layers, and "
                    "neither names nor values tell which is which. Name them as the other checkpoint does"
                )

    def _check_tables(self) -> None:
        """Refuse a table of the vocabulary in one role alone: every model has one."""
        for role, other in ((self.like, self.other), (self.other, self.like)):
            if EMBED in self.roles[role] and EMBED not in self.roles[other]:
                raise AlignmentError(
                    f"{self.roles[role][EMBED].name} of {role} is the table of its vocabulary, and nothing tells which "
                    f"tensor is that of {other}. Name it as the other checkpoint does"
                )

    def _check_forms(self) -> None:
        """Refuse layers of the text stack in which both roles have unmatched matrices under unknown names that hold
        about as many entries: they may be one weight in two forms."""
        left = [self._left_matrices(role) for role in (self.like, self.other)]
        for layer in sorted(left[0].keys() & left[1].keys()):
            sides = {self.like: left[0][layer], self.other: left[1][layer]}
            sizes = [sum(math.prod(self.similarity.shape(role, site)) for site in side) for role, side in sides.items()]
            named = all(not site.component.startswith("raw:") for side in sides.values() for site in side)
            if not named and 2 * min(sizes) >= max(sizes):
                ours, others = (
                    ", ".join(sorted({self.roles[role][site].name for site in side})[:3])
                    for role, side in sides.items()
                )
                raise AlignmentError(
                    f"{ours} of {self.like} and {others} of {self.other} may be one weight in two forms, and neither "
                    "names nor values tell how the one lies in the other. Name them as the other checkpoint does"
                )

    def _left_matrices(self, role: str) -> dict[int, list[Site]]:
        """Layer -> the unmatched matrices of the text stack in it."""
        found: dict[int, list[Site]] = {}
        for site in self._left(role):
            if site.tower == "text" and site.layer is not None and len(self.similarity.shape(role, site)) > 1:
                found.setdefault(site.layer, []).append(site)
        return found

    def _left(self, role: str) -> list[Site]:
        """The sites of a role that the other one lacks."""
        mine, theirs = self.roles[role], self.roles[self.other if role == self.like else self.like]
        if mine.keys() <= theirs.keys():
            return []
        return [site for site in mine if site not in theirs]

    def _suspects(self, left: Sequence[Site]) -> dict[Site, float | None]:
        """Sites that both roles have under names that end differently, one for each pattern, with their cosine.

        Outside of the text stack one name can have two meanings ("norm1" is the first norm of one layout, and the
        second of another), so where any name of a tower differs, all of its sites are suspects.

        left: the sites that one of the roles lacks.
        """
        found = self.roles[self.other]
        shared = [(site, part.name, found[site].name) for site, part in self.roles[self.like].items() if site in found]
        differing = {site for site, mine, theirs in shared if site.layer is not None and not _end_alike(mine, theirs)}
        mixed = {site.tower for site in (*differing, *left)} - {"text"}
        seen: dict[tuple[str, str, str], list[Site]] = {}
        for site, *_ in shared if differing or mixed else ():
            if (site in differing or site.tower in mixed) and self._same_shape(site):
                seen.setdefault((site.tower, *self._tails(site)), []).append(site)
        # Names outside of layers share no pattern, so that a sample of one is no evidence for another.
        samples = [sites if sites[0].layer is not None else sites[:1] for sites in seen.values()]
        return {sites[0]: self.similarity.cosine(sites, sites) for sites in samples}

    def _tails(self, site: Site) -> tuple[str, str]:
        """The ends of both roles' names at a site of a layer, without numbers and prefixes."""
        mine, theirs = (
            "" if site.layer is None else _tail(self.roles[role][site].name) for role in (self.like, self.other)
        )
        return mine, theirs

    def _same_shape(self, site: Site) -> bool:
        return self.similarity.shape(self.like, site) == self.similarity.shape(self.other, site)

    def _are_related(self) -> bool:
        """Whether the matrices that names pair are alike; False where there are none to compare."""
        mine, theirs = self.roles[self.like], self.roles[self.other]
        shared = [
            site
            for site in mine
            if site in theirs and len(self.shapes[self.like][mine[site].name]) > 1 and self._same_shape(site)
        ]
        picked = shared[:: max(1, len(shared) // 16)]
        found = [cosine for site in picked if (cosine := self.similarity.cosine([site], [site])) is not None]
        return bool(found) and median(found) >= RELATED_COSINE

    def _unmatch_shapes(self) -> None:
        """Separate tensors outside of the text stack that have one site but two shapes."""
        for site in [site for site in self.roles[self.like] if site.tower != "text" and site in self.roles[self.other]]:
            if not self._same_shape(site):
                mine, theirs = (format_shape(self.similarity.shape(role, site)) for role in (self.like, self.other))
                self._separate(site, f"shapes differ: {theirs} in {self.other}, {mine} in {self.like}")

    def _unmatch(self, suspect: Site, cosine: float) -> None:
        """Separate a pair that names made, in every layer."""
        tails = self._tails(suspect)
        for site in [site for site in self.roles[self.like] if site in self.roles[self.other]]:
            same = site.tower == suspect.tower and site.component == suspect.component
            if same and self._tails(site) == tails:
                self._separate(site, f"entries in another order, or other ones (cosine {cosine:.2f})")

    def _separate(self, site: Site, reason: str) -> None:
        """Give the other role's tensor a site of its own, by its raw name."""
        part = self.roles[self.other].pop(site)
        moved = site._replace(component=f"raw:{part.name}")
        self.roles[self.other][moved] = part
        self.reasons[self.like, site] = self.reasons[self.other, moved] = (
            f"{self.roles[self.like][site].name} of {self.like} and {part.name} of {self.other} stand in one place, "
            f"but they are not the same weight: {reason}"
        )

    def _by_signature(self, role: str, where: Where, pattern_of: PatternOf) -> dict[Signature, list[TensorGroup]]:
        members: dict[str, dict[tuple[int, ...], Site]] = {}
        for site in self._left(role):
            if where(site):
                name, numbers = pattern_of(site, self.roles[role][site])
                members.setdefault(name, {})[numbers] = site
        found: dict[Signature, list[TensorGroup]] = {}
        for name, sites in members.items():
            shapes = {number: self.similarity.shape(role, site) for number, site in sites.items()}
            found.setdefault(frozenset(shapes.items()), []).append(TensorGroup(name, sites, shapes))
        return found

    def _cosine(self, first: TensorGroup, second: TensorGroup) -> float | None:
        numbers = sorted(first.members)
        return self.similarity.cosine([first.members[n] for n in numbers], [second.members[n] for n in numbers])

    def _by_values(self, mine: Sequence[TensorGroup], theirs: Sequence[TensorGroup]) -> list[Pairing]:
        """Pairs of which each side has its largest cosine with the other, by a margin."""
        table = [[self._cosine(first, second) for second in theirs] for first in mine]
        pairs = []
        for row, first in enumerate(mine):
            column, best, margin = _best(table[row])
            if column is None or best < min_cosine(sum(map(math.prod, first.shapes.values()))) or margin < MARGIN:
                continue
            back, _, margin = _best([line[column] for line in table])
            if back == row and margin >= MARGIN:
                pairs.append((first, theirs[column]))
        return pairs


def _tail(name: str) -> str:
    """The last three words of a name, without numbers."""
    return ".".join(pattern(name)[0].rsplit(".", 3)[-3:])


def _end_alike(mine: str, theirs: str) -> bool:
    """Whether two names have the same tail. Most that do are equal to the letter, which is faster to test."""
    return mine.rsplit(".", 3)[-3:] == theirs.rsplit(".", 3)[-3:] or _tail(mine) == _tail(theirs)


def _out_of_stack(site: Site) -> bool:
    return not in_stack(site)


def _in_text(site: Site) -> bool:
    return site.tower == "text"


def _best(cosines: Sequence[float | None]) -> tuple[int | None, float, float]:
    """The index of the largest cosine, the cosine, and its lead over the second."""
    ranked = sorted(((cosine, place) for place, cosine in enumerate(cosines) if cosine is not None), reverse=True)
    if not ranked:
        return None, 0.0, 0.0
    second = ranked[1][0] if len(ranked) > 1 else 0.0
    return ranked[0][1], ranked[0][0], ranked[0][0] - max(second, 0.0)
