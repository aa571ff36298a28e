"""What every price of an over-refusal buys: refusal and sight against over-refusal, predicted and measured, beside the
uniform merges and the models that are merged."""

from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from vlsurgery.figures import theme
from vlsurgery.figures.behaviour import ends
from vlsurgery.figures.choice import chosen
from vlsurgery.figures.wording import listed, percent, points, rate_words
from vlsurgery.probes.results import Estimate, MergeRates, PricedMerge, Rate, TradeoffPoint, TradeoffResult
from vlsurgery.surgery.errors import SurgeryError

EDGE = 1.2  # how far beyond the furthest merge of interest the axis of over-refusal goes
SHORTEST = 0.1  # of that axis
MEASURES = {"refusal": "harmful requests refused", "sight": "own answers that stay likely"}
NO_PRICES = "No merges at other prices are known. This makes them: vlsurgery merge --auto --policy best --frontier"
_BAND = 0.13


@dataclass(frozen=True)
class NamedMerge:
    """A model that is merged, or the merge that was chosen, with its rates on `select`."""

    name: str
    role: str
    rates: MergeRates


@dataclass(frozen=True)
class FrontierInfo:
    """measures: what is held against over-refusal. predicted: from cheap to dear. measured: of these, those that were,
    as (price, rates). uniform: their front, by over-refusal. gain: of the measured ones over that front. end: where the
    axis of over-refusal ends."""

    measures: tuple[str, ...]
    predicted: tuple[PricedMerge, ...]
    measured: tuple[tuple[float, MergeRates], ...]
    uniform: tuple[tuple[str, MergeRates], ...]
    references: tuple[NamedMerge, ...]
    gain: Estimate
    end: float

    @property
    def beyond(self) -> tuple[NamedMerge, ...]:
        """Models that over-refuse more than the axis shows."""
        return tuple(each for each in self.references if _x(each.rates) > self.end)


def is_drawable(tradeoff: TradeoffResult) -> bool:
    """Whether other prices are known: policies without gradients know none."""
    return tradeoff.frontier is not None and bool(tradeoff.frontier.points)


def compute(
    tradeoff: TradeoffResult, measures: Sequence[str] | None = None, references: Sequence[str] | None = None
) -> FrontierInfo:
    """Predicted and measured merges at other prices, and what they are held against. See `plot` for what can be
    chosen. Raises SurgeryError where no other prices are known."""
    if tradeoff.frontier is None:
        raise SurgeryError(NO_PRICES)
    predicted = tuple(tradeoff.frontier.points)
    known = [(point, point.rates) for point in tradeoff.points if point.rates is not None]
    measured = [(p.parameters["price"], rates) for p, rates in known if p.policy == "frontier"]
    uniform = [(point, rates) for point, rates in known if point.policy == "uniform"]
    front = _front(uniform)
    shown = [_x(rates) for _, rates in [*measured, *front]] + [_x(each.rates) for each in predicted]
    models = _references(tradeoff, uniform)
    of_role = chosen("references", references, (each.role for each in models))
    return FrontierInfo(
        chosen("measures", measures, MEASURES),
        predicted,
        tuple(sorted(measured, key=lambda each: each[0])),
        tuple((_strengths(point), rates) for point, rates in front),
        tuple(each for each in models if each.role in of_role),
        tradeoff.frontier.gain,
        max(SHORTEST, EDGE * max(shown)),
    )


def _x(rates: MergeRates) -> float:
    return rates.over_refusal.rate or 0.0


def _strengths(point: TradeoffPoint) -> str:
    return ", ".join(f"{value:.2f} toward {source}" for source, value in point.parameters.items())


def _front(uniform: Sequence[tuple[TradeoffPoint, MergeRates]]) -> list[tuple[TradeoffPoint, MergeRates]]:
    """The uniform merges that no other is ahead of, by over-refusal."""
    front, most = [], -1.0
    for point, rates in sorted(uniform, key=lambda each: (_x(each[1]), -(each[1].refusal.rate or 0.0))):
        if (rates.refusal.rate or 0.0) > most:
            most = rates.refusal.rate or 0.0
            front.append((point, rates))
    return front


