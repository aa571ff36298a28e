"""Layouts of one weight: fused or split projections, experts one by one, stacked, or stacked and transposed.

Where checkpoints store a site in different layouts, each is cut into the same smallest parts: the rows of q, k and v,
of gate and up, of each expert. A part is a slice of the tensor that holds it; nothing is copied.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import accumulate
from typing import Any, Final, NamedTuple

from vlsurgery.surgery.architecture.decoder_stack import Shape
from vlsurgery.surgery.architecture.identify import identify
from vlsurgery.surgery.architecture.naming import FUSED, IN_TURNS, module_word
from vlsurgery.surgery.architecture.site import Site
from vlsurgery.surgery.results import SliceName, Tower

QKV: Final = ("q", "k", "v")
GATE_UP: Final = ("gate", "up")
STACKS: Final = ("experts", "vision_experts")
CORRECTION: Final = "mlp.router.correction"


class TensorView(NamedTuple):
    """A tensor of one role, or the part of it that belongs to a pair.

    slices: one per dimension of a part; None for all of it. transposed: whether the last two dimensions are swapped
    after slicing, because this checkpoint stores the matrix transposed.
    """

    name: str
    slices: tuple[slice, ...] | None = None
    transposed: bool = False

    def label(self) -> str | SliceName:
        """Its name in result files."""
        if self.slices is None and not self.transposed:
            return self.name
        return SliceName(
            name=self.name,
            slice=[
                (part.start, part.stop) if part.step is None else (part.start, part.stop, part.step)
                for part in self.slices or ()
            ],
            transposed=self.transposed,
        )

    def shape(self, whole: Shape) -> Shape:
        """Shape of the part, of a tensor of shape `whole`; an expert's is a plain matrix."""
        if self.slices is None and not self.transposed:
            return whole
        cut = whole if self.slices is None else tuple(_extent(part) for part in self.slices)
        if self._is_one_expert(whole):
            cut = cut[1:]
        return (*cut[:-2], cut[-1], cut[-2]) if self.transposed else cut

    def _is_one_expert(self, whole: Shape) -> bool:
        return self.slices is not None and len(whole) == 3 and whole[0] > 1 == _extent(self.slices[0])

    def span(self, whole: Shape) -> tuple[int, int]:
        """First entry and number of entries of the smallest contiguous range of a tensor of shape `whole` that holds
        the part and is whole along all dimensions behind the first one of which the part has more than one index."""
        start, size = 0, math.prod(whole)
        for extent, part in zip(whole, self.slices or (), strict=False):
            size //= extent
            start += part.start * size
            if part.stop - part.start > 1:
                return start, (part.stop - part.start) * size
        return start, size

    def is_contiguous(self, whole: Shape) -> bool:
        """Whether the part's entries are contiguous, in the order of its own rows."""
        return not self.transposed and self.span(whole)[1] == math.prod(self.shape(whole))

    def view(self, span: Any, whole: Shape) -> Any:
        """The part as a view of its `span` (a vector of torch or numpy)."""
        if self.slices is None:
            found = span.reshape(whole)
        else:
            outer = next(
                (place for place, cut in enumerate(self.slices) if cut.stop - cut.start > 1), len(self.slices) - 1
            )
            shape = [*(cut.stop - cut.start for cut in self.slices[: outer + 1]), *whole[outer + 1 :]]
            steps = [slice(None, None, cut.step) for cut in self.slices[: outer + 1]]
            found = span.reshape(shape)[(*steps, *self.slices[outer + 1 :])]
            found = found[0] if self._is_one_expert(whole) else found
        return found.swapaxes(-1, -2) if self.transposed else found


SiteViews = dict[Site, TensorView]

EMBED: Final = Site("text", None, "embed")
NEW_ROWS: Final = Site("text", None, "embed.new")


def slices_of(shape: Shape, *cuts: tuple[int, ...]) -> tuple[slice, ...]:
    """A slice per dimension of `shape`: the cuts (start, stop and perhaps step) along the first ones, everything
    along the rest."""
    whole = [(0, extent) for extent in shape[len(cuts) :]]
    return tuple(slice(*cut) for cut in (*cuts, *whole))


def _extent(cut: slice) -> int:
    """How many entries a slice takes along its dimension."""
    return len(range(cut.start, cut.stop, cut.step or 1))


