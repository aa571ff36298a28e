"""A slider over prices of an over-refusal: what each is predicted to buy, its coefficients, and what writes it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from vlsurgery.figures import theme
from vlsurgery.figures.behaviour import ends
from vlsurgery.figures.blocks import BlockAxis, block_axis, wanted_blocks
from vlsurgery.figures.choice import one_of
from vlsurgery.figures.frontier import NO_PRICES
from vlsurgery.figures.wording import MODALITY_ORDER, SET_ORDER, cell_name, number, percent, rank, rate_words
from vlsurgery.probes.results import PredictedCell, PredictedLimit, PricedMerge, Rate, TradeoffResult
from vlsurgery.surgery.errors import SurgeryError

USUAL_PRICE: Final = 2.0
ANCHOR: Final = "price"
_WORDS = {"refuse": "refused", "answer": "refused, though harmless", "keep": "own answers that stay likely"}
_COLOURS = {"refuse": theme.ROLE_COLOURS["merged"], "answer": theme.ROLE_COLOURS["adapted"], "keep": "#4b3f92"}
_LINE = 26  # pixels a row


@dataclass(frozen=True)
class PriceInfo:
    """points: from cheap to dear. start: the position at first. sources: what is mixed in. extrapolated: whether
    coefficients might exceed 1. limits: the user's, of cells that are shown."""

    points: tuple[PricedMerge, ...]
    start: int
    axis: BlockAxis
    sources: tuple[str, ...]
    extrapolated: bool
    limits: tuple[PredictedLimit, ...] = ()

    @property
    def commands(self) -> tuple[str, ...]:
        """What writes the merge of each position."""
        options = (
            " --toward safety" if "base" not in self.sources else " --toward base" if len(self.sources) == 1 else ""
        )
        options += " --extrapolate" if self.extrapolated else ""
        return tuple(f"vlsurgery merge --auto --price {point.price:g}{options}" for point in self.points)


def compute(tradeoff: TradeoffResult, price: float | None = None, layers: Sequence[int] | None = None) -> PriceInfo:
    """Every price that was solved. It starts at `price`; for None at the price that was merged, else at the usual one.
    See `plot` for what can be chosen. Raises SurgeryError where no other prices are known."""
    if tradeoff.frontier is None:
        raise SurgeryError(NO_PRICES)
    points = tuple(tradeoff.frontier.points)
    merged = tradeoff.chosen()
    if price is None:
        wanted = merged.parameters.get("price", USUAL_PRICE) if merged else USUAL_PRICE
    else:
        wanted = float(one_of("price", f"{price:g}", (f"{point.price:g}" for point in points)))
    start = min(range(len(points)), key=lambda at: abs(points[at].price - wanted))
    axis = block_axis(wanted_blocks(dict.fromkeys(points[0].coefficients, 0.0), layers, None))
    sources = tuple(dict.fromkeys(source for row in points[0].coefficients.values() for source in row))
    cells = {(cell.set, cell.modality) for cell in points[0].cells}
    limits = tuple(e for e in tradeoff.limits if e.share is not None and (e.set, e.modality) in cells)
    return PriceInfo(points, start, axis, sources, tradeoff.frontier.extrapolated, limits)


def _shares(point: PricedMerge) -> go.Scatter:
    """Each cell's predicted share with its interval, downwards."""
    known = [cell for cell in point.cells if cell.share.rate is not None]
    values = [cell.share.rate or 0.0 for cell in known]
    return go.Scatter(
        mode="markers",
        x=values,
        y=[_row(cell) for cell in known],
        marker={"size": 10, "color": [_COLOURS[cell.purpose] for cell in known]},
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [(c.share.high or v) - v for c, v in zip(known, values, strict=True)],
            "arrayminus": [v - (v if c.share.low is None else c.share.low) for c, v in zip(known, values, strict=True)],
            "color": theme.FAINT,
            "thickness": 1.5,
            "width": 4,
        },
        hovertext=[theme.hover(_row(cell), [rate_words(cell.share)]) for cell in known],
        hoverinfo="text",
        showlegend=False,
        cliponaxis=False,
    )


def _row(cell: PredictedCell) -> str:
    return theme.safe(f"{cell_name(cell.set, cell.modality)}: {_WORDS[cell.purpose]}")


def _limits(info: PriceInfo) -> go.Scatter:
    """The share that each limit asks for, as a line across its cell's row."""
    rows = {(cell.set, cell.modality): _row(cell) for cell in info.points[0].cells}
    words = [f"{'at least' if e.at_least else 'at most'} {percent(e.share or 0.0)} here" for e in info.limits]
    return go.Scatter(
        name="your limits",
        mode="markers",
        x=[each.share for each in info.limits],
        y=[rows[each.set, each.modality] for each in info.limits],
        marker={"symbol": "line-ns", "size": 11, "line": {"width": 2, "color": theme.INK}},
        hovertext=[
            theme.hover(f"{each.set}.{each.modality} {each.limit} = {number(each.bound)}", [told])
            for each, told in zip(info.limits, words, strict=True)
        ],
        hoverinfo="text",
        cliponaxis=False,
    )


def _place(cell: PredictedCell) -> tuple[object, ...]:
    return rank(SET_ORDER, cell.set), rank(MODALITY_ORDER, cell.modality)


