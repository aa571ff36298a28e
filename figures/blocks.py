"""The axis on which blocks stand: layers in order, attention left of MLP left of what is neither; what lies outside
layers at the ends."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from vlsurgery.figures import theme
from vlsurgery.figures.choice import chosen, leading

BEFORE_LAYERS = ("vision", "projector", "embed")
AFTER_LAYERS = ("norm", "head")
_MANY = 24  # labels that fit beside one another on an axis as wide as a figure
_KINDS = {"attn": "attention", "mlp": "MLP"}
# Where the parts of a layer stand, and how wide their bars are: of two, and where some layer has a third.
_TWO = ({"attention": -0.2, "MLP": 0.2}, 0.36)
_THREE = ({"attention": -0.28, "MLP": 0.0, "other": 0.28}, 0.26)


@dataclass(frozen=True)
class Place:
    """Where a block stands. `layer` is None outside layers; kind: `attention`, `MLP` or `other`."""

    block: str
    layer: int | None
    kind: str
    x: float

    @property
    def label(self) -> str:
        if self.layer is None:
            return "outside layers"
        return f"layer {self.layer}, {'neither attention nor MLP' if self.kind == 'other' else self.kind}"


def split(block: str) -> tuple[int | None, str]:
    """A block's layer and kind: "3.attn" is (3, "attention"), "head" is (None, "other")."""
    layer, _, part = block.partition(".")
    if layer.isdecimal() and part:
        return int(layer), _KINDS.get(part, "other")
    return None, "other"


@dataclass(frozen=True)
class BlockAxis:
    """Places of a set of blocks, the tick labels under them, and the width of a bar. Equal sets of blocks give equal
    axes."""

    places: dict[str, Place]
    ticks: tuple[tuple[float, str], ...]
    bar_width: float

    def show(self, figure: go.Figure, **where: int) -> None:
        """Label a figure's x axis (of panel `row`, `col`, if given) with layers and outside blocks."""
        positions = [x for x, _ in self.ticks] or [0.0]
        xaxis, _ = _axes(figure, **where)
        left, right = figure.layout["xaxis" + xaxis[1:]].domain or (0.0, 1.0)
        crowded = len(self.ticks) > _MANY * (right - left)  # labels stand upright, every second layer has none
        numbered = [tick for tick in self.ticks if tick[1].isdecimal()]
        left_out = numbered[1::2] if crowded else []
        ticks = [tick for tick in self.ticks if tick not in left_out]
        figure.update_xaxes(
            tickvals=[x for x, _ in ticks],
            ticktext=[theme.safe(label) for _, label in ticks],
            tickangle=-90 if crowded else 0,
            range=[min(positions) - 0.8, max(positions) + 0.8],
            title_text="layer of the language model; at the ends, the blocks outside layers",
            **where,
        )
        link_layers(figure, xaxis, {block: place.x for block, place in self.places.items()})


def block_axis(blocks: Iterable[str]) -> BlockAxis:
    """Lay out blocks: outside blocks that come before the layers, the layers by number, and those that come after.

    Blocks outside layers stand further apart in deep models, so that their names fit.
    """
    parsed = {block: split(block) for block in dict.fromkeys(blocks)}
    layers = sorted({layer for layer, _ in parsed.values() if layer is not None})
    outside = [block for block, (layer, _) in parsed.items() if layer is None]
    first, last = (layers[0], layers[-1]) if layers else (0, -1)
    step = max(1.0, (last - first + 1) / 18)
    before = sorted((b for b in outside if b in BEFORE_LAYERS), key=BEFORE_LAYERS.index)
    after = sorted((b for b in outside if b in AFTER_LAYERS), key=AFTER_LAYERS.index)
    after += sorted(b for b in outside if b not in BEFORE_LAYERS + AFTER_LAYERS)
    ends = {b: first - 0.2 - step * (len(before) - i) for i, b in enumerate(before)}
    ends |= {b: last + 0.2 + step * (i + 1) for i, b in enumerate(after)}
    offsets, width = _THREE if any(kind == "other" and layer is not None for layer, kind in parsed.values()) else _TWO
    places = {
        block: Place(block, layer, kind, ends[block] if layer is None else layer + offsets[kind])
        for block, (layer, kind) in parsed.items()
    }
    every = max(1, round(len(layers) / 16))
    ticks = [(float(layer), str(layer)) for layer in layers if layer % every == 0]
    return BlockAxis(places, tuple(sorted(ticks + [(x, block) for block, x in ends.items()])), width)


def wanted_blocks(sizes: Mapping[str, float], layers: Sequence[int] | None, top: int | None) -> list[str]:
    """The blocks of these layers (None: of all, and those outside layers), and of these the `top` largest, in the order
    that they came in. Raises SurgeryError where there is no such layer, or `top` is below 1."""
    at = {block: split(block)[0] for block in sizes}
    wanted = chosen("layers", layers, sorted({layer for layer in at.values() if layer is not None}))
    found = [block for block in sizes if layers is None or at[block] in wanted]
    largest = sorted(found, key=lambda block: -sizes[block])[: leading("top", top)]
    return [block for block in found if block in largest]


def _axes(figure: go.Figure, row: int | None = None, col: int | None = None) -> tuple[str, str]:
    """The names of a panel's axes: "x2" and "y2"; of a figure without panels "x" and "y"."""
    if row is None or col is None:
        return "x", "y"
    place = figure.get_subplot(row, col)
    return place.xaxis.plotly_name.replace("axis", ""), place.yaxis.plotly_name.replace("axis", "")


def link_layers(figure: go.Figure, axis: str, places: Mapping[str, float] | None = None) -> None:
    """Say that an axis shows layers, so that a layer picked in one figure of a page is marked in all.

    axis: plotly's name of it, "x", "y2", ... places: block -> where it stands; without them the axis is that of plain
    layer numbers.
    """
    known = (figure.layout.meta or {}).get("layers", [])
    theme.note(figure, layers=[*known, {"axis": axis, "places": dict(places or {})}])