def split_fused(whole: Mapping[str, SiteViews], shapes: Mapping[str, Mapping[str, Shape]]) -> dict[str, SiteViews]:
    """Role -> site -> view, with weights that checkpoints hold in different forms cut into the same parts.

    whole: the same of whole tensors. shapes: role -> name -> shape. A tensor whose parts are not certain (an odd number
    of rows, an orientation that shapes do not tell) stays whole.
    """
    roles = {role: parts | _split_table(role, whole, shapes) for role, parts in whole.items()}
    if sum(any(site.component == CORRECTION for site in parts) for parts in roles.values()) > 1:
        roles = {role: parts | _split_corrections(parts, shapes[role]) for role, parts in roles.items()}
    components = {site.component for parts in roles.values() for site in parts}
    if not any(_family_of(component, fused=True) for component in components):
        return roles
    families = {family for parts in roles.values() for site in parts if (family := _family_of_site(site, fused=True))}
    members: dict[_Family, dict[str, list[Site]]] = {family: {} for family in families}
    for role, parts in roles.items():
        for site in parts:
            found = _family_of_site(site)
            if found in members:
                members[found].setdefault(role, []).append(site)
    gone: dict[str, set[Site]] = {role: set() for role in roles}
    added: dict[str, SiteViews] = {role: {} for role in roles}
    for family, held in members.items():
        if len(held) > 1 and len({_form(roles[role], shapes[role], sites) for role, sites in held.items()}) > 1:
            for role, smallest in _split_family(family, held, roles, shapes).items():
                gone[role].update(held[role])
                added[role] |= smallest
    return {
        role: {site: part for site, part in parts.items() if site not in gone[role]} | added[role]
        for role, parts in roles.items()
    }


def _split_table(role: str, whole: Mapping[str, SiteViews], shapes: Mapping[str, Mapping[str, Shape]]) -> SiteViews:
    """A role's embedding cut at the first row that its vocabulary gained, where another role keeps those rows in a
    table of their own."""
    holder = next((other for other, parts in whole.items() if NEW_ROWS in parts and EMBED in parts), None)
    table = whole[role].get(EMBED)
    if holder is None or table is None or NEW_ROWS in whole[role]:
        return {}
    first, shape = shapes[holder][whole[holder][EMBED].name][0], shapes[role][table.name]
    if shape[0] <= first:
        return {}
    cuts = {EMBED: (0, first), NEW_ROWS: (first, shape[0])}
    return {site: TensorView(table.name, slices_of(shape, cut)) for site, cut in cuts.items()}


def _split_corrections(parts: SiteViews, shapes: Mapping[str, Shape]) -> SiteViews:
    """The text router's and the vision router's correction, where one tensor of two rows holds both, text first."""
    found: SiteViews = {}
    for site, part in parts.items():
        shape = shapes[part.name]
        if site.component == CORRECTION and len(shape) == 2 and shape[0] == 2:
            found[site] = TensorView(part.name, slices_of(shape, (0, 1)))
            vision = site._replace(component="vision_router.correction")
            found[vision] = TensorView(part.name, slices_of(shape, (1, 2)))
    return found


def locate(shapes: Mapping[str, Shape], config: Mapping[str, Any] | None, text_stack: str | None = None) -> SiteViews:
    """Site -> view for one model, live or on disk: of its tensors, and of every part that they can be cut into, so that
    the site of any pair is found in any layout.

    shapes, config, text_stack: as for `identify`. Raises AlignmentError as `identify` does.
    """
    parts = {site: TensorView(name) for name, site in identify(shapes, config, text_stack).items()}
    found = dict(parts)
    families: dict[_Family, list[Site]] = {}
    for site in parts:
        family = _family_of_site(site)
        if family is not None:
            families.setdefault(family, []).append(site)
    for family, sites in families.items():
        found |= _smallest_parts(family, sites, parts, shapes, None) or {}
    return found


class _Family(NamedTuple):
    """The sites of one layer that some layout stores in one tensor. ending: "" or ".bias"."""

    tower: Tower
    layer: int | None
    own_layer: int | None
    prefix: str
    kind: str
    ending: str


def _family_of_site(site: Site, fused: bool = False) -> _Family | None:
    """The family of a site; with `fused`, only where the site itself holds several parts."""
    family = _family_of(site.component, fused)
    return None if family is None else _Family(site.tower, site.layer, site.own_layer, *family)


