"""The logit lens: the refusal log-odds that each model's own read-out gives behind every layer."""

from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from vlsurgery.figures import blocks, theme
from vlsurgery.figures.choice import chosen, one_of
from vlsurgery.figures.menus import show_one
from vlsurgery.figures.wording import (
    MODALITY_ORDER,
    ROLE_ORDER,
    SET_ORDER,
    modality_name,
    number,
    rank,
    role_name,
)
from vlsurgery.probes.evaluation.thresholds import enough
from vlsurgery.probes.results import LayerCurve, ProbeResult

REFERENCE = "base"  # read in text alone, it stands beside every kind of picture


@dataclass(frozen=True)
class LensInfo:
    """The curves to draw, a panel a prompt set. modality: the one that is shown first.

    parted: the layer from which on adapted lies below the reference at every layer, intervals apart; None where there
    is none, or too few requests to say so. against: what the reference is.
    """

    curves: tuple[LayerCurve, ...]
    sets: tuple[str, ...]
    modalities: tuple[str, ...]
    modality: str
    parted: int | None
    against: str | None

    def of(self, set_: str, modality: str) -> list[LayerCurve]:
        """The curves of one panel under one modality, the base's text among them."""
        found = [each for each in self.curves if each.set == set_ and each.modality == modality]
        has_base = any(each.role == REFERENCE for each in found)
        base = [each for each in self.curves if (each.role, each.set) == (REFERENCE, set_)]
        return found if has_base else [*base[:1], *found]


def compute(
    probe: ProbeResult,
    roles: Sequence[str] | None = None,
    sets: Sequence[str] | None = None,
    modality: str | None = None,
) -> LensInfo:
    """Gather the curves of some roles and prompt sets (None: of all), and where adapted parts from the base.

    modality: shown first; by default the ordinary picture, where there is one.
    """
    order = sorted(
        probe.lens,
        key=lambda each: (rank(SET_ORDER, each.set), rank(MODALITY_ORDER, each.modality), rank(ROLE_ORDER, each.role)),
    )
    wanted_roles = chosen("roles", roles, sorted({each.role for each in order}, key=lambda r: rank(ROLE_ORDER, r)))
    wanted_sets = chosen("sets", sets, (each.set for each in order))
    curves = tuple(each for each in order if each.role in wanted_roles and each.set in wanted_sets)
    modalities = tuple(sorted({each.modality for each in curves}, key=lambda m: rank(MODALITY_ORDER, m)))
    first = next((each for each in ("benign", "own") if each in modalities), next(iter(modalities), "text"))
    shown = first if modality is None else one_of("modality", modality, modalities)
    info = LensInfo(curves, wanted_sets, modalities, shown, None, None)
    parted, against = _parting(info)
    return LensInfo(curves, wanted_sets, modalities, shown, parted, against)


def _parting(info: LensInfo) -> tuple[int | None, str | None]:
    """The first layer from which on adapted's interval lies below the graft's, else the base's, on harmful prompts."""
    found = {each.role: each for each in info.of("harmful", info.modality)} if info.sets else {}
    adapted, against = found.get("adapted"), next((r for r in ("graft", "base") if r in found), None)
    if adapted is None or against is None or found[against].layers != adapted.layers:
        return None, against
    if not enough(min(adapted.requests, found[against].requests)):
        return None, against
    parted = None
    for layer, high, low in zip(adapted.layers, adapted.high, found[against].low, strict=True):
        below = high is not None and low is not None and high < low
        parted = (layer if parted is None else parted) if below else None
    return parted, against


def rows(info: LensInfo) -> list[dict[str, str | int | float | None]]:
    """The numbers that are drawn: a record a role, set, modality and layer."""
    return [
        {
            "role": each.role,
            "prompts": each.set,
            "modality": each.modality,
            "layer": layer,
            "refusal log-odds": value,
            "low": low,
            "high": high,
            "requests": each.requests,
        }
        for each in info.curves
        for layer, value, low, high in zip(each.layers, each.value, each.low, each.high, strict=True)
    ]


