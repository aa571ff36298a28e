"""Attention heads and experts, layer by layer: how far each moved, or what each has of the lost refusal."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import plotly.graph_objects as go

from vlsurgery.figures import theme
from vlsurgery.figures.blocks import link_layers, split
from vlsurgery.figures.choice import chosen, leading, one_of
from vlsurgery.figures.parts import component_order, inside, menu, short
from vlsurgery.figures.wording import number, signed
from vlsurgery.probes.results import ProbeResult
from vlsurgery.surgery.results import DiffResult

DELTA_NAMES: Final = {"vl": "adaptation", "safety": "safety tuning"}
GAIN: Final = "gain"
OWN: Final = "whole heads"
MAX_SHEETS: Final = 16  # what a menu offers at most


@dataclass(frozen=True)
class HeadCell:
    """One head or expert. value: its change over its norm, or its gain in nats. low, high: the gain's 95% interval."""

    layer: int
    head: int
    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class HeadSheet:
    """All heads of one site under one measure. measure: "vl" or "safety" (change over norm), or "gain" (nats). noun:
    "head" or "expert"."""

    measure: str
    site: str
    noun: str
    cells: tuple[HeadCell, ...]

    @property
    def name(self) -> str:
        start = "gain" if self.measure == GAIN else f"change in {DELTA_NAMES[self.measure]}"
        return f"{start}: {self.site}"

    @property
    def largest(self) -> HeadCell:
        return max(self.cells, key=lambda cell: cell.value)


@dataclass(frozen=True)
class HeadsInfo:
    """The sheets that a menu offers; the first is shown at the beginning."""

    sheets: tuple[HeadSheet, ...]


def compute(
    diff: DiffResult | None = None,
    probe: ProbeResult | None = None,
    by: str | None = None,
    sites: Sequence[str] | None = None,
    layers: Sequence[int] | None = None,
    top: int | None = None,
) -> HeadsInfo:
    """Gather every site's heads; what can be chosen: see `plot`."""
    sheets = [*(_gains(probe) if probe else []), *(_changes(diff) if diff else [])]
    wanted = chosen("sites", sites, [sheet.site for sheet in sheets])
    at = chosen("layers", layers, sorted({cell.layer for sheet in sheets for cell in sheet.cells}))
    if by is not None:
        one_of("by", by, [sheet.measure for sheet in sheets])
        sheets = sorted(sheets, key=lambda sheet: sheet.measure != by)
    count = leading("top", top)
    found = []
    for sheet in sheets:
        kept = [cell for cell in sheet.cells if cell.layer in at]
        if count is not None:
            kept = sorted(kept, key=lambda cell: -abs(cell.value))[:count]
        if sheet.site in wanted and kept:
            found.append(HeadSheet(sheet.measure, sheet.site, sheet.noun, tuple(kept)))
    return HeadsInfo(tuple(found[:MAX_SHEETS]))


def _gains(probe: ProbeResult) -> list[HeadSheet]:
    found: dict[tuple[str, str], list[HeadCell]] = {}
    for block in inside(probe.attribution).values():
        layer = split(block.block)[0]
        for part in block.heads:
            if layer is not None and part.head is not None:
                cell = HeadCell(layer, part.head, part.gain, part.low, part.high)
                found.setdefault((part.site or OWN, block.noun), []).append(cell)
    ordered = sorted(found.items(), key=lambda item: (item[0][0] != OWN, component_order(item[0][0])))
    return [HeadSheet(GAIN, site, noun, tuple(cells)) for (site, noun), cells in ordered]


def _changes(diff: DiffResult) -> list[HeadSheet]:
    found: dict[tuple[str, str, str], list[HeadCell]] = {}
    for pair in diff.pairs:
        if pair.tower != "text" or pair.layer is None:
            continue
        for delta in DELTA_NAMES:
            metrics = getattr(pair.metrics, delta)
            for head in (metrics.heads or []) if metrics else []:
                if head.relative is not None:
                    site = pair.component if head.part is None else f"{pair.component.removesuffix('qkv')}{head.part}"
                    found.setdefault((delta, site, "head"), []).append(HeadCell(pair.layer, head.head, head.relative))
            for expert in (metrics.experts or []) if metrics else []:
                if expert.relative is not None:
                    cell = HeadCell(pair.layer, expert.expert, expert.relative)
                    found.setdefault((delta, pair.component, "expert"), []).append(cell)
    order = list(DELTA_NAMES)
    ordered = sorted(found.items(), key=lambda item: (order.index(item[0][0]), component_order(item[0][1])))
    return [HeadSheet(delta, site, noun, tuple(cells)) for (delta, site, noun), cells in ordered]


