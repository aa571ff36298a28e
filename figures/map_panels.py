"""The panels of the safety map: blocks as bars or as a map of layers by sites or heads; below, inside of one block."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from vlsurgery.figures import theme
from vlsurgery.figures.blocks import link_layers, split
from vlsurgery.figures.parts import Inside, PartGain, in_order, menu, short
from vlsurgery.figures.wording import number, percent, signed

if TYPE_CHECKING:
    from vlsurgery.figures.safety_map import BlockFinding, SafetyMapInfo

HEIGHTS: Final = (300, 150, 150)  # of the panels, in pixels
GAP: Final = 96  # pixels between panels, for axis titles and a menu
KINDS: Final = (("attention", "attention"), ("MLP", "MLP"), ("other", "other, and outside layers"))
SITE_SYMBOLS: Final = ("circle", "square", "diamond", "cross", "x", "triangle-up")
AXES: Final = {
    "gain": ("gain in refusal log-odds (nats)", ""),
    "share": ("share of the whole change", ".0%"),
    "cost": ("KL on prompts to go on answering (nats)", ""),
    "weight change": ("change over norm, adaptation", ".1%"),
    "conflict": ("entries in which the deltas oppose", ".0%"),
}


def draw(info: "SafetyMapInfo") -> go.Figure:
    """The figure without its frame."""
    heights = HEIGHTS if info.inside else HEIGHTS[:1]
    whole = sum(heights) + GAP * (len(heights) - 1)
    figure = make_subplots(
        rows=len(heights),
        cols=1,
        row_heights=[height / sum(heights) for height in heights],
        vertical_spacing=GAP / whole if len(heights) > 1 else 0,
    )
    menus = []
    if info.level == "block":
        menus += _blocks(figure, info)
    else:
        _layers(figure, info)
    if info.inside:
        menus.append(_inside(figure, info.inside))
    figure.update_layout(barmode="overlay", updatemenus=menus, height=whole)
    return figure


def framed(figure: go.Figure, info: "SafetyMapInfo", title: str, subtitle: str) -> go.Figure:
    """The figure with title, legend, titles of panels and the line at 0."""
    theme.frame(figure, title, subtitle, plot_height=figure.layout.height, legend_rows=2, panels=True)
    names = {"block": "Blocks", "site": "Sites, layer by layer", "head": "Heads and experts, layer by layer"}
    theme.panel_title(figure, names[info.level], 1, 1)
    if info.level == "block":
        figure.add_hline(y=0, line={"color": theme.MUTED, "width": 1}, row=1, col=1)
        info.axis.show(figure, row=1, col=1)
        if info.sort == "size":
            figure.update_xaxes(title_text="blocks, the largest gain first", row=1, col=1)
    for row in (2, 3) if info.inside else ():
        figure.add_hline(y=0, line={"color": theme.MUTED, "width": 1}, row=row, col=1)
        figure.update_yaxes(title_text="gain (nats)", row=row, col=1)
    if info.inside:
        theme.panel_title(figure, "Inside of a block: its sites, which sum to it", 2, 1)
        theme.panel_title(figure, "Its attention heads or experts", 3, 1)
        figure.update_xaxes(type="category", row=2, col=1)  # said, for its first trace has nothing to tell it by
        figure.update_xaxes(title_text="number of the head or expert", row=3, col=1)
    return figure


def _blocks(figure: go.Figure, info: "SafetyMapInfo") -> list[dict[str, object]]:
    """Bars by every measure, of which one is shown, and the marks that go with gains; the menu of measures, where there
    are several."""
    shown: list[str] = []
    for by in info.measures:
        traces = [_bars(info, by, kind, name) for kind, name in KINDS]
        if by == "gain":
            traces += _marks_of_gain(info)
        for trace in traces:
            if trace.x:
                visible = trace.visible if by == info.by else False
                figure.add_trace(trace.update(visible=True if visible is None else visible), row=1, col=1)
                shown.append(by)
    figure.update_yaxes(title_text=_axis(info.by)[0], tickformat=_axis(info.by)[1], row=1, col=1)
    if len(info.measures) < 2:
        return []
    ordered = [info.by, *(by for by in info.measures if by != info.by)]
    buttons = [
        (
            f"by {by}",
            {"visible": [_visible(figure.data[at], by == other) for at, other in enumerate(shown)]},
            {"yaxis.title.text": _axis(by)[0], "yaxis.tickformat": _axis(by)[1]},
        )
        for by in ordered
    ]
    return [menu(buttons, range(len(shown)), 1.0, "measure")]


def _visible(trace: go.Scatter, wanted: bool) -> bool | str:
    return ("legendonly" if trace.meta == "on demand" else True) if wanted else False


def _axis(by: str) -> tuple[str, str]:
    """The title of a measure's axis, and the format of its ticks."""
    return AXES.get(by, (by, ""))


