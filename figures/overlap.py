"""How the leading directions of changes lie: of the two deltas to each other, and of each to the base; every value with
what it would be by chance."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

import plotly.graph_objects as go

from vlsurgery.figures import theme
from vlsurgery.figures.blocks import link_layers
from vlsurgery.figures.choice import chosen, one_of
from vlsurgery.figures.parts import in_order, menu, short
from vlsurgery.figures.wording import number
from vlsurgery.surgery.results import DiffResult, PairMetrics

# Measure -> what it is, in words.
MEASURES: Final = {
    "subspace, written": "overlap of the deltas' leading 8 directions",
    "subspace, read": "overlap of the deltas' leading 8 read directions",
    "base overlap, adaptation": "share of adaptation's change inside the base's leading directions",
    "base overlap, safety tuning": "share of safety tuning's change inside the base's leading directions",
    "intruders, adaptation": "share of adaptation's leading 8 directions outside of the base's",
    "intruders, safety tuning": "share of safety tuning's leading 8 directions outside of the base's",
}
COLOURS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#6b7280")
SYMBOLS: Final = ("circle", "square", "diamond", "cross", "x", "triangle-up", "star")


@dataclass(frozen=True)
class OverlapPoint:
    """One tensor under one measure, both from 0 to 1. null: what it would be by chance."""

    layer: int
    component: str
    value: float
    null: float | None


@dataclass(frozen=True)
class OverlapInfo:
    """Measure -> its points, layer by layer; the first measure is shown at the beginning."""

    points: dict[str, tuple[OverlapPoint, ...]]


def _values(metrics: PairMetrics) -> dict[str, tuple[float | None, float | None]]:
    """Measure -> value and null of one tensor."""
    found: dict[str, tuple[float | None, float | None]] = {}
    between = metrics.between
    if between is not None:
        null = between.subspace_null
        found["subspace, written"] = between.subspace_left, null.left if null else None
        found["subspace, read"] = between.subspace_right, null.right if null else None
    for name, delta in (("adaptation", metrics.vl), ("safety tuning", metrics.safety)):
        if delta is not None:
            found[f"base overlap, {name}"] = delta.base_overlap, delta.base_overlap_null
            found[f"intruders, {name}"] = delta.intruder_share, delta.intruder_share_null
    return found


def compute(
    diff: DiffResult,
    by: str | None = None,
    components: Sequence[str] | None = None,
    layers: Sequence[int] | None = None,
) -> OverlapInfo:
    """Gather what a diff at level `full` measured; what can be chosen: see `plot`."""
    found: dict[str, list[OverlapPoint]] = {}
    pairs = [pair for pair in diff.pairs if pair.tower == "text" and pair.layer is not None]
    for pair in pairs:
        for measure, (value, null) in _values(pair.metrics).items():
            if value is not None and pair.layer is not None:
                found.setdefault(measure, []).append(OverlapPoint(pair.layer, pair.component, value, null))
    every = [point for points in found.values() for point in points]
    kinds = chosen("components", components, in_order(point.component for point in every))
    at = chosen("layers", layers, sorted({point.layer for point in every}))
    there = [measure for measure in MEASURES if measure in found]
    if by is not None:
        first = one_of("by", by, there)
        there = [first, *(measure for measure in there if measure != first)]
    return OverlapInfo(
        {
            measure: tuple(
                sorted((p for p in found[measure] if p.component in kinds and p.layer in at), key=lambda p: p.layer)
            )
            for measure in there
        }
    )


def title(info: OverlapInfo) -> str:
    if not info.points:
        return "No directions of changes were compared"
    measure, points = next(iter(info.points.items()))
    known = [point for point in points if point.null is not None]
    what = f"{MEASURES[measure][0].upper()}{MEASURES[measure][1:]}"
    if not known:
        return what
    middle, chance = (median(values) for values in zip(*((p.value, p.null or 0.0) for p in known), strict=True))
    return f"{what}: {number(middle)} in the median, {number(chance)} by chance"


def draw(info: OverlapInfo) -> go.Figure:
    """A line a component over the layers, and dashed what chance gives; a menu picks the measure."""
    figure, owners = go.Figure(), []
    shown = next(iter(info.points), "")
    for measure, points in info.points.items():
        names = in_order(point.component for point in points)
        for at, name in enumerate(names):
            for trace in _lines(name, [point for point in points if point.component == name], at):
                figure.add_trace(trace.update(visible=measure == shown))
                owners.append(measure)
    subtitle = (
        "Written: directions in a matrix's output; read: in its input. Dashed, in the same colour: what independent"
        " moves give that share the rounding of the adapted weights, or, against the base, a change in random"
        " directions."
    )
    theme.frame(figure, title(info), subtitle, 330, legend_rows=3, panels=True)
    figure.update_xaxes(title_text="layer")
    figure.update_yaxes(title_text="share", rangemode="tozero")
    if len(info.points) > 1:
        buttons: list[tuple[str, dict[str, object], dict[str, object]]] = [
            (measure, {"visible": [measure == owner for owner in owners]}, {}) for measure in info.points
        ]
        figure.update_layout(updatemenus=[menu(buttons, range(len(owners)), 1.0, "measure")])
    link_layers(figure, "x")
    return figure


def _lines(name: str, points: Sequence[OverlapPoint], at: int) -> list[go.Scatter]:
    """One component's values, and its null where there is one."""
    colour = COLOURS[at % len(COLOURS)]
    values = go.Scatter(
        name=theme.safe(name),
        legendgroup=theme.safe(name),
        mode="lines+markers",
        x=[point.layer for point in points],
        y=[short(point.value) for point in points],
        line={"color": colour, "width": 1.6},
        marker={"symbol": SYMBOLS[at % len(SYMBOLS)], "size": 7},
        customdata=[None if point.null is None else short(point.null) for point in points],
        hovertemplate=f"<b>%{{x}}.{theme.safe(name)}</b><br>%{{y:.3f}}; by chance %{{customdata:.3f}}<extra></extra>",
    )
    known = [point for point in points if point.null is not None]
    null = go.Scatter(
        legendgroup=theme.safe(name),
        showlegend=False,
        mode="lines",
        x=[point.layer for point in known],
        y=[short(point.null or 0.0) for point in known],
        line={"color": colour, "width": 1.2, "dash": "dash"},
        hoverinfo="skip",
    )
    return [values, null] if known else [values]


def rows(info: OverlapInfo) -> list[dict[str, str | int | float | None]]:
    """What is drawn, a record a tensor: every measure, and what it would be by chance."""
    told: dict[tuple[int, str], dict[str, str | int | float | None]] = {}
    for measure, points in info.points.items():
        for point in points:
            row = told.setdefault((point.layer, point.component), {"layer": point.layer, "component": point.component})
            row[measure] = short(point.value)
            row[f"{measure}: chance"] = None if point.null is None else short(point.null)
    return list(told.values())


def plot(
    diff: DiffResult,
    by: str | None = None,
    components: Sequence[str] | None = None,
    layers: Sequence[int] | None = None,
    dark: bool = False,
) -> go.Figure:
    """How the directions of changes overlap, with each other and with the base's, tensor by tensor.

    by: the measure shown first, a key of `MEASURES`; a menu offers the others. components, layers: only these. dark:
    for dark paper. Raises SurgeryError where there is nothing of that name.
    """
    return theme.shown(draw(compute(diff, by, components, layers)), dark)