def _title(info: LensInfo) -> str:
    if info.parted is None or info.against is None:
        return "Refusal log-odds, read behind every layer"
    return f"From layer {info.parted} on, adapted reads less of a refusal than the {role_name(info.against)}"


def _line(curve: LayerCurve) -> go.Scatter:
    texts = [
        theme.hover(
            f"{role_name(curve.role)}, {modality_name(curve.modality)}",
            [
                f"layer {layer}: {number(value)} nats",
                f"95% interval {number(low)} to {number(high)}, {curve.requests} requests",
            ],
        )
        for layer, value, low, high in zip(curve.layers, curve.value, curve.low, curve.high, strict=True)
    ]
    return go.Scatter(
        name=theme.safe(role_name(curve.role)),
        legendgroup=theme.safe(curve.role),
        x=curve.layers,
        y=curve.value,
        mode="lines+markers",
        line={
            "color": theme.role_colour(curve.role),
            "width": 2.2,
            "dash": theme.DASHES.get(curve.modality, "dot"),
        },
        marker={"size": 5},
        hovertext=texts,
        hoverinfo="text",
    )


def _band(curve: LayerCurve) -> go.Scatter:
    known = [
        (layer, low, high)
        for layer, low, high in zip(curve.layers, curve.low, curve.high, strict=True)
        if low is not None and high is not None
    ]
    layers = [layer for layer, _, _ in known]
    return go.Scatter(
        legendgroup=theme.safe(curve.role),
        showlegend=False,
        x=layers + layers[::-1],
        y=[high for _, _, high in known] + [low for _, low, _ in known][::-1],
        fill="toself",
        fillcolor=theme.tint(theme.role_colour(curve.role), 0.14),
        line={"width": 0},
        mode="lines",
        hoverinfo="skip",
    )


def draw(info: LensInfo) -> go.Figure:
    """A panel a prompt set, a line a role, intervals as bands; a drop-down for the kind of picture."""
    count = max(1, len(info.sets))
    figure = make_subplots(rows=count, cols=1, shared_xaxes=True, vertical_spacing=0.24 / count)
    owners: list[tuple[str, ...]] = []
    named: set[tuple[str, str]] = set()
    for row, set_ in enumerate(info.sets, 1):
        for modality in info.modalities:
            for curve in info.of(set_, modality):
                line = _line(curve)
                line.showlegend = (modality, curve.role) not in named
                named.add((modality, curve.role))
                figure.add_trace(_band(curve), row=row, col=1)
                figure.add_trace(line, row=row, col=1)
                owners += [(modality,), (modality,)]
    subtitle = (
        "The residual stream behind each layer, put through the model's own final norm and head at the token where the"
        " answer begins. Above 0 a refusal is likelier than not; behind the last layer it is what the model says. The"
        " base reads text alone."
    )
    theme.frame(figure, _title(info), subtitle, plot_height=210 * count, legend_rows=2, panels=True)
    for row, set_ in enumerate(info.sets, 1):
        theme.panel_title(figure, f"{set_.capitalize()} requests", row, 1)
        figure.update_yaxes(title_text="log-odds, nats", row=row, col=1)
        figure.add_hline(y=0, row=row, col=1, line={"color": theme.FAINT, "width": 1, "dash": "dash"})
        blocks.link_layers(figure, "x" if row == 1 else f"x{row}")
    figure.update_xaxes(title_text="layer", row=count, col=1)
    show_one(figure, {each: modality_name(each) for each in info.modalities}, owners, info.modality, 2, panels=True)
    return figure


def plot(
    probe: ProbeResult,
    roles: Sequence[str] | None = None,
    sets: Sequence[str] | None = None,
    modality: str | None = None,
    dark: bool = False,
) -> go.Figure:
    """Refusal log-odds behind every layer, by role, prompt set and kind of picture."""
    return theme.shown(draw(compute(probe, roles, sets, modality)), dark)
