"""What blocks of the merge bring: the merge without each, measured on `select` prompts, beside the prediction."""

from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from vlsurgery.figures import theme
from vlsurgery.figures.blocks import block_axis, link_layers, split, wanted_blocks
from vlsurgery.figures.choice import one_of
from vlsurgery.figures.wording import listed, number, signed
from vlsurgery.probes.results import BlockEffect, Estimate, TradeoffResult

ANCHOR = "block-effects"
ORDERS = ("measured", "predicted", "layer")
_NAMED = 6  # blocks of a sentence
_ROW = 30  # pixels a block
_PARTS = {"refusal": "refusing", "answers": "answering what is harmless", "sight": "the adapted model's own answers"}


@dataclass(frozen=True)
class EffectsInfo:
    """effects: from most to least, or in the order that was asked for. coefficients: block -> source -> coefficient in
    the merge."""

    effects: tuple[BlockEffect, ...]
    coefficients: dict[str, dict[str, float]]

    @property
    def clear(self) -> tuple[str, ...]:
        """The blocks whose interval is above 0."""
        return tuple(each.block for each in self.effects if each.gain.low is not None and each.gain.low > 0)

    @property
    def parted(self) -> tuple[str, ...]:
        """The blocks whose prediction lies outside of the measurement's interval."""
        known = [(each, each.gain.low, each.gain.high) for each in self.effects]
        return tuple(
            each.block
            for each, low, high in known
            if low is not None and high is not None and not low <= each.predicted <= high
        )


def compute(
    tradeoff: TradeoffResult, layers: Sequence[int] | None = None, top: int | None = None, sort: str = "measured"
) -> EffectsInfo:
    """What the blocks of the merge bring. See `plot` for what can be chosen."""
    merged = tradeoff.chosen()
    place = one_of("sort", sort, ORDERS)
    sizes = {each.block: each.gain.value or 0.0 for each in tradeoff.effects}
    shown = wanted_blocks(sizes, layers, top)
    axis = block_axis(shown).places
    effects = [each for each in tradeoff.effects if each.block in shown]
    if place == "predicted":
        effects.sort(key=lambda each: -each.predicted)
    if place == "layer":
        effects.sort(key=lambda each: axis[each.block].x)
    return EffectsInfo(tuple(effects), (merged.coefficients if merged else None) or {})


def _told(found: Estimate) -> str:
    if found.value is None:
        return f"not measured ({found.reason})"
    ends = "" if found.low is None or found.high is None else f" ({signed(found.low)} to {signed(found.high)})"
    return f"{signed(found.value)}{ends} nats"


def _hover(info: EffectsInfo, each: BlockEffect) -> str:
    mixed = info.coefficients.get(each.block, {})
    lines = [
        f"brings {_told(each.gain)}, {each.gain.n} requests",
        f"predicted {signed(each.predicted)}",
        *(f"{words}: {_told(getattr(each, part))}" for part, words in _PARTS.items()),
        ", ".join(f"{number(value)} toward {source}" for source, value in mixed.items()),
    ]
    return theme.hover(each.block, lines)


def _title(info: EffectsInfo) -> str:
    if not info.clear:
        return "Of no block is it clear that the merge needs it"
    named = f"{listed(list(info.clear[:3]))}{' and others' if len(info.clear) > 3 else ''}"
    return f"Without {named} the merge would be worse"


def _measured(info: EffectsInfo) -> go.Scatter:
    gains = [each.gain for each in info.effects]
    values = [gain.value or 0.0 for gain in gains]
    return go.Scatter(
        name="measured, with its 95% interval",
        mode="markers",
        x=values,
        y=[theme.safe(each.block) for each in info.effects],
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [0.0 if g.high is None else g.high - value for g, value in zip(gains, values, strict=True)],
            "arrayminus": [0.0 if g.low is None else value - g.low for g, value in zip(gains, values, strict=True)],
            "color": theme.FAINT,
            "thickness": 1.5,
            "width": 4,
        },
        marker={"size": 11, "color": [theme.KIND_COLOURS[split(each.block)[1]] for each in info.effects]},
        hovertext=[_hover(info, each) for each in info.effects],
        hoverinfo="text",
    )


def _predicted(info: EffectsInfo) -> go.Scatter:
    return go.Scatter(
        name="predicted by the gradients of fit prompts",
        mode="markers",
        x=[each.predicted for each in info.effects],
        y=[theme.safe(each.block) for each in info.effects],
        marker={"size": 10, "symbol": "diamond-open", "color": theme.INK, "line": {"width": 1.5}},
        hovertext=[_hover(info, each) for each in info.effects],
        hoverinfo="text",
    )


def draw(info: EffectsInfo) -> go.Figure:
    """A row a block, the one that brings most on top."""
    figure = go.Figure([_measured(info), _predicted(info)])
    named = [*info.parted[:_NAMED], *([f"{len(info.parted) - _NAMED} more"] if len(info.parted) > _NAMED else [])]
    parted = f" Predicted outside of the interval: {listed(named)}." if named else ""
    subtitle = (
        "How much worse the objective is when one block stays as it was adapted, on select prompts. Blue-grey:"
        f" attention; sand: MLP. Right of 0 the merge needs the block.{parted}"
    )
    theme.frame(figure, _title(info), subtitle, max(150, _ROW * len(info.effects)), legend_rows=1)
    figure.add_vline(x=0, line={"color": theme.MUTED, "width": 1})
    figure.update_xaxes(title_text="nats of the objective", showgrid=True)
    rows = [theme.safe(each.block) for each in info.effects]
    figure.update_yaxes(
        categoryorder="array", categoryarray=rows[::-1], range=[-0.7, len(rows) - 0.3], tickfont={"size": 12}
    )
    places = {each.block: float(len(rows) - 1 - at) for at, each in enumerate(info.effects)}
    link_layers(figure, "y", places)
    return figure


def rows(info: EffectsInfo) -> list[dict[str, str | int | float | None]]:
    """What is drawn, a record a block, in nats of the objective."""
    return [
        {
            "block": each.block, "layer": split(each.block)[0], "measured": each.gain.value, "low": each.gain.low,
            "high": each.gain.high, "requests": each.gain.n, "predicted": each.predicted,
            **{words: getattr(each, part).value for part, words in _PARTS.items()},
            **{f"toward {source}": value for source, value in info.coefficients.get(each.block, {}).items()},
        }
        for each in info.effects
    ]  # fmt: skip


def plot(
    tradeoff: TradeoffResult,
    layers: Sequence[int] | None = None,
    top: int | None = None,
    sort: str = "measured",
    dark: bool = False,
) -> go.Figure:
    """What blocks of the merge bring.

    layers: whose blocks; None for all, and those outside layers. top: only as many blocks, those that bring most. sort:
    by "measured", "predicted" or "layer". dark: for dark paper. Raises SurgeryError where the result holds none of that
    name.
    """
    return theme.shown(draw(compute(tradeoff, layers, top, sort)), dark)