@lru_cache(maxsize=1 << 12)
def _family_of(component: str, fused: bool) -> tuple[str, str, str] | None:
    """Prefix, kind and ending of a component's family. Cached: every layer has the same few components."""
    if component[:4] in ("raw:", "norm") or "." not in component:
        return None
    ending = ".bias" if component.endswith(".bias") else ""
    prefix, _, word = component.removesuffix(ending).rpartition(".")
    if prefix in STACKS or (prefix[:7] == "expert." and prefix != "expert.shared"):
        return None if fused and prefix not in STACKS else ("expert", "experts", ending)
    if word == "qkv" or (word in QKV and not fused):
        return prefix, "qkv", ending
    if word == "gate_up" or (word in GATE_UP and not fused):
        return prefix, "gate_up", ending
    return None


def _form(parts: SiteViews, shapes: Mapping[str, Shape], sites: Iterable[Site]) -> frozenset[tuple[str, Shape, object]]:
    """What distinguishes layouts: the components, their shapes, and the order of parts in fused ones."""
    words = {site: module_word(parts[site].name) for site in sites}
    return frozenset(
        (site.component, shapes[parts[site].name], (FUSED.get(word), word in IN_TURNS)) for site, word in words.items()
    )


def _split_family(
    family: _Family,
    held: Mapping[str, list[Site]],
    roles: Mapping[str, SiteViews],
    shapes: Mapping[str, Mapping[str, Shape]],
) -> dict[str, SiteViews]:
    """Role -> the smallest parts of its family, of every role where they are certain; empty for fewer than two."""
    sizes = next(
        (found for role, sites in held.items() if (found := _sizes(family, sites, roles[role], shapes[role]))), None
    )
    cut = {
        role: smallest
        for role, sites in held.items()
        if (smallest := _smallest_parts(family, sites, roles[role], shapes[role], sizes)) is not None
    }
    return cut if len(cut) > 1 else {}


def _sizes(
    family: _Family, sites: Iterable[Site], parts: SiteViews, shapes: Mapping[str, Shape]
) -> tuple[int, int, int] | None:
    """Rows of q, k and v where a role stores them separately."""
    if family.kind != "qkv":
        return None
    split = {site.component.removesuffix(family.ending).rpartition(".")[2]: site for site in sites}
    if not split.keys() >= set(QKV):
        return None
    q, k, v = (shapes[parts[split[word]].name][0] for word in QKV)
    return q, k, v


def _smallest_parts(
    family: _Family,
    sites: Iterable[Site],
    parts: SiteViews,
    shapes: Mapping[str, Shape],
    sizes: tuple[int, int, int] | None,
) -> SiteViews | None:
    """The smallest parts of a family's tensors in one role; None where those of one tensor are not certain."""
    found: SiteViews = {}
    if family.kind == "experts":
        experts = _expert_parts(sites, parts, shapes)
        if experts is None:
            return None
        return {Site(family.tower, family.layer, word, family.own_layer): part for word, part in experts}
    for site in sites:
        part = parts[site]
        word = site.component.removesuffix(family.ending).rpartition(".")[2]
        if word not in ("qkv", "gate_up"):
            found[site] = part
            continue
        pieces = _row_pieces(family, site, part.name, parts, shapes, sizes)
        if pieces is None:
            return None
        for piece, cuts in pieces:
            found[site._replace(component=f"{family.prefix}.{piece}{family.ending}")] = TensorView(part.name, cuts)
    return found