def _references(tradeoff: TradeoffResult, uniform: Sequence[tuple[TradeoffPoint, MergeRates]]) -> list[NamedMerge]:
    """The corners of the uniform merges: nothing mixed in, or one source alone; and the merge that was chosen."""
    found = []
    for point, rates in uniform:
        whole = [source for source, value in point.parameters.items() if value == 1]
        if not any(point.parameters.values()):
            found.append(NamedMerge("adapted", "adapted", rates))
        elif whole:
            name = "graft (base's language model)" if whole[0] == "base" else f"{whole[0]}'s language model"
            found.append(NamedMerge(name, "graft" if whole[0] == "base" else whole[0], rates))
    chosen = tradeoff.chosen()
    if chosen is not None and chosen.rates is not None:
        found.append(NamedMerge(f"merged ({chosen.policy})", "merged", chosen.rates))
    return found


def _told(title: str, rates: MergeRates) -> str:
    lines = [f"{name} {rate_words(share)}" for name, share in _named(rates)]
    return theme.hover(title, lines)


def _named(rates: MergeRates) -> list[tuple[str, Rate]]:
    return [("refusal", rates.refusal), ("over-refusal", rates.over_refusal), ("sight", rates.sight)]


def _errors(shares: Sequence[Rate], colour: str) -> dict[str, object]:
    known = [(share.rate, share.low, share.high) for share in shares]
    return {
        "type": "data",
        "symmetric": False,
        "array": [0.0 if high is None or rate is None else high - rate for rate, _, high in known],
        "arrayminus": [0.0 if low is None or rate is None else rate - low for rate, low, _ in known],
        "color": theme.tint(colour, 0.5),
        "thickness": 1,
        "width": 2,
    }


def _curve(figure: go.Figure, info: FrontierInfo, measure: str, column: int) -> None:
    """The predicted curve and its band."""
    shares = [(each, getattr(each.rates, measure)) for each in info.predicted]
    known = [(each, share) for each, share in shares if share.rate is not None]
    colour = theme.role_colour("merged")
    x = [_x(each.rates) for each, _ in known]
    low = [share.rate if share.low is None else share.low for _, share in known]
    high = [share.rate if share.high is None else share.high for _, share in known]
    where = {"row": 1, "col": column}
    figure.add_trace(
        go.Scatter(
            x=x + x[::-1],
            y=high + low[::-1],
            fill="toself",
            fillcolor=theme.tint(colour, _BAND),
            line={"width": 0},
            mode="lines",
            hoverinfo="skip",
            showlegend=False,
        ),
        **where,
    )
    figure.add_trace(
        go.Scatter(
            name="block by block, predicted with its 95% band",
            mode="lines+markers",
            x=x,
            y=[share.rate for _, share in known],
            line={"color": colour, "width": 1.5, "dash": "dot"},
            marker={"size": 4, "color": colour},
            hovertext=[_told(f"predicted at price {each.price:g}", each.rates) for each, _ in known],
            customdata=[f"{each.price:g}" for each, _ in known],
            hoverinfo="text",
            showlegend=column == 1,
        ),
        **where,
    )


def _measured(
    figure: go.Figure, merges: Sequence[tuple[str, MergeRates]], measure: str, column: int, name: str, role: str
) -> None:
    """Merges that were measured, with intervals, joined in their order."""
    known = [(title, rates, getattr(rates, measure)) for title, rates in merges]
    known = [each for each in known if each[2].rate is not None]
    if not known:
        return
    colour = theme.role_colour(role)
    figure.add_trace(
        go.Scatter(
            name=name,
            mode="lines+markers",
            x=[_x(rates) for _, rates, _ in known],
            y=[share.rate for *_, share in known],
            error_y=_errors([share for *_, share in known], colour),
            line={"color": colour, "width": 1.5},
            marker={"size": 8, "color": colour, "symbol": "square" if role == "merged:uniform" else "circle"},
            hovertext=[_told(title, rates) for title, rates, _ in known],
            hoverinfo="text",
            showlegend=column == 1,
        ),
        row=1,
        col=column,
    )


def _models(figure: go.Figure, info: FrontierInfo, measure: str, column: int) -> None:
    """The models that are merged, and the merge that was chosen, ringed."""
    for each in info.references:
        share: Rate = getattr(each.rates, measure)
        if share.rate is None or each in info.beyond:
            continue
        chosen = each.role == "merged"
        colour = theme.role_colour(each.role)
        figure.add_trace(
            go.Scatter(
                name=theme.safe(each.name),
                mode="markers",
                x=[_x(each.rates)],
                y=[share.rate],
                marker={
                    "size": 15 if chosen else 12,
                    "symbol": "circle-open" if chosen else "diamond",
                    "color": theme.INK if chosen else colour,
                    "line": {"width": 2 if chosen else 0},
                },
                hovertext=[_told(each.name, each.rates)],
                hoverinfo="text",
                showlegend=column == 1,
                cliponaxis=False,
            ),
            row=1,
            col=column,
        )


