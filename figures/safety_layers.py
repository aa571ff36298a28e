"""Behind which layer a model begins to treat harmful requests otherwise: the gap of angles, by role."""

from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from vlsurgery.figures import blocks, theme
from vlsurgery.figures.choice import chosen
from vlsurgery.figures.wording import MODALITY_ORDER, ROLE_ORDER, modality_name, number, rank, role_name
from vlsurgery.probes.evaluation.thresholds import enough
from vlsurgery.probes.results import ProbeResult, SafetyLayers


@dataclass(frozen=True)
class SafetyLayersInfo:
    """The curves to draw. opening: the first layer from which on the base's gap stays above 0, interval and all; None
    where there is none, or too few requests to say so."""

    curves: tuple[SafetyLayers, ...]
    opening: int | None


def compute(
    probe: ProbeResult, roles: Sequence[str] | None = None, modalities: Sequence[str] | None = None
) -> SafetyLayersInfo:
    """Gather the gaps of some roles and kinds of picture (None: of all)."""
    order = sorted(
        probe.safety_layers, key=lambda each: (rank(ROLE_ORDER, each.role), rank(MODALITY_ORDER, each.modality))
    )
    there = chosen("roles", roles, (each.role for each in order))
    kinds = chosen("modalities", modalities, (each.modality for each in order))
    base = next((each for each in order if (each.role, each.modality) == ("base", "text")), None)
    curves = tuple(each for each in order if each.role in there and each.modality in kinds)
    return SafetyLayersInfo(curves, None if base is None else _opening(base))


def _opening(curve: SafetyLayers) -> int | None:
    if not enough(curve.requests):
        return None
    opening = None
    for layer, low in zip(curve.layers, curve.low, strict=True):
        opening = (layer if opening is None else opening) if low > 0 else None
    return opening


def rows(info: SafetyLayersInfo) -> list[dict[str, str | int | float | None]]:
    """The numbers that are drawn: a record a role, kind of picture and layer."""
    return [
        {
            "role": each.role,
            "modality": each.modality,
            "layer": layer,
            "gap in degrees": each.gap[at],
            "low": each.low[at],
            "high": each.high[at],
            "cosine of two harmless": each.same[at],
            "cosine of harmless and harmful": each.across[at],
            "requests": each.requests,
        }
        for each in info.curves
        for at, layer in enumerate(each.layers)
    ]


def _traces(curve: SafetyLayers) -> list[go.Scatter]:
    name, colour = f"{role_name(curve.role)}, {modality_name(curve.modality)}", theme.role_colour(curve.role)
    texts = [
        theme.hover(
            name,
            [
                f"layer {layer}: {number(curve.gap[at], 1)}°, 95% interval {number(curve.low[at], 1)} to "
                f"{number(curve.high[at], 1)}",
                f"cosine of two harmless {number(curve.same[at])}, of harmless and harmful {number(curve.across[at])}",
            ],
        )
        for at, layer in enumerate(curve.layers)
    ]
    band = go.Scatter(
        x=curve.layers + curve.layers[::-1],
        y=curve.high + curve.low[::-1],
        fill="toself",
        fillcolor=theme.tint(colour, 0.12),
        line={"width": 0},
        mode="lines",
        hoverinfo="skip",
        showlegend=False,
        legendgroup=theme.safe(name),
    )
    line = go.Scatter(
        name=theme.safe(name),
        legendgroup=theme.safe(name),
        x=curve.layers,
        y=curve.gap,
        mode="lines+markers",
        line={"color": colour, "width": 2.2, "dash": theme.DASHES.get(curve.modality, "dot")},
        marker={"size": 5},
        hovertext=texts,
        hoverinfo="text",
    )
    return [band, line]


def draw(info: SafetyLayersInfo) -> go.Figure:
    """A line a role and kind of picture, with its interval."""
    figure = go.Figure([trace for curve in info.curves for trace in _traces(curve)])
    subtitle = (
        "Angle between the last token's states of a harmless and a harmful request, less that of two harmless ones, in"
        " degrees (Li et al., arXiv 2408.17003). Above 0 harmful requests are held apart from harmless ones."
    )
    title = "Where harmful requests are held apart"
    if info.opening is not None:
        title = f"The base holds harmful requests apart from layer {info.opening} on"
    theme.frame(figure, title, subtitle, plot_height=340, legend_rows=3)
    figure.add_hline(y=0, line={"color": theme.FAINT, "width": 1, "dash": "dash"})
    figure.update_xaxes(title_text="layer")
    figure.update_yaxes(title_text="gap of angles, degrees")
    blocks.link_layers(figure, "x")
    return figure


def plot(
    probe: ProbeResult,
    roles: Sequence[str] | None = None,
    modalities: Sequence[str] | None = None,
    dark: bool = False,
) -> go.Figure:
    """The gap of angles between harmful and harmless requests behind every layer, by role."""
    return theme.shown(draw(compute(probe, roles, modalities)), dark)