def _bars(info: "SafetyMapInfo", by: str, kind: str, name: str) -> go.Bar:
    rows = [f for f in info.blocks if f.place.kind == kind and f.value(by) is not None]
    return go.Bar(
        name=name,
        x=[f.place.x for f in rows],
        y=[f.value(by) for f in rows],
        width=info.axis.bar_width,
        marker={"color": theme.KIND_COLOURS[kind], "line": {"width": 0}},
        error_y=whiskers([f.path for f in rows], [f.low for f in rows], [f.high for f in rows])
        if by == "gain"
        else None,
        hovertext=[_hover(f) if by == "gain" else _hover_of(f, by) for f in rows],
        hoverinfo="text",
    )


def _hover_of(finding: "BlockFinding", by: str) -> str:
    return theme.hover(finding.place.block, [f"{by}: {number(finding.value(by), 3)}"])


def whiskers(
    values: Sequence[float | None], lows: Sequence[float | None], highs: Sequence[float | None]
) -> dict[str, object]:
    """The intervals of bars, where they are known."""
    if any(low is None for low in lows):
        return {"visible": False}
    above = [short((high or 0.0) - (value or 0.0)) for value, high in zip(values, highs, strict=True)]
    below = [short((value or 0.0) - (low or 0.0)) for value, low in zip(values, lows, strict=True)]
    look = {"color": theme.INK, "thickness": 1, "width": 2}
    return {"type": "data", "symmetric": False, "array": above, "arrayminus": below, **look}


def _marks_of_gain(info: "SafetyMapInfo") -> list[go.Scatter]:
    """Single transplants, filled where they disagree with the map; the null; and the endpoint map on demand."""
    agreeing = [f for f in info.blocks if f.transplant is not None and not f.disagrees]
    parted = [f for f in info.blocks if f.transplant is not None and f.disagrees]
    needed = [f for f in info.blocks if f.needed is not None]
    return [
        _marks(agreeing, "transplant", "single transplant", "diamond", theme.PAPER),
        _marks(parted, "transplant", "single transplant, not as the map says", "diamond", theme.INK),
        _marks(needed, "needed", "null: needed to stand out from permuted prompts", "line-ew", theme.PAPER),
        _marks(
            [f for f in info.blocks if f.endpoint is not None],
            "endpoint",
            "gradient at adapted (click)",
            "circle",
            theme.PAPER,
        ).update(visible="legendonly", meta="on demand"),
    ]


def _marks(rows: "list[BlockFinding]", measure: str, name: str, symbol: str, fill: str) -> go.Scatter:
    return go.Scatter(
        name=name,
        mode="markers",
        x=[f.place.x for f in rows],
        y=[getattr(f, measure) for f in rows],
        marker={"symbol": symbol, "size": 9, "color": fill, "line": {"color": theme.INK, "width": 1.6}},
        hovertext=[_hover(f) for f in rows],
        hoverinfo="text",
    )


