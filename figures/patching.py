"""What the graft's states bring back in the adapted model, layer by layer, image and text tokens apart."""

from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from vlsurgery.figures import blocks, theme
from vlsurgery.figures.choice import chosen, one_of
from vlsurgery.figures.menus import show_one
from vlsurgery.figures.wording import MODALITY_ORDER, cell_phrase, modality_name, number, rank
from vlsurgery.probes.evaluation.thresholds import enough
from vlsurgery.probes.results import PatchCurve, Patching, ProbeResult

NAMES = {"image": "image tokens", "text": "text tokens", "all": "all tokens"}
COLOURS = {"image": theme.KIND_COLOURS["MLP"], "text": theme.KIND_COLOURS["attention"], "all": theme.UNKNOWN_ROLE}
DASHES = {"image": "solid", "text": "solid", "all": "dash"}


@dataclass(frozen=True)
class PatchingInfo:
    """What was patched, by modality. modality: shown first. tokens: whose states."""

    found: tuple[Patching, ...]
    modality: str
    tokens: tuple[str, ...]

    @property
    def shown(self) -> Patching | None:
        return next((each for each in self.found if each.modality == self.modality), None)

    def curves(self, patching: Patching) -> list[PatchCurve]:
        return [each for each in patching.curves if each.tokens in self.tokens]


def compute(probe: ProbeResult, modality: str | None = None, tokens: Sequence[str] | None = None) -> PatchingInfo:
    """Gather what patching gave. modality: shown first, by default one with a picture. tokens: None for all kinds."""
    found = tuple(sorted(probe.patching, key=lambda each: rank(MODALITY_ORDER, each.modality)))
    there = [each.modality for each in found]
    first = next((each for each in there if each != "text"), next(iter(there), "text"))
    shown = first if modality is None else one_of("modality", modality, there)
    kinds = [curve.tokens for each in found for curve in each.curves]
    return PatchingInfo(found, shown, chosen("tokens", tokens, [kind for kind in NAMES if kind in kinds]))


def rows(info: PatchingInfo) -> list[dict[str, str | int | float | None]]:
    """The numbers that are drawn: a record a modality, kind of token and layer."""
    return [
        {
            "modality": each.modality,
            "tokens": curve.tokens,
            "layer": layer,
            "share of the gap": share,
            "low": low,
            "high": high,
            "requests": each.requests,
        }
        for each in info.found
        for curve in info.curves(each)
        for layer, share, low, high in zip(each.layers, curve.share, curve.low, curve.high, strict=True)
    ]


def _title(info: PatchingInfo) -> str:
    """From which layer on text tokens alone bring most of the gap back, where the intervals say so."""
    found = info.shown
    if found is None or not enough(found.requests):
        return "What the graft's states bring back, layer by layer"
    curve = next((each for each in info.curves(found) if each.tokens == "text"), None)
    curve = curve or next((each for each in info.curves(found) if each.tokens == "all"), None)
    if curve is None:
        return "What the graft's states bring back, layer by layer"
    half = next((at for at, low in zip(found.layers, curve.low, strict=True) if low is not None and low > 0.5), None)
    if half is None:
        return "What the graft's states bring back, layer by layer"
    return f"The graft's states of {NAMES[curve.tokens]} bring most of the refusal back behind layer {half}"


def _subtitle(info: PatchingInfo) -> str:
    found = info.shown
    words = (
        "The residual stream of the graft (the base's weights in the adapted model) is put into the adapted model"
        " behind one layer. 0 is the adapted model's refusal log-odds, 1 the graft's."
    )
    if found is None or found.gap.value is None:
        return words
    if found.gap.low is None or found.gap.low <= 0:
        return f"{words} Between the two there is no clear gap here, so that shares have no interval."
    ends = f"{number(found.adapted.value, 1)} to {number(found.graft.value, 1)} nats"
    return f"{words} On {cell_phrase('harmful', found.modality)} that is {ends} ({found.requests} requests)."


def _traces(found: Patching, curve: PatchCurve) -> list[go.Scatter]:
    name, colour = NAMES[curve.tokens], COLOURS[curve.tokens]
    points = list(zip(found.layers, curve.share, curve.low, curve.high, strict=True))
    bounded = [(layer, low, high) for layer, _, low, high in points if low is not None and high is not None]
    layers = [layer for layer, _, _ in bounded]
    texts = [
        theme.hover(
            f"{name} behind layer {layer}",
            [
                "not defined: no gap" if share is None else f"{number(share)} of the gap comes back",
                f"95% interval {number(low)} to {number(high)}, {found.requests} requests",
            ],
        )
        for layer, share, low, high in points
    ]
    band = go.Scatter(
        x=layers + layers[::-1],
        y=[high for _, _, high in bounded] + [low for _, low, _ in bounded][::-1],
        fill="toself",
        fillcolor=theme.tint(colour, 0.18),
        line={"width": 0},
        mode="lines",
        hoverinfo="skip",
        showlegend=False,
        legendgroup=name,
    )
    line = go.Scatter(
        name=name,
        legendgroup=name,
        x=found.layers,
        y=curve.share,
        mode="lines+markers",
        line={"color": colour, "width": 2.4, "dash": DASHES[curve.tokens]},
        marker={"size": 6},
        hovertext=texts,
        hoverinfo="text",
    )
    return [band, line]


def draw(info: PatchingInfo) -> go.Figure:
    """A line a kind of token with its interval; a drop-down for the kind of picture."""
    figure, owners = go.Figure(), list[tuple[str, ...]]()
    for found in info.found:
        for curve in info.curves(found):
            traces = _traces(found, curve)
            figure.add_traces(traces)
            owners += [(found.modality,)] * len(traces)
    theme.frame(figure, _title(info), _subtitle(info), plot_height=360, legend_rows=2)
    for level, label in ((0, "adapted"), (1, "graft")):
        figure.add_hline(
            y=level,
            line={"color": theme.FAINT, "width": 1, "dash": "dash"},
            annotation={"text": label, "font": {"size": 11.5, "color": theme.MUTED}},
            annotation_position="top left",
        )
    figure.update_xaxes(title_text="layer behind which the states are put in")
    figure.update_yaxes(title_text="share of the gap that comes back")
    show_one(figure, {each.modality: modality_name(each.modality) for each in info.found}, owners, info.modality, 2)
    blocks.link_layers(figure, "x")
    return figure


def plot(
    probe: ProbeResult, modality: str | None = None, tokens: Sequence[str] | None = None, dark: bool = False
) -> go.Figure:
    """What the graft's states bring back of the refusal log-odds, by layer and kind of token."""
    return theme.shown(draw(compute(probe, modality, tokens)), dark)