def _title(info: PriceInfo) -> str:
    """What the laxest and the strictest price are predicted to do."""
    ends = [(point.rates.over_refusal.rate, point.rates.refusal.rate) for point in (info.points[0], info.points[-1])]
    told = [" to ".join("–" if rate is None else percent(rate) for rate in each) for each in zip(*ends, strict=True)]
    return f"Predicted from the lowest to the highest price: over-refusal {told[0]}, refusal {told[1]}"


def _bars(info: PriceInfo, point: PricedMerge, source: str) -> go.Bar:
    places = sorted(info.axis.places.values(), key=lambda place: place.x)
    values = [point.coefficients[place.block][source] for place in places]
    told = [theme.hover(p.block, [f"{number(v)} toward {source}"]) for p, v in zip(places, values, strict=True)]
    return go.Bar(
        name=theme.safe(f"toward {source}"),
        x=[place.x for place in places],
        y=values,
        width=info.axis.bar_width,
        marker={"color": theme.source_colours(info.sources)[source], "line": {"width": 0}},
        hovertext=told,
        hoverinfo="text",
    )


def _traces(info: PriceInfo, at: int) -> list[go.Scatter | go.Bar]:
    point = info.points[at]
    return [_shares(point), *(_bars(info, point, source) for source in info.sources)]


def _slider(info: PriceInfo) -> dict[str, object]:
    shown = {"mode": "immediate", "frame": {"duration": 0, "redraw": True}, "transition": {"duration": 0}}
    return {
        "active": info.start,
        "currentvalue": {"prefix": "missing refusals that one over-refusal costs: ", "xanchor": "left"},
        "steps": [
            {"label": f"{point.price:g}", "method": "animate", "args": [[f"{point.price:g}"], shown]}
            for point in info.points
        ],
        "pad": {"t": 52},
        "len": 1,
        "x": 0,
        "font": {"size": 11.5, "color": theme.MUTED},
    }


def draw(info: PriceInfo) -> go.Figure:
    """Predicted shares on the left, coefficients on the right, a slider below; a frame a price."""
    figure = make_subplots(rows=1, cols=2, column_widths=[0.42, 0.58], horizontal_spacing=0.1)
    first = _traces(info, info.start)
    for trace, column in zip(first, [1, *[2] * (len(first) - 1)], strict=True):
        figure.add_trace(trace, row=1, col=column)
    if info.limits:
        figure.add_trace(_limits(info), row=1, col=1)
    figure.frames = [
        go.Frame(name=f"{point.price:g}", data=_traces(info, at), traces=list(range(len(first))))
        for at, point in enumerate(info.points)
    ]
    rows = [_row(cell) for cell in sorted(info.points[0].cells, key=_place)]
    subtitle = (
        "Predicted from the gradients of fit prompts, each by coefficients that its request had no part in, with 95%"
        " intervals. Green: should be high. Orange: should be low. Violet: sight, should be high. Move the"
        " slider to see others."
    )
    if info.limits:
        subtitle += " A line across a row is your limit."
    theme.frame(figure, _title(info), subtitle, max(240, _LINE * len(rows)), legend_rows=1, panels=True)
    figure.update_layout(barmode="stack")
    theme.add_slider(figure, _slider(info))
    figure.update_xaxes(range=[-0.02, 1.02], tickformat=".0%", showgrid=True, row=1, col=1)
    figure.update_yaxes(categoryorder="array", categoryarray=rows[::-1], tickfont={"size": 11.5}, row=1, col=1)
    info.axis.show(figure, row=1, col=2)
    most = max(sum(point.coefficients[block].values()) for point in info.points for block in info.axis.places)
    figure.update_xaxes(title_text="layer; at the ends, blocks outside layers", row=1, col=2)
    figure.update_yaxes(title_text="coefficient", range=[0, max(0.1, 1.05 * most)], row=1, col=2)
    theme.panel_title(figure, "Predicted", 1, 1)
    theme.panel_title(figure, "Coefficient of each block", 1, 2)
    return figure


def rows(info: PriceInfo) -> list[dict[str, str | int | float | None]]:
    """What is drawn: a record a limit; then at every price a record a predicted share, and one a block."""
    told: list[dict[str, str | int | float | None]] = []
    for limit in info.limits:
        at = {f"share{end}": value for end, value in ends(Rate(rate=limit.share)).items()}
        told.append({"price": None, "what": limit.limit, "set": limit.set, "modality": limit.modality, **at})
    for point in info.points:
        for cell in sorted(point.cells, key=_place):
            shares = {f"share{end}": value for end, value in ends(cell.share).items()}
            where = {"set": cell.set, "modality": cell.modality}
            told.append({"price": point.price, "what": _WORDS[cell.purpose], **where, **shares})
        for place in sorted(info.axis.places.values(), key=lambda each: each.x):
            toward = {f"toward {source}": value for source, value in point.coefficients[place.block].items()}
            told.append({"price": point.price, "what": "coefficient", "block": place.block, **toward})
    return told


def plot(
    tradeoff: TradeoffResult, price: float | None = None, layers: Sequence[int] | None = None, dark: bool = False
) -> go.Figure:
    """The slider of a choice.

    price: where it starts; None for the price that was merged. layers: whose blocks; None for all, and those outside
    layers. dark: for dark paper. Raises SurgeryError where there is no such price or layer.
    """
    return theme.shown(draw(compute(tradeoff, price, layers)), dark)
