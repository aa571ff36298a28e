"""Tensors whose rows another layout fused, split or permuted, found by their values.

The name tables know the fused projections of language models. Towers name theirs freely, and two layouts of one tower
can differ in more than names: q, k and v in one tensor or in three, and the rows of each head in the order of rotary
pairs (0, 1, 2, 3) or of rotary halves (0, 2, 1, 3). All of these are slices, some with a step of two.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, permutations
from typing import TYPE_CHECKING, Final

from vlsurgery.surgery.alignment.similarity import MARGIN, MATCH_COSINE
from vlsurgery.surgery.architecture.decoder_stack import Shape
from vlsurgery.surgery.architecture.layouts import SiteViews, TensorView, slices_of
from vlsurgery.surgery.architecture.naming import split_leaf
from vlsurgery.surgery.architecture.site import Site

if TYPE_CHECKING:
    from torch import Tensor

# Most columns of a matrix that are compared, and most siblings among which the parts of a fused tensor are searched.
MAX_COLUMNS: Final = 256
MAX_SIBLINGS: Final = 6

# Start, stop and perhaps step.
RowSlice = tuple[int, ...]
Numbers = tuple[int, ...]


@dataclass(frozen=True)
class UnmatchedGroup:
    """Unmatched tensors of one role that share a pattern. members, shapes: numbers in the name -> site, shape."""

    role: str
    pattern: str
    members: Mapping[Numbers, Site]
    shapes: Mapping[Numbers, Shape]

    @property
    def rows(self) -> int:
        return next(iter(self.shapes.values()))[0]

    @property
    def row_shapes(self) -> tuple[frozenset[Numbers], Shape] | None:
        """Its layers and the shape of a row; None where layers differ in shape, or for scalars."""
        shapes = set(self.shapes.values())
        return (frozenset(self.shapes), shapes.pop()[1:]) if len(shapes) == 1 and () not in shapes else None

    @property
    def parent(self) -> str:
        return split_leaf(self.pattern)[0].rpartition(".")[0]

    @property
    def bias(self) -> str:
        """The pattern of the bias beside this weight."""
        stem = self.pattern.removesuffix("weight")
        return f"{stem}bias" if stem != self.pattern else f"{stem}.bias"


@dataclass(frozen=True)
class MatchedRows:
    """Rows of a fused tensor, and the rows of a part with the same weights."""

    whole: RowSlice
    part: RowSlice


@dataclass(frozen=True)
class RowPermutation:
    """How the rows of `whole` are those of `parts`: for each part, which rows are the same."""

    whole: UnmatchedGroup
    parts: Sequence[UnmatchedGroup]
    pieces: Sequence[Sequence[MatchedRows]]


Load = Callable[[UnmatchedGroup], "Tensor"]


def row_permutations(
    mine: Sequence[UnmatchedGroup], theirs: Sequence[UnmatchedGroup], load: Load
) -> Iterator[RowPermutation]:
    """Every tensor whose rows are clearly those of one or several tensors of the other role, by values.

    load: the rows of the first layer of a pattern, [rows, at most MAX_COLUMNS]. Biases, which are often constant, are
    split as their weights are.
    """
    taken: set[int] = set()
    for wholes, others in ((mine, theirs), (theirs, mine)):
        for whole in wholes:
            if id(whole) in taken or whole.row_shapes is None or not whole.row_shapes[1]:
                continue
            free = [part for part in others if id(part) not in taken and part.row_shapes == whole.row_shapes]
            found = _permutation_of(whole, free, load)
            if found is None:
                continue
            for permutation in (found, _of_biases(found, wholes, others)):
                if permutation is not None:
                    taken.update(map(id, (permutation.whole, *permutation.parts)))
                    yield permutation


def _permutation_of(whole: UnmatchedGroup, free: Sequence[UnmatchedGroup], load: Load) -> RowPermutation | None:
    """The one way in which a tensor's rows are those of others; None where there is none, or more than one."""
    known: dict[tuple[int, RowSlice], list[MatchedRows] | None] = {}

    def pieces(part: UnmatchedGroup, cut: RowSlice) -> list[MatchedRows] | None:
        key = (id(part), cut)
        if key not in known:
            known[key] = _pieces(load(whole), load(part), cut)
        return known[key]

    found = []
    for parts in _candidates(whole, free):
        for cuts in _cuts(parts, whole.rows):
            held = [pieces(part, cut) for part, cut in zip(parts, cuts, strict=True)]
            if all(held):
                found.append(RowPermutation(whole, parts, [piece for piece in held if piece]))
    return found[0] if len(found) == 1 else None


def _candidates(whole: UnmatchedGroup, free: Sequence[UnmatchedGroup]) -> Iterator[tuple[UnmatchedGroup, ...]]:
    """Tensors that together have as many rows as `whole`: a single one, or two or three of one module."""
    yield from ((part,) for part in free if part.rows == whole.rows)
    for parent in dict.fromkeys(part.parent for part in free):
        siblings = [part for part in free if part.parent == parent and part.rows < whole.rows]
        for count in (2, 3) if len(siblings) <= MAX_SIBLINGS else ():
            for parts in permutations(siblings, count):
                if sum(part.rows for part in parts) == whole.rows:
                    yield parts


