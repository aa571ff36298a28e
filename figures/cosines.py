"""Cosines of all roles' directions with the base's: layer by layer beside shuffled labels, and layer against layer."""

from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from vlsurgery.figures import blocks, theme
from vlsurgery.figures.choice import chosen, one_of
from vlsurgery.figures.menus import show_one
from vlsurgery.figures.wording import modality_name, number, role_name
from vlsurgery.probes.results import CosineNull, DirectionCosines, ProbeResult

REFERENCE = "base/text"


@dataclass(frozen=True)
class CosinesInfo:
    """One position. keys: "<role>/<modality>", without the reference. key: shown first. same: key -> the cosine with
    the base's text direction of the same layer. nulls: key -> what shuffled labels give.

    beyond: key -> the layers at which the cosine lies below what shuffled labels give at their least over all layers.
    """

    table: DirectionCosines | None
    keys: tuple[str, ...]
    key: str | None
    same: dict[str, tuple[float, ...]]
    nulls: dict[str, CosineNull]
    beyond: dict[str, tuple[int, ...]]


def compute(
    probe: ProbeResult, position: str | None = None, keys: Sequence[str] | None = None, key: str | None = None
) -> CosinesInfo:
    """Gather the cosines of one position (by default that at which figures show directions).

    keys: "<role>/<modality>"; None for all. key: shown first, by default adapted with a picture, else in text.
    """
    tables = {each.position: each for each in probe.cosine_matrices if len(each.keys) > 1}
    if not tables:
        return CosinesInfo(None, (), None, {}, {}, {})
    usual = probe.shown_at[0] if probe.shown_at and probe.shown_at[0] in tables else next(iter(tables))
    table = tables[usual if position is None else one_of("position", position, tables)]
    there = chosen("keys", keys, [each for each in table.keys if each != REFERENCE])
    adapted = [each for each in there if each.startswith("adapted/")]
    first = (adapted or list(there))[-1] if key is None else one_of("key", key, there)
    at = {each: place for place, each in enumerate(table.keys)}
    same = {each: tuple(row[0][at[each]] for row in table.between) for each in there}
    nulls = {f"{each.role}/{each.modality}": each for each in probe.cosine_nulls if each.position == table.position}
    beyond = {
        each: tuple(
            layer for layer, cosine in zip(table.layers, same[each], strict=True) if cosine < nulls[each].lowest
        )
        for each in there
        if each in nulls
    }
    return CosinesInfo(table, there, first, same, {each: nulls[each] for each in there if each in nulls}, beyond)


def _name(key: str) -> str:
    role, _, modality = key.rpartition("/")
    return f"{role_name(role)}, {modality_name(modality)}"


def rows(info: CosinesInfo) -> list[dict[str, str | int | float | None]]:
    """The numbers that are drawn: all directions at the same layer, the one shown first at every pair of layers."""
    if info.table is None:
        return []
    layers = info.table.layers
    return [
        {
            "with": key,
            "position": info.table.position,
            "layer of the base": ours,
            "layer": theirs,
            "cosine": info.table.across[key][row][column],
            "shuffled labels, least": info.nulls[key].lowest if key in info.nulls else None,
            "shuffled labels, greatest": info.nulls[key].highest if key in info.nulls else None,
        }
        for key in info.keys
        for row, ours in enumerate(layers)
        for column, theirs in enumerate(layers)
        if row == column or key == info.key
    ]


def _title(info: CosinesInfo) -> str:
    if info.key is None or info.key not in info.beyond:
        return "Cosines with the base's direction"
    layers, name = info.beyond[info.key], _name(info.key)
    if layers:
        return f"{name}: the direction turned more than all else did, at {len(layers)} layers"
    return f"{name}: the direction turned no more than all else did"


