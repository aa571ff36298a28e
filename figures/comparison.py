"""Two cases side by side: every rate that both have, with its interval in each, and where they clearly differ."""

from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from vlsurgery.figures import theme
from vlsurgery.figures.behaviour import ends
from vlsurgery.figures.choice import chosen, leading, one_of
from vlsurgery.figures.wording import cell_name, plural, points, rate_words, role_name
from vlsurgery.probes.case_results import CaseComparison, ComparedRow

ORDERS = ("case", "size")
_ROW = 24  # pixels a rate
_DASH = 0.16  # by which the two cases stand apart in a row


@dataclass(frozen=True)
class ComparisonInfo:
    """rows: from above. names: of the first and the second case."""

    rows: tuple[ComparedRow, ...]
    names: tuple[str, str]


def compute(
    comparison: CaseComparison,
    roles: Sequence[str] | None = None,
    sets: Sequence[str] | None = None,
    modalities: Sequence[str] | None = None,
    measures: Sequence[str] | None = None,
    top: int | None = None,
    sort: str = "case",
    names: tuple[str, str] = ("first case", "second case"),
) -> ComparisonInfo:
    """The rates of these roles, sets, kinds of picture and measures. See `plot`."""
    found = comparison.records
    asked = {"roles": roles, "sets": sets, "modalities": modalities, "measures": measures}
    for (option, wanted), name in zip(asked.items(), ("role", "set", "modality", "measure"), strict=True):
        kept = chosen(option, wanted, (getattr(row, name) for row in comparison.records))
        found = [row for row in found if getattr(row, name) in kept]
    order = one_of("sort", sort, ORDERS)
    by_size = sorted(found, key=lambda row: -abs(row.difference))
    largest = {id(row) for row in by_size[: leading("top", top)]}
    return ComparisonInfo(tuple(row for row in (by_size if order == "size" else found) if id(row) in largest), names)


def _title(info: ComparisonInfo) -> str:
    if not info.rows:
        return "The two cases share no such rate"
    clear = [row for row in info.rows if row.differs]
    if not clear:
        return f"No clear difference in {plural(len(info.rows), 'rate')} of {info.names[0]} and {info.names[1]}"
    most = max(clear, key=lambda row: abs(row.difference))
    where = f"{role_name(most.role)}, {cell_name(most.set, most.modality)}, {most.measure}"
    return f"{len(clear)} of {plural(len(info.rows), 'rate')} clearly differ, most {where}: {points(most.difference)}"


def _hover(row: ComparedRow, info: ComparisonInfo) -> str:
    lines = [
        *(f"{name}: {rate_words(rate)}" for name, rate in zip(info.names, (row.first, row.second), strict=True)),
        f"second minus first {points(row.difference, row.low, row.high)}",
        row.note,
    ]
    return theme.hover(f"{role_name(row.role)}, {cell_name(row.set, row.modality)}, {row.measure}", lines)


def _markers(info: ComparisonInfo, which: int) -> go.Scatter:
    """One case's rates: rings for the first, filled for the second, in the roles' colours."""
    rates = [(row.first, row.second)[which] for row in info.rows]
    placed = enumerate(zip(info.rows, rates, strict=True))
    known = [(at, row, rate) for at, (row, rate) in placed if rate.rate is not None]
    values = [rate.rate or 0.0 for _, _, rate in known]
    return go.Scatter(
        name=theme.safe(info.names[which]),
        mode="markers",
        x=values,
        y=[at + (_DASH if which else -_DASH) for at, _, _ in known],
        marker={
            "size": 9,
            "symbol": "circle" if which else "circle-open",
            "color": [theme.role_colour(row.role) for _, row, _ in known],
            "line": {"width": 2},
        },
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [0.0 if r.high is None else r.high - v for v, (_, _, r) in zip(values, known, strict=True)],
            "arrayminus": [0.0 if r.low is None else v - r.low for v, (_, _, r) in zip(values, known, strict=True)],
            "color": theme.FAINT,
            "thickness": 1.3,
            "width": 3,
        },
        hovertext=[_hover(row, info) for _, row, _ in known],
        hoverinfo="text",
        cliponaxis=False,
    )


def draw(info: ComparisonInfo) -> go.Figure:
    """A row a rate; names in bold where the difference is beyond its interval."""
    figure = go.Figure([_markers(info, 0), _markers(info, 1)])
    subtitle = (
        "Each rate in both cases with its 95% interval: rings the first, filled the second. In bold, where the"
        " difference is beyond its own interval (paired where both asked the same prompts), which may be although the"
        " two intervals overlap."
    )
    theme.frame(figure, _title(info), subtitle, max(120, _ROW * len(info.rows)), legend_rows=1)
    names = [
        theme.safe(f"{role_name(row.role)}, {cell_name(row.set, row.modality)}: {row.measure}") for row in info.rows
    ]
    figure.update_yaxes(
        range=[len(names) - 0.4, -0.6],
        tickvals=list(range(len(names))),
        ticktext=[f"<b>{name}</b>" if row.differs else name for name, row in zip(names, info.rows, strict=True)],
        tickfont={"size": 11.5},
        showgrid=False,
    )
    figure.update_xaxes(range=[-0.02, 1.02], tickformat=".0%", showgrid=True, title_text="share of prompts")
    return figure


def rows(info: ComparisonInfo) -> list[dict[str, str | int | float | None]]:
    """What is drawn, a record a rate."""
    return [
        {
            "role": row.role, "set": row.set, "modality": row.modality, "measure": row.measure,
            **{f"first{end}": value for end, value in ends(row.first).items()},
            **{f"second{end}": value for end, value in ends(row.second).items()},
            "difference": row.difference, "difference low": row.low, "difference high": row.high,
            "requests": row.requests, "differs": "yes" if row.differs else "no",
        }
        for row in info.rows
    ]  # fmt: skip


def plot(
    comparison: CaseComparison,
    roles: Sequence[str] | None = None,
    sets: Sequence[str] | None = None,
    modalities: Sequence[str] | None = None,
    measures: Sequence[str] | None = None,
    top: int | None = None,
    sort: str = "case",
    names: tuple[str, str] = ("first case", "second case"),
    dark: bool = False,
) -> go.Figure:
    """Two cases side by side.

    roles, sets, modalities, measures: which rates; all for None. top: only as many, those that differ most. sort: in
    the order of the "case", or by "size" of the difference. names: of the cases. dark: for dark paper. Raises
    SurgeryError where the result holds none of that name.
    """
    return theme.shown(draw(compute(comparison, roles, sets, modalities, measures, top, sort, names)), dark)