def _row_pieces(
    family: _Family,
    site: Site,
    name: str,
    parts: SiteViews,
    shapes: Mapping[str, Shape],
    sizes: tuple[int, int, int] | None,
) -> list[tuple[str, tuple[slice, ...]]] | None:
    """Part -> slices of a fused tensor, in the order that FUSED has for its name; None where it does not fit."""
    shape, order = shapes[name], FUSED.get(module_word(name))
    if order is None or (family.kind == "qkv") != (order == QKV):
        return None
    along = len(shape) - 2 if len(shape) > 2 else 0
    if order == QKV:
        sizes = sizes or _own_sizes(family, site, shape, parts, shapes)
        if sizes is None or sum(sizes) != shape[along]:
            return None
    elif shape[along] % 2:
        return None
    before = [(0, extent) for extent in shape[:along]]
    extents = sizes if order == QKV and sizes else (shape[along] // 2,) * 2
    cuts = zip(order, _runs(shape[along], extents, module_word(name) in IN_TURNS), strict=True)
    return [(piece, slices_of(shape, *before, cut)) for piece, cut in cuts]


def _runs(whole: int, extents: Iterable[int], interleaved: bool) -> list[tuple[int, ...]]:
    """Start and stop of parts one after the other; start, stop and step of interleaved ones."""
    extents = list(extents)
    if interleaved:
        return [(place, whole, len(extents)) for place in range(len(extents))]
    stops = list(accumulate(extents))
    return [(stop - extent, stop) for stop, extent in zip(stops, extents, strict=True)]


def _own_sizes(
    family: _Family, site: Site, shape: Shape, parts: SiteViews, shapes: Mapping[str, Shape]
) -> tuple[int, int, int] | None:
    """Rows of q, k and v by the layer's output projection, which has as many columns as q has rows."""
    output = parts.get(site._replace(component=f"{family.prefix}.o"))
    if output is None or len(shapes[output.name]) != 2:
        return None
    query = shapes[output.name][1]
    rest = shape[0] - query
    return (query, rest // 2, rest // 2) if rest > 0 and not rest % 2 else None


def _expert_parts(
    sites: Iterable[Site], parts: SiteViews, shapes: Mapping[str, Shape]
) -> list[tuple[str, TensorView]] | None:
    """Component -> view for every expert; vision experts are numbered after those of the text."""
    found: list[tuple[str, TensorView]] = []
    stacks: dict[str, dict[str, TensorView]] = {}
    for site in sites:
        word, _, rest = site.component.partition(".")
        if word in STACKS:
            stacks.setdefault(word, {})[rest] = parts[site]
        elif rest.rpartition(".")[2] == "gate_up":
            return None
        else:
            found.append((site.component, parts[site]))
    first = 0
    for word in STACKS:
        if word not in stacks:
            continue
        stack = {part: held for part, held in stacks[word].items() if not part.endswith(".bias")}
        transposed = _is_transposed({part: shapes[held.name] for part, held in stack.items()}, _width(parts, shapes))
        if transposed is None or len(stack) != len(stacks[word]):
            return None
        for part, held in stack.items():
            found += _expert_slices(part, held.name, shapes[held.name], transposed, first)
        first += shapes[next(iter(stack.values())).name][0]
    return found


def _is_transposed(stack: Mapping[str, Shape], width: int | None) -> bool | None:
    """Whether a stack's matrices are stored [in, out]; None where its shapes don't tell.

    Stored [out, in], `gate_up` has twice as many rows as `down` has columns, and an `up` alone has columns of the
    stream's width.
    """
    if any(len(shape) != 3 for shape in stack.values()) or "down" not in stack:
        return None
    _, out, inner = stack["down"]
    if "gate_up" in stack:
        orientations: dict[Shape, bool] = {(2 * inner, out): False, (inner, 2 * out): True}
        return orientations.get(stack["gate_up"][1:])
    single = stack.get("up")
    if single is None or single[1:] != (inner, out) or inner == out:
        return None
    return {out: False, inner: True}.get(width or 0)


def _width(parts: SiteViews, shapes: Mapping[str, Shape]) -> int | None:
    """The width of the residual stream, by the final norm or the embedding."""
    sites = (Site("text", None, "norm.final"), EMBED)
    return next((shapes[parts[site].name][-1] for site in sites if site in parts), None)


def _expert_slices(part: str, name: str, shape: Shape, turn: bool, first: int) -> Iterator[tuple[str, TensorView]]:
    """Component -> view of each expert's `part` in a stack, whose experts are numbered from `first`."""
    order: tuple[str, ...] = FUSED.get(module_word(name), GATE_UP) if part == "gate_up" else (part,)
    along = 2 if turn else 1
    extents = (shape[along] // len(order),) * len(order)
    interleaved = len(order) > 1 and module_word(name) in IN_TURNS
    pieces = list(zip(order, _runs(shape[along], extents, interleaved), strict=True))
    for expert in range(shape[0]):
        for piece, cut in pieces:
            cuts: list[tuple[int, ...]] = [(expert, expert + 1), (0, shape[1]), (0, shape[2])]
            cuts[along] = cut
            yield f"expert.{first + expert}.{piece}", TensorView(name, slices_of(shape, *cuts), turn)
