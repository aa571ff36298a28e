"""What changed in the weights, block by block, and how the two deltas lie to each other."""

from dataclasses import dataclass
from typing import Literal

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from vlsurgery.figures import theme
from vlsurgery.figures.blocks import BlockAxis, Place, block_axis
from vlsurgery.figures.wording import number, percent
from vlsurgery.surgery.results import DeltaMetrics, DiffResult, Summary

Delta = Literal["vl", "safety"]
INDEPENDENT = -0.5
_NAMES = {"vl": "adaptation", "safety": "safety tuning"}
_ROLES = {"vl": "adapted", "safety": "safety"}
_SYMBOLS = {"attention": "circle", "MLP": "square", "other": "diamond"}


@dataclass(frozen=True)
class BlockChange:
    """One block's relative change under each delta, and the cosine between the deltas; None where it can't be had."""

    place: Place
    vl: float | None
    safety: float | None
    cosine: float | None
    sign_conflict: float | None


@dataclass(frozen=True)
class WeightChangeInfo:
    """Every block of the diff once, in the order of the axis."""

    blocks: tuple[BlockChange, ...]
    axis: BlockAxis

    @property
    def has_between(self) -> bool:
        return any(block.cosine is not None for block in self.blocks)


def _relative(metrics: DeltaMetrics | None) -> float | None:
    return None if metrics is None else metrics.relative


def _change(summary: Summary, place: Place) -> BlockChange:
    metrics = summary.metrics
    return BlockChange(
        place=place,
        vl=_relative(metrics.vl),
        safety=_relative(metrics.safety),
        cosine=metrics.between.cosine if metrics.between else None,
        sign_conflict=metrics.between.sign_conflict if metrics.between else None,
    )


def compute(diff: DiffResult) -> WeightChangeInfo:
    """Take the block summaries of a diff; a metric that it lacks stays None."""
    axis = block_axis(summary.key for summary in diff.blocks)
    changes = [_change(summary, axis.places[summary.key]) for summary in diff.blocks]
    return WeightChangeInfo(tuple(sorted(changes, key=lambda change: change.place.x)), axis)


def _hover(change: BlockChange) -> str:
    lines = [
        f"moved by {percent(value)} of its norm in {_NAMES[delta]}"
        for delta, value in (("vl", change.vl), ("safety", change.safety))
        if value is not None
    ]
    if change.cosine is not None:
        lines.append(f"cosine between the two deltas {number(change.cosine)}")
    if change.sign_conflict is not None:
        lines.append(f"the deltas point opposite ways in {percent(change.sign_conflict)} of the entries both changed")
    return theme.hover(f"{change.place.block} ({change.place.label})", lines)


def _series(info: WeightChangeInfo, measure: str, kind: str, name: str, colour: str, legend: bool) -> go.Scatter:
    rows = [change for change in info.blocks if change.place.kind == kind and getattr(change, measure) is not None]
    layered = kind != "other"
    return go.Scatter(
        name=name,
        legendgroup=name,
        showlegend=legend,
        mode="lines+markers" if layered else "markers",
        x=[change.place.x for change in rows],
        y=[getattr(change, measure) for change in rows],
        line={"color": colour, "width": 1.5, "dash": "dot" if kind == "MLP" else "solid"},
        marker={"symbol": _SYMBOLS[kind], "size": 8, "color": colour},
        hovertext=[_hover(change) for change in rows],
        hoverinfo="text",
    )


def _add_relative(figure: go.Figure, info: WeightChangeInfo) -> None:
    for delta in ("vl", "safety"):
        for kind in ("attention", "MLP", "other"):
            shown = "other, and outside layers" if kind == "other" else kind
            name = f"{_NAMES[delta]}: {shown}"
            trace = _series(info, delta, kind, name, theme.role_colour(_ROLES[delta]), legend=True)
            if trace.x:
                figure.add_trace(trace, row=1, col=1)
    figure.update_yaxes(title_text="change over norm", tickformat=".0%", rangemode="tozero", row=1, col=1)


def _add_between(figure: go.Figure, info: WeightChangeInfo) -> None:
    for kind in ("attention", "MLP", "other"):
        trace = _series(info, "cosine", kind, f"cosine: {kind}", theme.KIND_COLOURS[kind], legend=False)
        if trace.x:
            figure.add_trace(trace, row=2, col=1)
    line = {"color": theme.FAINT, "width": 1.2, "dash": "dash"}
    note = {"font": {"size": 11.5, "color": theme.MUTED}}
    figure.add_hline(y=0, line={"color": theme.MUTED, "width": 1}, row=2, col=1)
    figure.add_hline(
        y=INDEPENDENT,
        line=line,
        row=2,
        col=1,
        annotation={"text": f"{number(INDEPENDENT, 1)}: three unrelated models", **note},
        annotation_position="bottom left",
    )
    figure.update_yaxes(title_text="cosine", range=[-1.05, 1.05], row=2, col=1)


def _title(info: WeightChangeInfo) -> str:
    moved = [change for change in info.blocks if change.vl is not None]
    if not moved:
        return "How far each block moved"
    furthest = max(moved, key=lambda change: change.vl or 0)
    return f"Adaptation moved {furthest.place.block} furthest: by {percent(furthest.vl or 0)} of its norm"


def draw(info: WeightChangeInfo) -> go.Figure:
    """Relative change above; below, where there is a safety delta, its cosine with the VL delta."""
    rows = 2 if info.has_between else 1
    heights = [0.56, 0.44] if rows == 2 else [1.0]
    figure = make_subplots(rows=rows, cols=1, shared_xaxes=True, vertical_spacing=0.13, row_heights=heights)
    _add_relative(figure, info)
    subtitle = (
        "Norm of a block's change over the norm it had before. Weight change hardly says where safety went: large"
        " changes may cost nothing, and small ones may cost the refusal."
    )
    theme.frame(figure, _title(info), subtitle, 430 if rows == 2 else 270, legend_rows=2, panels=True)
    theme.panel_title(figure, "Relative change", 1, 1)
    if rows == 2:
        _add_between(figure, info)
        theme.panel_title(figure, "Cosine between the two deltas: negative by construction, both contain adapted", 2, 1)
    for row in range(1, rows + 1):
        info.axis.show(figure, row=row, col=1)
    if rows == 2:
        figure.update_xaxes(title_text="", row=1, col=1)
    return figure


def rows(info: WeightChangeInfo) -> list[dict[str, str | int | float | None]]:
    """What is drawn, a record a block."""
    return [
        {
            "block": each.place.block, "layer": each.place.layer, "adaptation, change over norm": each.vl,
            "safety tuning, change over norm": each.safety, "cosine of the deltas": each.cosine,
            "sign conflict": each.sign_conflict,
        }
        for each in info.blocks
    ]  # fmt: skip


def plot(diff: DiffResult) -> go.Figure:
    """What changed in the weights, block by block."""
    return draw(compute(diff))
