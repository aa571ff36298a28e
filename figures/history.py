"""A case's evaluations over time: how a rate went from one look at `report` prompts to the next."""

from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from vlsurgery.figures import theme
from vlsurgery.figures.behaviour import ends
from vlsurgery.figures.choice import chosen, one_of
from vlsurgery.figures.wording import ROLE_ORDER, cell_name, plural, points, rank, rate_words, role_name
from vlsurgery.probes.case_results import HistoryChange, HistoryLook, HistoryResult, HistoryRow

_APART = 0.07  # by which roles stand apart at one look


@dataclass(frozen=True)
class HistoryInfo:
    """measure: of every row. looks: the evaluations, from the first. rows: role, set and kind of picture -> its rates.
    changes: those of this measure that are beyond their intervals. prompts: evaluation -> which prompts it asked, as
    numbers from 1."""

    measure: str
    looks: tuple[HistoryLook, ...]
    rows: dict[tuple[str, str, str], tuple[HistoryRow, ...]]
    changes: tuple[HistoryChange, ...]
    prompts: dict[int, int]


def compute(
    history: HistoryResult,
    measure: str = "refused",
    roles: Sequence[str] | None = None,
    sets: Sequence[str] | None = None,
    modalities: Sequence[str] | None = None,
) -> HistoryInfo:
    """The rates of one measure. See `plot`."""
    one_of("measure", measure, (row.measure for row in history.records))
    found = [row for row in history.records if row.measure == measure]
    of_role = chosen("roles", roles, sorted({row.role for row in found}, key=lambda role: rank(ROLE_ORDER, role)))
    of_set = chosen("sets", sets, (row.set for row in found))
    of_kind = chosen("modalities", modalities, (row.modality for row in found))
    series: dict[tuple[str, str, str], tuple[HistoryRow, ...]] = {}
    for role in of_role:
        for row in found:
            if row.role == role and row.set in of_set and row.modality in of_kind:
                key = (role, row.set, row.modality)
                series[key] = (*series.get(key, ()), row)
    seen = {row.line for rows in series.values() for row in rows}
    looks = tuple(look for look in history.looks if look.line in seen)
    digests = list(dict.fromkeys(look.prompts_digest for look in looks))
    changes = tuple(
        change for change in history.changes
        if change.measure == measure and (change.role, change.set, change.modality) in series
    )  # fmt: skip
    return HistoryInfo(measure, looks, series, changes, {k.line: digests.index(k.prompts_digest) + 1 for k in looks})


def _title(info: HistoryInfo) -> str:
    if len(info.looks) < 2:
        return "One evaluation so far: nothing to compare it with"
    if not info.changes:
        return f"No rate changed by more than its interval in {plural(len(info.looks), 'evaluation')}"
    most = max(info.changes, key=lambda change: abs(change.difference))
    where = f"{role_name(most.role)} on {cell_name(most.set, most.modality)}"
    return f"The largest change: {where}, {points(most.difference)} {info.measure}"


def _series(info: HistoryInfo, key: tuple[str, str, str], at: int) -> go.Scatter:
    """One role on one cell; lines break where other prompts were asked, which can't be compared."""
    places = {look.line: index for index, look in enumerate(info.looks)}
    colour = theme.role_colour(key[0])
    x: list[float | None] = []
    y: list[float | None] = []
    above: list[float | None] = []
    below: list[float | None] = []
    told: list[str | None] = []
    before = None
    for row in info.rows[key]:
        if before is not None and info.prompts[row.line] != info.prompts[before]:
            for values in (x, y, above, below):
                values.append(None)
            told.append(None)
        before = row.line
        x.append(places[row.line] + _APART * at)
        y.append(row.rate)
        above.append(0.0 if row.high is None else row.high - row.rate)
        below.append(0.0 if row.low is None else row.rate - row.low)
        told.append(theme.hover(_name(key), [row.time, f"{info.measure} {rate_words(row.whole)}"]))
    return go.Scatter(
        name=theme.safe(_name(key)),
        mode="lines+markers",
        x=x,
        y=y,
        error_y={
            "type": "data",
            "symmetric": False,
            "array": above,
            "arrayminus": below,
            "color": theme.tint(colour, 0.5),
            "thickness": 1.2,
            "width": 3,
        },
        line={"color": colour, "width": 2, "dash": theme.DASHES.get(key[2], "dot")},
        marker={"size": 7, "color": colour},
        hovertext=told,
        hoverinfo="text",
    )


def _name(key: tuple[str, str, str]) -> str:
    return f"{role_name(key[0])}, {cell_name(key[1], key[2])}"


def draw(info: HistoryInfo) -> go.Figure:
    """Evaluations from left to right, a line a role and cell, with intervals."""
    keys = list(info.rows)
    figure = go.Figure([_series(info, key, at - len(keys) // 2) for at, key in enumerate(keys)])
    subtitle = (
        f"Share of prompts {info.measure}, with 95% intervals, at every look at report prompts. Lines join looks at the"
        " same prompts. Every look spends some of what those prompts can show: intervals are not corrected for it."
    )
    theme.frame(figure, _title(info), subtitle, 320, legend_rows=-(-len(keys) // 3))
    figure.update_xaxes(
        tickvals=list(range(len(info.looks))),
        ticktext=[f"{theme.safe(look.time[:10])}<br>prompts {info.prompts[look.line]}" for look in info.looks],
        range=[-0.6, max(0.6, len(info.looks) - 0.4)],
        title_text="evaluation",
    )
    figure.update_yaxes(range=[-0.03, 1.03], tickformat=".0%", title_text=info.measure)
    return figure


def rows(info: HistoryInfo) -> list[dict[str, str | int | float | None]]:
    """What is drawn, a record a rate."""
    return [
        {
            "evaluation": row.line, "time": row.time, "prompts": info.prompts[row.line], "role": row.role,
            "set": row.set, "modality": row.modality,
            **{f"{info.measure}{end}": value for end, value in ends(row.whole).items()}, "requests": row.requests,
        }
        for found in info.rows.values()
        for row in found
    ]  # fmt: skip


def plot(
    history: HistoryResult,
    measure: str = "refused",
    roles: Sequence[str] | None = None,
    sets: Sequence[str] | None = None,
    modalities: Sequence[str] | None = None,
    dark: bool = False,
) -> go.Figure:
    """How a rate went over a case's evaluations.

    measure: "refused", "complied", ... roles, sets, modalities: which; all for None. dark: for dark paper. Raises
    SurgeryError where the result holds none of that name.
    """
    return theme.shown(draw(compute(history, measure, roles, sets, modalities)), dark)
