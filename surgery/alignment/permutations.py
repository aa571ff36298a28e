"""Rows that another layout fused, split or put in another order, found by what they hold.

The tables of `naming` know the fused projections of language models. Towers call theirs what they like, and two layouts
of one tower can differ in more than names: q, k and v in one tensor or in three, and the rows of each head in the
order of rotary pairs (0, 1, 2, 3) or of rotary halves (0, 2, 1, 3). All of these are slices, some with a step of two.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, permutations
from typing import TYPE_CHECKING, Final

from vlsurgery.surgery.alignment.similarity import PARTNERS, STRANGERS
from vlsurgery.surgery.architecture.decoder_stack import Shape
from vlsurgery.surgery.architecture.layouts import TensorView, slices_of
from vlsurgery.surgery.architecture.naming import split_leaf
from vlsurgery.surgery.architecture.site import Site

if TYPE_CHECKING:
    from torch import Tensor

# Columns of a matrix that are compared, and siblings among which the parts of a fused tensor are looked for.
COLUMNS: Final = 256
SIBLINGS: Final = 6

Cut = tuple[int, ...]
Numbers = tuple[int, ...]


@dataclass(frozen=True)
class Left:
    """Tensors of one role without partner that share a pattern: numbers in the name -> site, and its shape."""

    role: str
    pattern: str
    members: Mapping[Numbers, Site]
    shapes: Mapping[Numbers, Shape]

    @property
    def rows(self) -> int:
        return next(iter(self.shapes.values()))[0]

    @property
    def form(self) -> tuple[frozenset[Numbers], Shape] | None:
        """Its layers and the shape of a row; None where layers differ in shape, or where it has no rows."""
        shapes = set(self.shapes.values())
        return (frozenset(self.shapes), shapes.pop()[1:]) if len(shapes) == 1 and () not in shapes else None

    @property
    def parent(self) -> str:
        return split_leaf(self.pattern)[0].rpartition(".")[0]

    @property
    def bias(self) -> str:
        """The pattern that the bias beside this weight has."""
        stem = self.pattern.removesuffix("weight")
        return f"{stem}bias" if stem != self.pattern else f"{stem}.bias"


@dataclass(frozen=True)
class Piece:
    """Rows of a whole tensor and the rows of another one that are the same weights."""

    whole: Cut
    part: Cut


@dataclass(frozen=True)
class Arrangement:
    """How the rows of `whole` are those of `parts`: a list of pieces for each of them."""

    whole: Left
    parts: Sequence[Left]
    pieces: Sequence[Sequence[Piece]]


Load = Callable[[Left], "Tensor"]


def arrangements(mine: Sequence[Left], theirs: Sequence[Left], load: Load) -> Iterator[Arrangement]:
    """Every tensor whose rows are those of one or of several tensors of the other role, by values.

    load: the rows of the first layer of a pattern, [rows, at most COLUMNS]. Biases, which are often constant, are cut
    as their weights are. What no order of rows explains clearly is left alone.
    """
    taken: set[int] = set()
    for wholes, others in ((mine, theirs), (theirs, mine)):
        for whole in wholes:
            if id(whole) in taken or whole.form is None or not whole.form[1]:
                continue
            free = [part for part in others if id(part) not in taken and part.form == whole.form]
            found = _arrangement(whole, free, load)
            if found is None:
                continue
            for arrangement in (found, _of_biases(found, wholes, others)):
                if arrangement is not None:
                    taken.update(map(id, (arrangement.whole, *arrangement.parts)))
                    yield arrangement


def _arrangement(whole: Left, free: Sequence[Left], load: Load) -> Arrangement | None:
    """The one way in which a tensor's rows are those of others; None where there is no such way, or more than one."""
    known: dict[tuple[int, Cut], list[Piece] | None] = {}

    def pieces(part: Left, cut: Cut) -> list[Piece] | None:
        key = (id(part), cut)
        if key not in known:
            known[key] = _pieces(load(whole), load(part), cut)
        return known[key]

    found = []
    for parts in _candidates(whole, free):
        for cuts in _cuts(parts, whole.rows):
            held = [pieces(part, cut) for part, cut in zip(parts, cuts, strict=True)]
            if all(held):
                found.append(Arrangement(whole, parts, [piece for piece in held if piece]))
    return found[0] if len(found) == 1 else None


def _candidates(whole: Left, free: Sequence[Left]) -> Iterator[tuple[Left, ...]]:
    """Tensors that together have as many rows: one by itself, or two or three that hang in one module."""
    yield from ((part,) for part in free if part.rows == whole.rows)
    for parent in dict.fromkeys(part.parent for part in free):
        siblings = [part for part in free if part.parent == parent and part.rows < whole.rows]
        for count in (2, 3) if len(siblings) <= SIBLINGS else ():
            for parts in permutations(siblings, count):
                if sum(part.rows for part in parts) == whole.rows:
                    yield parts