def title(info: HeadsInfo) -> str:
    """The first sheet's largest cell; of gains, only one whose interval stands clear of the next largest."""
    if not info.sheets:
        return "No head was told apart"
    sheet = info.sheets[0]
    largest = sheet.largest
    name = f"{sheet.noun} {largest.head} of layer {largest.layer}"
    if sheet.measure != GAIN:
        moved = f"{DELTA_NAMES[sheet.measure].capitalize()} moved {name} furthest in {sheet.site}"
        return f"{moved}: by {number(100 * largest.value, 1)}% of its norm"
    rest = max((cell.value for cell in sheet.cells if cell is not largest), default=0.0)
    if largest.low is None or largest.low <= max(rest, 0.0):
        return f"The lost refusal is spread over {sheet.noun}s: none stands clear of the others"
    return f"The {name} holds more of the lost refusal than any other: {signed(largest.value)} nats"


def draw(info: HeadsInfo) -> go.Figure:
    """A map of layers by heads; a menu picks measure and site."""
    figure = go.Figure()
    for at, sheet in enumerate(info.sheets):
        figure.add_trace(_heat(sheet).update(visible=at == 0))
    height = 120 + 15 * min(32, max((cell.head for sheet in info.sheets for cell in sheet.cells), default=0) + 1)
    subtitle = (
        "Heads of q and o are query heads, those of k and v key-value heads, which several query heads may share."
        " A gain is the head's part of its block's; a change is over the norm that the head had. In brackets on hover:"
        " 95% intervals, each taken alone."
    )
    theme.frame(figure, title(info), subtitle, height, legend_rows=0, panels=True)
    figure.update_xaxes(title_text="layer")
    figure.update_yaxes(title_text=f"number of the {info.sheets[0].noun if info.sheets else 'head'}", dtick=None)
    if len(info.sheets) > 1:
        count = len(info.sheets)
        buttons: list[tuple[str, dict[str, object], dict[str, object]]] = [
            (
                sheet.name,
                {"visible": [at == other for other in range(count)]},
                {"yaxis.title.text": f"number of the {sheet.noun}"},
            )
            for at, sheet in enumerate(info.sheets)
        ]
        figure.update_layout(updatemenus=[menu(buttons, range(count), 1.0, "measure and site")])
    link_layers(figure, "x")
    return figure


def _heat(sheet: HeadSheet) -> go.Heatmap:
    cells = {(cell.head, cell.layer): cell for cell in sheet.cells}
    heads, layers = sorted({head for head, _ in cells}), sorted({layer for _, layer in cells})
    table = [[cells.get((head, layer)) for layer in layers] for head in heads]
    most = max(abs(cell.value) for cell in sheet.cells) or 1.0
    of_gain = sheet.measure == GAIN
    return go.Heatmap(
        x=layers,
        y=heads,
        z=[[None if cell is None else short(cell.value) for cell in row] for row in table],
        customdata=[[_bounds(cell) for cell in row] for row in table] if of_gain else None,
        zmin=-most if of_gain else 0,
        zmax=most,
        colorscale=theme.DIVERGING if of_gain else theme.HEAT_SCALE,
        colorbar={
            "title": {"text": "nats" if of_gain else "change over norm", "side": "right"},
            "thickness": 12,
            "tickformat": "" if of_gain else ".1%",
            "outlinewidth": 0,
        },
        hovertemplate=_hover(sheet),
        hoverongaps=False,
        xgap=1,
        ygap=1,
    )


def _bounds(cell: HeadCell | None) -> list[float | None]:
    if cell is None or cell.low is None or cell.high is None:
        return [None, None]
    return [short(cell.low), short(cell.high)]


def _hover(sheet: HeadSheet) -> str:
    name = f"<b>{sheet.noun} %{{y}} of layer %{{x}}, {theme.safe(sheet.site)}</b><br>"
    if sheet.measure != GAIN:
        return f"{name}moved by %{{z:.2%}} of its norm in {DELTA_NAMES[sheet.measure]}<extra></extra>"
    bounds = "[%{customdata[0]:+.3f} to %{customdata[1]:+.3f}]"
    return f"{name}%{{z:+.3f}} {bounds} nats of refusal log-odds<extra></extra>"


def rows(info: HeadsInfo) -> list[dict[str, str | int | float | None]]:
    """What the map shows first, a record a head; the other sheets are in diff.json and probe.json."""
    return [
        {
            "measure": sheet.measure if sheet.measure == GAIN else f"change in {DELTA_NAMES[sheet.measure]}",
            "site": sheet.site, "layer": cell.layer, sheet.noun: cell.head, "value": short(cell.value),
            "low": _bounds(cell)[0], "high": _bounds(cell)[1],
        }
        for sheet in info.sheets[:1]
        for cell in sheet.cells
    ]  # fmt: skip


def plot(
    diff: DiffResult | None = None,
    probe: ProbeResult | None = None,
    by: str | None = None,
    sites: Sequence[str] | None = None,
    layers: Sequence[int] | None = None,
    top: int | None = None,
    dark: bool = False,
) -> go.Figure:
    """Heads or experts by layer, from a diff (how far each moved), a probe (what each has of the loss), or both.

    by: what is shown first, "gain", "vl" or "safety". sites, layers: only these. top: only so many cells of each site,
    the largest. dark: for dark paper. Raises SurgeryError where there is nothing of that name.
    """
    return theme.shown(draw(compute(diff, probe, by, sites, layers, top)), dark)