def _hover(finding: "BlockFinding") -> str:
    lines = []
    if finding.path is not None:
        lines.append(
            f"{signed(finding.path)}{_bounds(finding.low, finding.high)} nats of refusal log-odds when moved to the"
            " base, along the path"
        )
    if finding.p is not None:
        lines.append(f"permuted prompts: p = {number(finding.p, 3)}, all blocks considered")
    if finding.share is not None:
        lines.append(f"{percent(finding.share)} of the whole change" if finding.share >= 0 else "works against it")
    if finding.transplant is not None:
        apart = "; map and transplant disagree" if finding.disagrees else ""
        lines.append(f"{signed(finding.transplant)} nats when it alone is transplanted{apart}")
    if finding.endpoint is not None:
        lines.append(f"{signed(finding.endpoint)} nats by the gradient at the adapted model")
    if finding.cost is not None:
        lines.append(f"price: KL {number(finding.cost, 3)} nats on prompts to go on answering")
    if finding.weight_change is not None:
        lines.append(f"adaptation moved it by {percent(finding.weight_change)} of its norm")
    if finding.conflict is not None:
        lines.append(f"the deltas oppose in {percent(finding.conflict)} of the entries both changed")
    lines += [f"coefficient toward {source}: {number(value)}" for source, value in finding.coefficients.items()]
    return theme.hover(f"{finding.place.block} ({finding.place.label})", lines)


