"""One prompt as models read it, layer by layer: where it lies between harmless and harmful prompts, and how refusal
builds up.

Two figures: the way along a direction, and the refusal log-odds by the logit lens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import plotly.graph_objects as go

from vlsurgery.figures import blocks, theme
from vlsurgery.figures.wording import listed, number, role_name, signed
from vlsurgery.probes.results import LayerSpread, PromptReading

SHOWN: Final = (-1.5, 2.5)  # the widest axis on which 0 and 1 can still be told apart from the prompt
Side = Literal["harmful", "harmless"]
Spreads = tuple[LayerSpread, ...]


@dataclass(frozen=True)
class ReadPrompt:
    """What one model makes of the prompt, layer by layer.

    along: where it lies on the direction: 0 is the mean of harmless prompts under the same model, 1 that of harmful
    ones; where there are none, in the residual stream's own unit. None where the two means coincide. raw: in that unit.
    odds: refusal log-odds, in nats. along_spread, odds_spread: of the harmful and the harmless prompts, in the same
    units.
    """

    role: str
    along: tuple[float | None, ...]
    raw: tuple[float, ...]
    odds: tuple[float, ...]
    along_spread: dict[Side, Spreads]
    odds_spread: dict[Side, Spreads]


@dataclass(frozen=True)
class PromptLayersInfo:
    """The prompt under several models. scaled: whether `along` runs from harmless (0) to harmful (1) prompts."""

    models: tuple[ReadPrompt, ...]
    scaled: bool
    direction: str

    @property
    def title(self) -> str:
        """Where the prompt ends up, in every model."""
        if not self.scaled:
            return "The prompt along the direction"
        ends = [f"{role_name(each.role)} {number(each.along[-1])}" for each in self.models]
        return f"After the last layer, from harmless 0 to harmful 1: {listed(ends)}"

    @property
    def lens_title(self) -> str:
        """The models' own log-odds, after the last layer."""
        ends = [f"{role_name(each.role)} {signed(each.odds[-1], 1)}" for each in self.lens]
        return f"Log-odds of refusing, in nats: {listed(ends)}"

    @property
    def lens(self) -> tuple[ReadPrompt, ...]:
        """The models of which the lens was read."""
        return tuple(each for each in self.models if each.odds)


def compute(readings: Sequence[PromptReading]) -> PromptLayersInfo:
    """Put readings of one prompt on common scales. All of them are along one direction."""
    scaled = all(each.harmful_along and each.harmless_along for each in readings)
    models = tuple(_scaled(each) if scaled else _as_read(each) for each in readings)
    return PromptLayersInfo(models, scaled, readings[0].direction)


def _as_read(reading: PromptReading) -> ReadPrompt:
    return ReadPrompt(
        reading.role, tuple(reading.along), tuple(reading.along), tuple(reading.odds), {}, _odds_spread(reading)
    )


def _odds_spread(reading: PromptReading) -> dict[Side, Spreads]:
    spreads: dict[Side, Spreads] = {
        "harmful": tuple(reading.harmful_odds),
        "harmless": tuple(reading.harmless_odds),
    }
    return {side: each for side, each in spreads.items() if each}


def _scaled(reading: PromptReading) -> ReadPrompt:
    """Each layer moved and stretched so that harmless prompts have mean 0 and harmful ones mean 1."""
    zeros = [each.mean for each in reading.harmless_along]
    ones = [each.mean for each in reading.harmful_along]

    def at(layer: int, value: float) -> float | None:
        length = ones[layer] - zeros[layer]
        return (value - zeros[layer]) / length if length else None

    def spread(layer: int, each: LayerSpread) -> LayerSpread | None:
        ends = [at(layer, value) for value in (each.mean, each.low, each.high)]
        known = [end for end in ends if end is not None]
        return LayerSpread(mean=known[0], low=min(known), high=max(known)) if known else None

    spreads: dict[Side, Spreads] = {}
    sides: dict[Side, list[LayerSpread]] = {"harmful": reading.harmful_along, "harmless": reading.harmless_along}
    for side, found in sides.items():
        moved = [spread(layer, each) for layer, each in enumerate(found)]
        if all(each is not None for each in moved):
            spreads[side] = tuple(each for each in moved if each is not None)
    return ReadPrompt(
        reading.role,
        tuple(at(layer, value) for layer, value in enumerate(reading.along)),
        tuple(reading.along),
        tuple(reading.odds),
        spreads,
        _odds_spread(reading),
    )