def _title(info: FrontierInfo) -> str:
    """What the measured merges gain, where their interval carries it."""
    gain = info.gain
    if gain.value is None or gain.low is None or gain.high is None:
        return "What each price of an over-refusal is predicted to buy"
    if gain.low > 0:
        return f"At equal over-refusal, block by block refuses more than uniform: {points(gain.value)}"
    if gain.high < 0:
        return f"At equal over-refusal, block by block refuses less than uniform: {points(gain.value)}"
    return "At equal over-refusal, no clear difference of block-by-block and uniform merges"


def _subtitle(info: FrontierInfo) -> str:
    gain = info.gain
    sentences = ["Up and left is better. Each point of a curve is a merge at one price, from lax (right) to strict."]
    if gain.value is None:
        sentences.append(f"Nothing is said of uniform merges: {gain.reason}.")
    else:
        sentences.append(
            f"Measured on select prompts, over {gain.n} requests: {points(gain.value, gain.low, gain.high)} of refusal"
            " above the uniform front, on average."
        )
    if info.beyond:
        told = [
            f"{e.name} ({percent(_x(e.rates))}, refusal {percent(e.rates.refusal.rate or 0.0)})" for e in info.beyond
        ]
        sentences.append(f"Further right: {listed(told)}.")
    return " ".join(sentences)


def draw(info: FrontierInfo) -> go.Figure:
    """Refusal against over-refusal on the left, sight against over-refusal on the right."""
    widths = [0.58, 0.42] if len(info.measures) > 1 else [1.0]
    figure = make_subplots(rows=1, cols=len(widths), column_widths=widths, horizontal_spacing=0.11)
    priced = [(f"measured at price {price:g}", rates) for price, rates in info.measured]
    for column, measure in enumerate(info.measures, start=1):
        _curve(figure, info, measure, column)
        _measured(figure, priced, measure, column, "block by block, measured", "merged")
        _measured(figure, info.uniform, measure, column, "front of uniform merges, measured", "merged:uniform")
        _models(figure, info, measure, column)
    theme.frame(figure, _title(info), _subtitle(info), plot_height=340, legend_rows=3, panels=True)
    theme.note(figure, moves="price")
    figure.update_xaxes(
        title_text="harmless requests refused",
        range=[-0.04 * info.end, info.end],
        tickformat=".0%" if info.end > 0.2 else ".1%",
        showgrid=True,
    )
    figure.update_yaxes(tickformat=".0%", range=[-0.02, 1.03])
    for column, measure in enumerate(info.measures, start=1):
        figure.update_yaxes(title_text=MEASURES[measure], row=1, col=column)
        theme.panel_title(figure, measure.capitalize(), 1, column)
    return figure


def rows(info: FrontierInfo) -> list[dict[str, str | int | float | None]]:
    """What is drawn, a record a merge or model; shares from 0 to 1 with their 95% intervals."""
    named: list[tuple[str, str, float | None, MergeRates]] = [
        *(("predicted", "block by block", each.price, each.rates) for each in info.predicted),
        *(("measured", "block by block", price, rates) for price, rates in info.measured),
        *(("measured", f"uniform: {name}", None, rates) for name, rates in info.uniform),
        *(("measured", each.name, None, each.rates) for each in info.references),
    ]
    return [
        {"how": how, "what": what, "price": price}
        | {f"{name}{end}": value for name, share in _named(rates) for end, value in ends(share).items()}
        for how, what, price, rates in named
    ]


def plot(
    tradeoff: TradeoffResult,
    measures: Sequence[str] | None = None,
    references: Sequence[str] | None = None,
    dark: bool = False,
) -> go.Figure:
    """The frontier of a choice.

    measures: "refusal", "sight" or both (None), each a panel. references: roles of the models that stand beside the
    curves; all for None, and "merged" for the merge that was chosen. dark: for dark paper. Raises SurgeryError where
    there is none of that name, or no other prices are known.
    """
    return theme.shown(draw(compute(tradeoff, measures, references)), dark)