def _bounds(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f" [{signed(low)} to {signed(high)}]"


def _layers(figure: go.Figure, info: "SafetyMapInfo") -> None:
    """A map of layers by sites, or by heads."""
    cells: dict[tuple[str, int], PartGain] = {}
    for block in info.all_inside:
        layer = split(block.block)[0]
        for part in block.sites if info.level == "site" else block.heads:
            if layer is not None and (info.level == "site" or _is_whole_head(block, part)):
                name = str(part.site) if info.level == "site" else f"{block.noun} {part.head}"
                cells[name, layer] = part
    names = [name for name, _ in cells]
    ordered = in_order(names) if info.level == "site" else sorted(set(names), key=_by_number)
    layers = sorted({layer for _, layer in cells})
    length = HEIGHTS[0] / (sum(HEIGHTS) + 2 * GAP) if info.inside else 1
    figure.add_trace(heat(cells, ordered[::-1], layers, length), row=1, col=1)
    figure.update_xaxes(title_text="layer", row=1, col=1)
    link_layers(figure, "x")


def _is_whole_head(block: Inside, part: PartGain) -> bool:
    """Whether a row is of all that is a head's own; experts have a row at their one site."""
    return part.site is None or block.noun == "expert"


def _by_number(name: str) -> tuple[str, int]:
    noun, _, count = name.partition(" ")
    return noun, int(count)


def heat(
    cells: dict[tuple[str, int], PartGain], names: Sequence[str], layers: Sequence[int], length: float
) -> go.Heatmap:
    """Gains of parts by name and layer, on a scale that is even about 0; what was not told is left empty.

    length: of the scale, in shares of the figure's height.
    """
    gains = [[cells[name, layer].gain if (name, layer) in cells else None for layer in layers] for name in names]
    texts = [[_part_hover(name, layer, cells.get((name, layer))) for layer in layers] for name in names]
    most = max((abs(part.gain) for part in cells.values()), default=1.0) or 1.0
    return go.Heatmap(
        x=list(layers),
        y=list(names),
        z=gains,
        zmin=-most,
        zmax=most,
        colorscale=theme.DIVERGING,
        colorbar={
            "title": {"text": "nats", "side": "right"},
            "thickness": 12,
            "len": length,
            "y": 1,
            "yanchor": "top",
            "outlinewidth": 0,
        },
        hovertext=texts,
        hoverinfo="text",
        xgap=1,
        ygap=1,
        showlegend=False,
    )


def _part_hover(name: str, layer: int, part: PartGain | None) -> str:
    told = ["not told apart"] if part is None else [f"{signed(part.gain, 3)}{_fine_bounds(part)} nats"]
    return theme.hover(f"{name}, layer {layer}", told)


def _fine_bounds(part: PartGain) -> str:
    if part.low is None or part.high is None:
        return ""
    return f" [{signed(part.low, 3)} to {signed(part.high, 3)}]"


def _inside(figure: go.Figure, blocks: Sequence[Inside]) -> dict[str, object]:
    """Sites and heads of every block that can be looked into, of which one is shown; the menu of blocks."""
    for row in (2, 3):  # a panel without anything to see would lose its axes
        figure.add_trace(go.Scatter(x=[None], y=[None], showlegend=False, hoverinfo="skip"), row=row, col=1)
    first, owners = len(figure.data), []
    for block in blocks:
        own = [(2, _sites(block))] + [(3, trace) for trace in _heads(block)]
        for row, trace in own:
            figure.add_trace(trace.update(visible=block is blocks[0]), row=row, col=1)
            owners.append(block.block)
    buttons: list[tuple[str, dict[str, object], dict[str, object]]] = [
        (f"inside {block.block}", {"visible": [block.block == owner for owner in owners]}, {}) for block in blocks
    ]
    top = 1 - (HEIGHTS[0] + GAP) / (sum(HEIGHTS) + 2 * GAP)
    return menu(buttons, range(first, len(figure.data)), top, "block")


def _sites(block: Inside) -> go.Bar:
    return _part_bars([str(part.site) for part in block.sites], block.sites, block.block)


def _heads(block: Inside) -> list[go.Bar | go.Scatter]:
    """Whole heads or experts as bars, and the heads of single sites as marks."""
    whole = [part for part in block.heads if _is_whole_head(block, part)]
    bars = _part_bars([part.head or 0 for part in whole], whole, block.block)
    if block.noun == "expert" or not whole:
        return [bars] if whole else []
    marks = []
    for at, site in enumerate(in_order(str(part.site) for part in block.heads if part.site is not None)):
        own = [part for part in block.heads if part.site == site]
        group = len(whole) / len(own)  # query heads that share a key-value head
        marks.append(
            go.Scatter(
                name=f"of it {site}",
                mode="markers",
                x=[((part.head or 0) + 0.5) * group - 0.5 for part in own],
                y=[short(part.gain) for part in own],
                marker={
                    "symbol": SITE_SYMBOLS[at % len(SITE_SYMBOLS)],
                    "size": 7,
                    "color": theme.PAPER,
                    "line": {"color": theme.INK, "width": 1.2},
                },
                customdata=[_numbers(part) for part in own],
                hovertemplate=_part_template(
                    f"{theme.safe(block.block)}, number %{{customdata[0]}}, {theme.safe(site)}"
                ),
            )
        )
    return [bars, *marks]


def _part_bars(labels: Sequence[str | int], parts: Sequence[PartGain], block: str) -> go.Bar:
    return go.Bar(
        x=list(labels),
        y=[short(part.gain) for part in parts],
        marker={"color": theme.KIND_COLOURS[split(block)[1]], "line": {"width": 0}},
        error_y=whiskers([p.gain for p in parts], [p.low for p in parts], [p.high for p in parts]),
        customdata=[_numbers(part) for part in parts],
        hovertemplate=_part_template(f"{theme.safe(block)}, %{{x}}"),
        showlegend=False,
    )


def _numbers(part: PartGain) -> list[float | int | None]:
    """What hovering over a part tells: its number, and its interval."""
    return [part.head, *(None if bound is None else short(bound) for bound in (part.low, part.high))]


def _part_template(name: str) -> str:
    return f"<b>{name}</b><br>%{{y:+.3f}} [%{{customdata[1]:+.3f}} to %{{customdata[2]:+.3f}}] nats<extra></extra>"