def _cuts(parts: Sequence[UnmatchedGroup], whole: int) -> Iterator[list[RowSlice]]:
    """Where the parts' rows can lie in the whole: one part after the other, or interleaved row by row."""
    stops = accumulate(part.rows for part in parts)
    yield [(stop - part.rows, stop) for part, stop in zip(parts, stops, strict=True)]
    if len(parts) > 1 and len({part.rows for part in parts}) == 1:
        yield [(place, whole, len(parts)) for place in range(len(parts))]


def _pieces(whole: "Tensor", part: "Tensor", cut: RowSlice) -> list[MatchedRows] | None:
    """Which rows of a slice of the whole are which of a part: all in one piece where they have one order, two pieces a
    head between rotary pairs and rotary halves; None where no order gives a clear match."""
    held, count = whole[slice(*cut)], len(part)
    found = [(_cosine(held, part), [MatchedRows(cut, (0, count))])]
    for head in range(4, count + 1, 2) if len(cut) == 2 else ():
        if count % head == 0:
            pairs = [(place + turn, place + head, 2) for place in range(0, count, head) for turn in (0, 1)]
            halves = [(place, place + head // 2) for place in range(0, count, head // 2)]
            order = [row for each in pairs for row in range(*each)]
            first = cut[0]
            straight = [MatchedRows(_moved(a, first), b) for a, b in zip(pairs, halves, strict=True)]
            found.append((_cosine(held[order], part), straight))
            if head > 4:  # With four rows a head, one order is the other one.
                reverse = [MatchedRows(_moved(a, first), b) for a, b in zip(halves, pairs, strict=True)]
                found.append((_cosine(held, part[order]), reverse))
    found.sort(key=lambda entry: -entry[0])
    lead = found[0][0] - (found[1][0] if len(found) > 1 else 0.0)
    return found[0][1] if found[0][0] >= MATCH_COSINE and lead >= MARGIN else None


def _moved(cut: RowSlice, by: int) -> RowSlice:
    return (cut[0] + by, cut[1] + by, *cut[2:])


def _cosine(first: "Tensor", second: "Tensor") -> float:
    """Cosine of two matrices, each less its mean; 0 where one is constant."""
    ours, others = (side - side.mean() for side in (first, second))
    norm = float(ours.norm() * others.norm())
    return float((ours * others).sum()) / norm if norm > 0 else 0.0


def _of_biases(
    weights: RowPermutation, wholes: Sequence[UnmatchedGroup], others: Sequence[UnmatchedGroup]
) -> RowPermutation | None:
    """The same permutation of the biases beside the weights, where all of them exist."""
    layers = frozenset(weights.whole.shapes)
    whole = next((left for left in wholes if left.pattern == weights.whole.bias), None)
    parts = [left for part in weights.parts for left in others if left.pattern == part.bias]
    if whole is None or len(parts) != len(weights.parts) or any(x.row_shapes != (layers, ()) for x in (whole, *parts)):
        return None
    return RowPermutation(whole, parts, weights.pieces)


def split_rows(
    found: RowPermutation, like: str, roles: Mapping[str, SiteViews], shapes: Mapping[str, Mapping[str, Shape]]
) -> dict[str, SiteViews]:
    """Role -> site -> view, with the same rows of a permutation at one site in both roles.

    like: the role whose site a slice keeps where it is a whole tensor there. roles: the same before. shapes: role ->
    name -> shape. Other roles that share a site of `like`, in the same shape, have it split as well.
    """

    def shape_at(role: str, site: Site) -> Shape:
        view = split[role][site]
        return view.shape(shapes[role][view.name])

    split = {role: dict(sites) for role, sites in roles.items()}
    for numbers in found.whole.members:
        for (role, site), targets in _targets(found, numbers, like).items():
            shape = shape_at(role, site)
            sharing = [other for other in split if role == like and site in split[other]] or [role]
            for other in sharing:
                if shape_at(other, site) == shape:
                    held = split[other].pop(site)
                    split[other] |= {target: _cut(held, shape, rows) for target, rows in targets}
    return split


def _targets(found: RowPermutation, numbers: Numbers, like: str) -> dict[tuple[str, Site], list[tuple[Site, RowSlice]]]:
    """(Role, site) -> the sites that it is split into in one layer, and the rows of each."""
    whole = found.whole.members[numbers]
    targets: dict[tuple[str, Site], list[tuple[Site, RowSlice]]] = {}
    for part, pieces in zip(found.parts, found.pieces, strict=True):
        site = part.members[numbers]
        kept = whole if len(found.parts) == 1 and found.whole.role == like else site
        for place, piece in enumerate(pieces):
            target = kept if len(pieces) == 1 else kept._replace(component=f"{kept.component}.rows.{place}")
            targets.setdefault((found.whole.role, whole), []).append((target, piece.whole))
            targets.setdefault((part.role, site), []).append((target, piece.part))
    return targets


def _cut(part: TensorView, shape: Shape, cut: RowSlice) -> TensorView:
    return part if cut == (0, shape[0]) else TensorView(part.name, slices_of(shape, cut))
