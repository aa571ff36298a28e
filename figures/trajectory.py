"""A training run: refusals over steps, and below them how far every block had moved."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from vlsurgery.figures import theme
from vlsurgery.figures.blocks import block_axis, wanted_blocks
from vlsurgery.figures.choice import chosen, one_of
from vlsurgery.figures.embedding import embed
from vlsurgery.figures.page import render
from vlsurgery.figures.wording import (
    MODALITY_ORDER,
    SET_ORDER,
    cell_name,
    cell_phrase,
    number,
    percent,
    plural,
    rank,
    rate_words,
)
from vlsurgery.probes.evaluation.thresholds import enough
from vlsurgery.probes.trajectory_results import BlockPoint, Departure, RefusalPoint, RunPoint, TrajectoryResult

Measure = Literal["relative", "share"]
SET_COLOURS: Mapping[str, str] = {
    "harmful": "#8c2d04", "jailbroken": "#d98a3d", "harmless": "#2a6f97", "borderline": "#7fb5d1",
}  # fmt: skip
MEASURES: Mapping[str, str] = {"relative": "change over the base's norm", "share": "share of its final change"}


@dataclass(frozen=True)
class RunSeries:
    """One prompt set with one kind of picture along the run, in the order of its points."""

    set: str
    modality: str
    points: tuple[RefusalPoint, ...]

    @property
    def name(self) -> str:
        return cell_name(self.set, self.modality)


@dataclass(frozen=True)
class TrajectoryInfo:
    """What the figure shows. ticks: a label for each model, at 0, 1, 2, ... blocks: from the bottom up. moved: block ->
    its points. departure: the one that the title tells."""

    ticks: tuple[str, ...]
    series: tuple[RunSeries, ...]
    blocks: tuple[str, ...]
    moved: Mapping[str, tuple[BlockPoint, ...]]
    departure: Departure | None

    @property
    def has_rates(self) -> bool:
        return any(point.refused is not None and point.at > 0 for each in self.series for point in each.points)


def compute(
    result: TrajectoryResult,
    sets: Sequence[str] | None = None,
    modalities: Sequence[str] | None = None,
    layers: Sequence[int] | None = None,
    top: int | None = None,
) -> TrajectoryInfo:
    """Gather sets and kinds of picture, and blocks. See `plot` for what can be chosen."""
    of_set = chosen("sets", sets, (each.set for each in result.records))
    of_kind = chosen("modalities", modalities, (each.modality for each in result.records))
    cells = dict.fromkeys(
        (each.set, each.modality) for each in result.records if each.set in of_set and each.modality in of_kind
    )
    ordered = sorted(cells, key=lambda cell: (rank(SET_ORDER, cell[0]), rank(MODALITY_ORDER, cell[1])))
    series = tuple(
        RunSeries(set_, modality, tuple(p for p in result.records if (p.set, p.modality) == (set_, modality)))
        for set_, modality in ordered
    )
    furthest: dict[str, float] = {}
    for each in result.blocks:
        furthest[each.block] = max(furthest.get(each.block, 0.0), each.relative or 0.0)
    places = block_axis(wanted_blocks(furthest, layers, top)).places
    blocks = tuple(sorted(places, key=lambda block: places[block].x))
    moved = {block: tuple(each for each in result.blocks if each.block == block) for block in blocks}
    told = [each for each in result.departures if enough(each.requests)]
    return TrajectoryInfo(_ticks(result.points), series, blocks, moved, told[0] if told else None)


def _ticks(points: Sequence[RunPoint]) -> tuple[str, ...]:
    return tuple("base" if point.step is None else f"{point.step:,}" for point in points)


def _title(info: TrajectoryInfo) -> str:
    found = info.departure
    if found is None:
        return "Refusals and weights along the run: too few requests for a claim"
    place = cell_phrase(found.set, found.modality)
    if found.fell is None:
        return f"Refusals of {place} did not leave"
    if found.half is None:
        return f"Refusals of {place} fell by step {found.fell:,} and came back"
    if found.half_after is None:
        return f"Refusals of {place} were half gone at the first checkpoint, step {found.half:,}"
    return f"Refusals of {place} were half gone between steps {found.half_after:,} and {found.half:,}"


def _subtitle(info: TrajectoryInfo) -> str:
    counts = sorted({point.log_odds.n for each in info.series for point in each.points})
    requests = plural(counts[-1], "request") if len(counts) == 1 else f"{counts[0]} to {counts[-1]} requests"
    return (
        "Log-odds that a completion begins as the base's refusals do: mean and 95% interval over "
        f"{requests} a set. Below, how far each block is from the base. Weight change hardly says where safety went: "
        "it tells when blocks moved, not which of them cost refusals."
    )


def _hover(each: RunSeries, point: RefusalPoint) -> str:
    odds, drop = point.log_odds, point.drop
    lines = [f"log-odds {number(odds.value)} nats ({number(odds.low)} to {number(odds.high)})"]
    if drop.value is not None:
        lines.append(f"drop from the base {number(drop.value)} ({number(drop.low)} to {number(drop.high)})")
    lines.append(f"begins as a refusal: {rate_words(point.opens_refusing)}")
    if point.refused is not None and point.complied is not None:
        lines += [f"refused {rate_words(point.refused)}", f"complied {rate_words(point.complied)}"]
    place = "base" if point.step is None else f"step {point.step:,}"
    return theme.hover(f"{each.name}, {place}", lines)


def _add_lines(figure: go.Figure, each: RunSeries, row: int, rates: bool) -> None:
    """A line with its band: log-odds, or the refused rate of whole completions."""
    shown = [point for point in each.points if not rates or point.refused is not None]
    ends = [(p.refused.rate, p.refused.low, p.refused.high) if rates and p.refused else
            (p.log_odds.value, p.log_odds.low, p.log_odds.high) for p in shown]  # fmt: skip
    colour, at = SET_COLOURS.get(each.set, theme.UNKNOWN_ROLE), [point.at for point in shown]
    bounded = [(x, low, high) for x, (_, low, high) in zip(at, ends, strict=True) if low is not None]
    figure.add_trace(
        go.Scatter(
            x=[x for x, _, _ in bounded] + [x for x, _, _ in reversed(bounded)],
            y=[high for _, _, high in bounded] + [low for _, low, _ in reversed(bounded)],
            fill="toself",
            fillcolor=theme.tint(colour, 0.13),
            line={"width": 0},
            mode="lines",
            legendgroup=each.name,
            showlegend=False,
            hoverinfo="skip",
        ),
        row=row,
        col=1,
    )
    figure.add_trace(
        go.Scatter(
            name=theme.safe(each.name),
            legendgroup=each.name,
            showlegend=not rates,
            x=at,
            y=[value for value, _, _ in ends],
            mode="lines+markers",
            line={"color": colour, "width": 2.2, "dash": theme.DASHES.get(each.modality, "dot")},
            marker={"size": 6, "color": colour},
            hovertext=[_hover(each, point) for point in shown],
            hoverinfo="text",
        ),
        row=row,
        col=1,
    )


def _moved(each: BlockPoint | None) -> str:
    """What a cell of the heat map says."""
    if each is None or each.relative is None:
        return ""
    lines = [f"{percent(each.relative)} of its norm from the base"]
    lines += [] if each.share is None else [f"{each.share:.0%} of its final change"]
    return theme.hover(f"{each.block}, step {each.step}", lines)


def _add_heat(figure: go.Figure, info: TrajectoryInfo, row: int, measure: Measure, place: tuple[float, float]) -> None:
    """Blocks from the bottom up, models from left to right. place: of the colour bar, its middle and length."""
    columns = range(1, len(info.ticks))
    found = {(block, each.at): each for block, points in info.moved.items() for each in points}
    cells = [[found.get((block, at)) for at in columns] for block in info.blocks]
    figure.add_trace(
        go.Heatmap(
            x=list(columns),
            y=list(range(len(info.blocks))),
            z=[[None if each is None else getattr(each, measure) for each in line] for line in cells],
            zmin=0,
            colorscale=theme.HEAT_SCALE,
            xgap=1,
            hovertext=[[_moved(each) for each in line] for line in cells],
            hoverinfo="text",
            colorbar={
                "title": {"text": MEASURES[measure], "side": "right", "font": {"size": 12}},
                "tickformat": ".2~%" if measure == "relative" else ".0%",
                "thickness": 12,
                "len": place[1],
                "y": place[0],
                "outlinewidth": 0,
            },
        ),
        row=row,
        col=1,
    )
    every = max(1, round(len(info.blocks) / 14))
    shown = range(0, len(info.blocks), every)
    figure.update_yaxes(
        tickvals=list(shown), ticktext=[theme.safe(info.blocks[at]) for at in shown], title_text="block", row=row, col=1
    )


def _mark(figure: go.Figure, info: TrajectoryInfo, rows: int) -> None:
    """Lines at which refusals first fell, and at which half of the drop was there."""
    found = info.departure
    if found is None or found.fell_at is None:
        return
    marks = {found.fell_at: "first fall"}
    if found.half_at is not None:
        marks[found.half_at] = "half gone" if found.half_at != found.fell_at else "first fall, half gone"
    for at, word in marks.items():
        for row in range(1, rows + 1):
            figure.add_vline(x=at, line={"color": theme.MUTED, "width": 1, "dash": "dot"}, row=row, col=1)
        figure.add_annotation(
            text=word, x=at, y=1, yref="y domain", yanchor="top", xanchor="left", xshift=4, showarrow=False,
            font={"size": 11.5, "color": theme.MUTED}, row=1, col=1,
        )  # fmt: skip


def draw(info: TrajectoryInfo, measure: Measure = "relative") -> go.Figure:
    """Refusals over steps, with bands; below, where completions were made, the refused rate; then blocks by steps.

    measure: what the heat map shows, `relative` (change over the base's norm) or `share` (of the block's final change).
    """
    heights = [230, 150, 320] if info.has_rates else [260, 320]
    rows, whole = len(heights), sum(heights)
    figure = make_subplots(
        rows=rows, cols=1, shared_xaxes=True, vertical_spacing=0.1, row_heights=[each / whole for each in heights]
    )
    for each in info.series:
        _add_lines(figure, each, 1, rates=False)
        if info.has_rates:
            _add_lines(figure, each, 2, rates=True)
    domain = figure.layout[f"yaxis{rows}"].domain
    _add_heat(figure, info, rows, measure, ((domain[0] + domain[1]) / 2, domain[1] - domain[0]))
    legend_rows = -(-len(info.series) // 3)
    theme.frame(figure, _title(info), _subtitle(info), whole + 60 * (rows - 1), legend_rows, panels=True)
    figure.add_hline(y=0, line={"color": theme.FAINT, "width": 1}, row=1, col=1)
    theme.panel_title(figure, "Refusal log-odds", 1, 1)
    figure.update_yaxes(title_text="nats", row=1, col=1)
    if info.has_rates:
        theme.panel_title(figure, "Refused, of whole completions", 2, 1)
        figure.update_yaxes(tickformat=".0%", range=[-0.03, 1.03], row=2, col=1)
    theme.panel_title(figure, f"Blocks of the language model: {MEASURES[measure]}", rows, 1)
    _mark(figure, info, rows)
    figure.update_xaxes(
        tickvals=list(range(len(info.ticks))), ticktext=list(info.ticks), range=[-0.3, len(info.ticks) - 0.4]
    )
    figure.update_xaxes(title_text="step of the checkpoint (equally spaced)", row=rows, col=1)
    return figure


def plot(
    result: TrajectoryResult,
    measure: Measure = "relative",
    sets: Sequence[str] | None = None,
    modalities: Sequence[str] | None = None,
    layers: Sequence[int] | None = None,
    top: int | None = None,
    dark: bool = False,
) -> go.Figure:
    """Refusals and weights along a training run.

    measure: what the heat map shows, see `draw`. sets, modalities: whose lines; all for None. layers: whose blocks;
    None for all, and those outside layers. top: only as many blocks, those that moved furthest. dark: for dark paper.
    Raises SurgeryError where the result holds none of that name.
    """
    one_of("measure", measure, MEASURES)
    return theme.shown(draw(compute(result, sets, modalities, layers, top), measure), dark)


def rows(info: TrajectoryInfo) -> list[dict[str, str | int | float | None]]:
    """What is drawn: a record a set, kind of picture and model, then a record a block and model."""
    told: list[dict[str, str | int | float | None]] = []
    for each in info.series:
        for point in each.points:
            told.append(
                {
                    "model": info.ticks[point.at], "set": each.set, "modality": each.modality,
                    "log-odds": point.log_odds.value, "log-odds low": point.log_odds.low,
                    "log-odds high": point.log_odds.high, "begins as a refusal": point.opens_refusing.rate,
                    "refused": point.refused.rate if point.refused else None,
                }
            )  # fmt: skip
    for block, points in info.moved.items():
        told += [
            {"model": info.ticks[p.at], "block": block, "change over norm": p.relative, "share of its change": p.share}
            for p in points
        ]
    return told


def page(result: TrajectoryResult, measure: Measure = "relative") -> str:
    """The figure as a page of its own that opens without a network, with verdict, warnings and notes below."""
    info = compute(result)
    figure = embed("trajectory", draw(info, measure), rows(info))
    said = [result.verdict, *(f"Warning: {each}" for each in result.warnings), *result.notes]
    asked = f"Openings that count as refusals: {'; '.join(result.openings)}."
    return render("figure.html.jinja", title="vlsurgery trajectory", figure=figure, lines=[*said, asked])