def _cuts(parts: Sequence[Left], whole: int) -> Iterator[list[Cut]]:
    """Where the parts' rows can lie in the whole: one part after the other, or taking turns row by row."""
    stops = accumulate(part.rows for part in parts)
    yield [(stop - part.rows, stop) for part, stop in zip(parts, stops, strict=True)]
    if len(parts) > 1 and len({part.rows for part in parts}) == 1:
        yield [(place, whole, len(parts)) for place in range(len(parts))]


def _pieces(whole: "Tensor", part: "Tensor", cut: Cut) -> list[Piece] | None:
    """The pieces in which a cut of the whole is a part: one where the rows have one order, two for each head where
    one of them holds rotary pairs and the other rotary halves; None where no order makes them clearly alike."""
    held, count = whole[slice(*cut)], len(part)
    found = [(_cosine(held, part), [Piece(cut, (0, count))])]
    for head in range(4, count + 1, 2) if len(cut) == 2 else ():
        if count % head == 0:
            pairs = [(place + turn, place + head, 2) for place in range(0, count, head) for turn in (0, 1)]
            halves = [(place, place + head // 2) for place in range(0, count, head // 2)]
            order = [row for each in pairs for row in range(*each)]
            first = cut[0]
            straight = [Piece(_moved(a, first), b) for a, b in zip(pairs, halves, strict=True)]
            found.append((_cosine(held[order], part), straight))
            if head > 4:  # With four rows a head, one order is the other one.
                reverse = [Piece(_moved(a, first), b) for a, b in zip(halves, pairs, strict=True)]
                found.append((_cosine(held, part[order]), reverse))
    found.sort(key=lambda entry: -entry[0])
    lead = found[0][0] - (found[1][0] if len(found) > 1 else 0.0)
    return found[0][1] if found[0][0] >= PARTNERS and lead >= STRANGERS else None


def _moved(cut: Cut, by: int) -> Cut:
    return (cut[0] + by, cut[1] + by, *cut[2:])


def _cosine(first: "Tensor", second: "Tensor") -> float:
    """Cosine of two matrices, each less its mean; 0 where one is constant."""
    ours, others = (side - side.mean() for side in (first, second))
    norm = float(ours.norm() * others.norm())
    return float((ours * others).sum()) / norm if norm > 0 else 0.0


def _of_biases(weights: Arrangement, wholes: Sequence[Left], others: Sequence[Left]) -> Arrangement | None:
    """The same arrangement of the biases beside the weights, where all are there."""
    layers = frozenset(weights.whole.shapes)
    whole = next((left for left in wholes if left.pattern == weights.whole.bias), None)
    parts = [left for part in weights.parts for left in others if left.pattern == part.bias]
    if whole is None or len(parts) != len(weights.parts) or any(x.form != (layers, ()) for x in (whole, *parts)):
        return None
    return Arrangement(whole, parts, weights.pieces)


def cut_sites(
    found: Arrangement,
    like: str,
    parts_of: Mapping[str, dict[Site, TensorView]],
    shape_of: Callable[[str, TensorView], Shape],
) -> None:
    """Give the pieces of an arrangement one site each in both roles, in place.

    like: the role whose sites are kept where a piece is one of its whole tensors. parts_of: role -> site -> part; other
    roles that hold a tensor at a site that is cut, in the same shape, have it cut as well.
    """
    for numbers in found.whole.members:
        whole = found.whole.members[numbers]
        cuts: dict[tuple[str, Site], list[tuple[Site, Cut]]] = {}
        for part, pieces in zip(found.parts, found.pieces, strict=True):
            site = part.members[numbers]
            for place, piece in enumerate(pieces):
                home = whole if len(found.parts) == 1 and found.whole.role == like else site
                target = home if len(pieces) == 1 else home._replace(component=f"{home.component}.rows.{place}")
                cuts.setdefault((found.whole.role, whole), []).append((target, piece.whole))
                cuts.setdefault((part.role, site), []).append((target, piece.part))
        for (role, site), targets in cuts.items():
            shape = shape_of(role, parts_of[role][site])
            # Roles that were matched with `like` before share its sites.
            sharing = [other for other in parts_of if role == like and site in parts_of[other]] or [role]
            for other in sharing:
                if shape_of(other, parts_of[other][site]) == shape:
                    held = parts_of[other].pop(site)
                    for target, cut in targets:
                        parts_of[other][target] = _cut(held, shape, cut)


def _cut(part: TensorView, shape: Shape, cut: Cut) -> TensorView:
    return part if cut == (0, shape[0]) else TensorView(part.name, slices_of(shape, cut))