def _heat(table: DirectionCosines, key: str) -> go.Heatmap:
    return go.Heatmap(
        x=table.layers,
        y=table.layers,
        z=table.across[key],
        zmin=-1,
        zmax=1,
        colorscale=[[0.0, theme.ROLE_COLOURS["adapted"]], [0.5, theme.PAPER], [1.0, theme.ROLE_COLOURS["base"]]],
        colorbar={"title": {"text": "cosine"}, "thickness": 12, "len": 0.5, "y": 0.22, "outlinewidth": 0},
        hovertemplate="base, text: layer %{y}<br>"
        + theme.safe(_name(key))
        + ": layer %{x}<br>cosine %{z:.2f}<extra></extra>",
    )


def _lines(info: CosinesInfo, table: DirectionCosines, key: str) -> list[go.Scatter]:
    role = key.rpartition("/")[0]
    cosines = info.same[key]
    line = go.Scatter(
        name=theme.safe(_name(key)),
        x=table.layers,
        y=cosines,
        mode="lines+markers",
        line={"color": theme.role_colour(role), "width": 2.4},
        marker={"size": 6},
        hovertext=[
            theme.hover(_name(key), [f"layer {layer}: cosine {number(cosine)}"])
            for layer, cosine in zip(table.layers, cosines, strict=True)
        ],
        hoverinfo="text",
    )
    null = info.nulls.get(key)
    if null is None:
        return [line]
    band = go.Scatter(
        name="shuffled labels, 95% at each layer",
        x=null.layers + null.layers[::-1],
        y=null.high + null.low[::-1],
        fill="toself",
        fillcolor=theme.tint(theme.FAINT, 0.28),
        line={"width": 0},
        mode="lines",
        hoverinfo="skip",
    )
    ends = [null.layers[0], null.layers[-1]]
    least = _level("their least over all layers (5%)", ends, null.lowest, "dash", theme.MUTED)
    random = _level("random direction, at most (95%)", ends, null.random, "dot", theme.FAINT)
    return [band, least, random, line]


def _level(name: str, ends: Sequence[int], value: float, dash: str, colour: str) -> go.Scatter:
    return go.Scatter(
        name=name, x=ends, y=[value, value], mode="lines", line={"color": colour, "width": 1.2, "dash": dash}
    )


def draw(info: CosinesInfo) -> go.Figure:
    """Above: the same layer, beside its nulls. Below: every layer of the base against every layer of the role."""
    table = info.table
    if table is None or info.key is None:
        return theme.frame(go.Figure(), "Cosines with the base's direction", "There is no other direction.", 120, 0)
    figure = make_subplots(rows=2, cols=1, row_heights=[0.42, 0.58], vertical_spacing=0.16)
    owners: list[tuple[str, ...]] = []
    for key in info.keys:
        for trace in _lines(info, table, key):
            figure.add_trace(trace, row=1, col=1)
            owners.append((key,))
        figure.add_trace(_heat(table, key), row=2, col=1)
        owners.append((key,))
    where = "the last instruction token" if table.position == "instruction" else f"token {table.position}"
    subtitle = (
        f"Directions at {where}, with the base's in text. Models that were made of each other differ alike between any"
        " two halves of the prompts: the grey band is the cosine of directions made with shuffled labels. Only below it"
        " has what tells harmful from harmless turned further than the rest."
    )
    theme.frame(figure, _title(info), subtitle, plot_height=640, legend_rows=4, panels=True)
    theme.panel_title(figure, "Same layer", 1, 1)
    theme.panel_title(figure, "Layer against layer", 2, 1)
    figure.update_yaxes(title_text="cosine", row=1, col=1)
    figure.update_xaxes(title_text="layer", row=1, col=1)
    figure.update_xaxes(title_text="layer of the role's direction", row=2, col=1)
    figure.update_yaxes(title_text="layer of the base's", row=2, col=1)
    show_one(figure, {key: _name(key) for key in info.keys}, owners, info.key, 4, panels=True)
    blocks.link_layers(figure, "x")
    blocks.link_layers(figure, "x2")
    return figure


def plot(
    probe: ProbeResult,
    position: str | None = None,
    keys: Sequence[str] | None = None,
    key: str | None = None,
    dark: bool = False,
) -> go.Figure:
    """Cosines of directions with the base's, beside shuffled labels, and layer against layer."""
    return theme.shown(draw(compute(probe, position, keys, key)), dark)