def rows(info: PromptLayersInfo) -> list[dict[str, str | int | float | None]]:
    """What is drawn as a table: one row a model and layer."""
    return [
        {
            "role": each.role,
            "layer": layer,
            "along the direction": each.raw[layer],
            "0 harmless, 1 harmful": each.along[layer] if info.scaled else None,
            "refusal log-odds, nats": each.odds[layer] if each.odds else None,
        }
        for each in info.models
        for layer in range(len(each.raw))
    ]


def plot(info: PromptLayersInfo, *, dark: bool = False) -> go.Figure:
    """How far the prompt lies along the direction, layer by layer."""
    figure = go.Figure()
    for each in info.models:
        if len(info.models) == 1:
            _add_spreads(figure, each.along_spread)
        texts = [
            theme.hover(
                role_name(each.role), [f"layer {layer}: {number(value)}", f"in the stream's unit {number(raw)}"]
            )
            for layer, (value, raw) in enumerate(zip(each.along, each.raw, strict=True))
        ]
        _add_line(figure, each.role, each.along, texts)
    if info.scaled:
        for height, words in ((0.0, "harmless"), (1.0, "harmful")):
            figure.add_hline(height, line={"color": theme.MUTED, "width": 1, "dash": "dot"}, annotation_text=words)
    theme.frame(
        figure,
        info.title,
        f"Along {info.direction}. {_scale_words(info)}",
        plot_height=300,
        legend_rows=2,
    )
    figure.update_yaxes(title_text="0 harmless, 1 harmful" if info.scaled else "along the direction")
    if info.scaled:
        known = [value for each in info.models for value in each.along if value is not None]
        figure.update_yaxes(range=[max(SHOWN[0], min(-0.2, *known)), min(SHOWN[1], max(1.2, *known))])
    return _layered(figure, dark)


def plot_lens(info: PromptLayersInfo, *, dark: bool = False) -> go.Figure:
    """The refusal log-odds that the model's own end reads off the residual stream after each layer."""
    figure = go.Figure()
    for each in info.lens:
        if len(info.lens) == 1:
            _add_spreads(figure, each.odds_spread)
        texts = [
            theme.hover(role_name(each.role), [f"layer {layer}: {signed(value)} nats"])
            for layer, value in enumerate(each.odds)
        ]
        _add_line(figure, each.role, each.odds, texts)
    figure.add_hline(0.0, line={"color": theme.MUTED, "width": 1, "dash": "dot"})
    theme.frame(
        figure,
        info.lens_title,
        "By the logit lens: refusal log-odds of the next token behind the prompt, if the model ended after that layer. "
        "Above 0 a refusal is likelier than anything else. Middle layers were not trained to be read so.",
        plot_height=300,
        legend_rows=2,
    )
    figure.update_yaxes(title_text="log-odds, nats")
    return _layered(figure, dark)


def _scale_words(info: PromptLayersInfo) -> str:
    if not info.scaled:
        return "In the residual stream's own unit: there are no report prompts to set it against."
    bands = "; bands hold the middle 80% of each" if len(info.models) == 1 else ""
    return (
        f"0 is the mean of harmless report prompts under the same model, 1 that of harmful ones{bands}. Where the two "
        "hardly differ the scale says little, and the axis ends before it does."
    )


def _layered(figure: go.Figure, dark: bool) -> go.Figure:
    figure.update_xaxes(title_text="after layer")
    blocks.link_layers(figure, "x")
    return theme.shown(figure, dark)


def _add_spreads(figure: go.Figure, spreads: dict[Side, Spreads]) -> None:
    for side, found in spreads.items():
        layers = list(range(len(found)))
        figure.add_trace(
            go.Scatter(
                name=f"{side} prompts, middle 80%",
                x=layers + layers[::-1],
                y=[each.high for each in found] + [each.low for each in reversed(found)],
                fill="toself",
                fillcolor=theme.tint(theme.SIDE_COLOURS[side], 0.25),
                line={"width": 0},
                mode="lines",
                hoverinfo="skip",
            )
        )


def _add_line(figure: go.Figure, role: str, values: Sequence[float | None], texts: Sequence[str]) -> None:
    figure.add_trace(
        go.Scatter(
            name=theme.safe(role_name(role)),
            x=list(range(len(values))),
            y=list(values),
            mode="lines+markers",
            line={"color": theme.role_colour(role), "width": 2.4},
            marker={"size": 5},
            hovertext=list(texts),
            hoverinfo="text",
        )
    )
