"""A figure of searches: the best value found so far against what it took, the median of seeds with their range."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go

from vlsurgery.figures import theme

COLOURS = ("#e69f00", "#009e73", "#0072b2", "#56b4e9", "#d55e00", "#cc79a7", "#6b7280")


@dataclass(frozen=True)
class Curve:
    """One search with one seed. cost: forward-equivalents spent when each point was measured. value: each point's
    objective in nats, the smaller the better."""

    cost: tuple[int, ...]
    value: tuple[float, ...]


@dataclass(frozen=True)
class SearchInfo:
    """Best values so far of one search over its seeds, at the costs where any of them measured a point."""

    cost: tuple[int, ...]
    median: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    seeds: int


def compute(curves: Sequence[Curve]) -> SearchInfo:
    """The median and range over seeds of the best value so far; from where every seed has measured a point."""
    first = max(curve.cost[0] for curve in curves)
    costs = sorted({cost for curve in curves for cost in curve.cost if cost >= first})
    best = np.array(
        [np.minimum.accumulate(curve.value)[np.searchsorted(curve.cost, costs, side="right") - 1] for curve in curves]
    )
    ends = (np.median(best, 0), best.min(0), best.max(0))
    return SearchInfo(tuple(costs), *(tuple(each.tolist()) for each in ends), len(curves))


def search_figure(searches: Mapping[str, Sequence[Curve]], prompts: int) -> go.Figure:
    """One line a search. prompts: of `select`, for the subtitle."""
    figure = go.Figure()
    for (name, curves), colour in zip(searches.items(), COLOURS, strict=False):
        info = compute(curves)
        figure.add_trace(
            go.Scatter(
                x=[*info.cost, *reversed(info.cost)],
                y=[*info.high, *reversed(info.low)],
                fill="toself",
                fillcolor=theme.tint(colour, 0.13),
                line={"width": 0, "shape": "hv"},
                mode="lines",
                legendgroup=name,
                showlegend=False,
                hoverinfo="skip",
            )
        )
        figure.add_trace(
            go.Scatter(
                name=theme.safe(name),
                legendgroup=name,
                x=info.cost,
                y=info.median,
                mode="lines+markers" if len(info.cost) < 5 else "lines",
                line={"color": colour, "width": 2.2, "shape": "hv"},
                hovertemplate="%{x:,} forward passes of a prompt: %{y:.3f} nats",
            )
        )
    figure.update_xaxes(title="forward passes of one prompt (a backward counts two)", type="log")
    figure.update_yaxes(title="objective on select, nats")
    seeds = max(len(curves) for curves in searches.values())
    told = f"The best merge so far by the objective on {prompts} select prompts, the smaller the better; "
    told += f"median and range of {seeds} seeds." if seeds > 1 else "one seed."
    return theme.frame(figure, "What each search finds for what it costs", told, 420, legend_rows=2)
