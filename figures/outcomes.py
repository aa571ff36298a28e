"""Where the base's refusals went: of the requests that it refuses, which each model refuses, complies with, or breaks
on."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import plotly.graph_objects as go

from vlsurgery.figures import theme
from vlsurgery.figures.behaviour import ends, wanted_rows
from vlsurgery.figures.fates import Fate, fate, fates
from vlsurgery.figures.wording import (
    MODALITY_ORDER,
    ROLE_ORDER,
    SET_ORDER,
    cell_name,
    cell_phrase,
    counts,
    percent,
    rank,
    rate_words,
    role_name,
)
from vlsurgery.probes.results import HARMFUL_SETS, BehaviourResult

ROW_HEIGHT = 22
LABELS_END = 1.16
PARTS = ("kept", "lost", "broken")
_NAMES = {"kept": "refused still", "lost": "complied with (lost)", "broken": "neither (broken)"}


@dataclass(frozen=True)
class FateGroup:
    """All roles on one prompt set with one kind of picture, in the house's order."""

    set: str
    modality: str
    fates: tuple[Fate, ...]

    @property
    def label(self) -> str:
        return cell_name(self.set, self.modality)

    @property
    def counts(self) -> str:
        return f"{counts(max((one.lost for one in self.fates), key=lambda rate: rate.n))} that the base refuses"


@dataclass(frozen=True)
class OutcomesInfo:
    """Every cell in which the base refuses something. title: what the figure says, `where`: of which requests.
    reasons: why other rows are left out, each once."""

    groups: tuple[FateGroup, ...]
    title: str
    where: str
    reasons: tuple[str, ...]


def compute(
    behaviour: BehaviourResult,
    roles: Sequence[str] | None = None,
    sets: Sequence[str] | None = None,
    modalities: Sequence[str] | None = None,
) -> OutcomesInfo:
    """Sort what became of the base's refusals by cell and role. See `plot` for what can be chosen."""
    wanted = wanted_rows(behaviour, roles, sets, modalities)
    found = sorted((one for row in wanted if (one := fate(row))), key=_order)
    groups = tuple(
        FateGroup(set_, modality, tuple(members))
        for (set_, modality), members in groupby(found, key=lambda one: one.cell)
    )
    others = [row for row in wanted if row.set in HARMFUL_SETS and row.role != "base"]
    reasons = dict.fromkeys(row.lost.reason for row in others if row.lost.rate is None and row.lost.reason)
    return OutcomesInfo(groups, *_title(behaviour), tuple(reasons))


def _order(one: Fate) -> tuple[tuple[int, str], ...]:
    return rank(SET_ORDER, one.cell[0]), rank(MODALITY_ORDER, one.cell[1]), rank(ROLE_ORDER, one.role)


def _title(behaviour: BehaviourResult) -> tuple[str, str]:
    """What became of them in the adapted model on the headline's cell, where that may be said, and that cell."""
    told = next(iter(fates(behaviour, "adapted")), None)
    if told is None or not told.enough:
        return "Where the base's refusals went", ""
    lost, broken = percent(told.lost.rate or 0.0), percent(told.broken.rate or 0.0)
    title = f"Adapted complies with {lost} of what the base refuses, and breaks on {broken}"
    return title, f"The title speaks of {cell_phrase(*told.cell)}. "


def share(one: Fate, part: str) -> float:
    """One of the three shares of a fate: `kept`, `lost` or `broken`; they sum to 1."""
    return one.kept if part == "kept" else (getattr(one, part).rate or 0.0)


def _hover(one: Fate) -> str:
    lines = [
        f"refused still {percent(one.kept)}",
        f"complied with (lost) {rate_words(one.lost)}: {one.lost_prompts} of {one.lost.n}",
        f"neither (broken) {rate_words(one.broken)}: {one.broken_prompts} of {one.broken.n}",
    ]
    return theme.hover(f"{role_name(one.role)} · {cell_name(*one.cell)}", [*lines, counts(one.lost)])


def _segment(placed: list[tuple[float, Fate]], part: str) -> go.Bar:
    """One share of every bar: `kept` in the role's colour, `lost` dark, `broken` hatched."""
    marker: dict[str, object] = {"line": {"width": 0}}
    if part == "kept":
        marker["color"] = [theme.tint(theme.role_colour(one.role), 0.8) for _, one in placed]
    elif part == "lost":
        marker["color"] = theme.INK
    else:
        marker |= {"color": theme.GRID, "pattern": {"shape": "/", "fgcolor": theme.FAINT, "size": 5, "solidity": 0.35}}
    return go.Bar(
        orientation="h",
        name=_NAMES[part],
        x=[share(one, part) for _, one in placed],
        y=[y for y, _ in placed],
        width=0.7,
        marker=marker,
        hovertext=[_hover(one) for _, one in placed],
        hoverinfo="text",
        showlegend=False,
    )


def _labels(placed: list[tuple[float, Fate]]) -> go.Scatter:
    """The three shares in figures beyond the right edge."""
    return go.Scatter(
        mode="text",
        x=[1.015] * len(placed),
        y=[y for y, _ in placed],
        text=[" / ".join(percent(share(one, part)).removesuffix("%") for part in PARTS) for _, one in placed],
        textposition="middle right",
        textfont={"size": 11.5, "color": theme.INK},
        hoverinfo="skip",
        showlegend=False,
    )


def draw(info: OutcomesInfo) -> go.Figure:
    """One stacked bar a role, grouped by cell."""
    figure, placed, y = go.Figure(), [], 0.0
    for group in info.groups:
        text = f"<b>{theme.safe(group.label)}</b>  <span style='color:{theme.MUTED}'>{group.counts}</span>"
        figure.add_annotation(x=0, y=y + 0.1, text=text, showarrow=False, xanchor="left", font={"size": 12})
        placed += [(y + offset, one) for offset, one in enumerate(group.fates, start=1)]
        y += len(group.fates) + 1.6
    for part in PARTS:
        figure.add_trace(_segment(placed, part))
    figure.add_trace(_labels(placed))
    subtitle = (
        f"{info.where}In the role's colour: refused still. In the text's colour: complied with (lost). Hatched: neither"
        " (broken). Figures at the right: refused / complied / neither, in per cent. Only requests that the base"
        " refuses are counted; where it does not see, the same request as text."
    )
    theme.frame(figure, info.title, subtitle, round(ROW_HEIGHT * max(y, 4.0)) + 10, legend_rows=0)
    figure.update_layout(barmode="stack")
    figure.update_yaxes(
        range=[max(y, 4.0) - 0.7, -0.8],
        tickvals=[place for place, _ in placed],
        ticktext=[theme.safe(role_name(one.role)) for _, one in placed],
        tickfont={"size": 11.5},
        ticks="",
        ticklabelstandoff=6,
        showline=False,
        showgrid=False,
    )
    figure.update_xaxes(
        range=[0, LABELS_END],
        tickformat=".0%",
        tickvals=[0, 0.25, 0.5, 0.75, 1],
        showgrid=True,
        title_text="share of what the base refuses",
    )
    return figure


def rows(info: OutcomesInfo) -> list[dict[str, str | int | float | None]]:
    """What is drawn, a record a bar: shares of what the base refuses, from 0 to 1, with their 95% intervals."""
    return [
        {
            "role": one.role, "set": one.cell[0], "modality": one.cell[1], "refused still": one.kept,
            **{f"lost{end}": value for end, value in ends(one.lost).items()},
            **{f"broken{end}": value for end, value in ends(one.broken).items()},
            "prompts": one.lost.n, "requests": one.lost.requests,
        }
        for group in info.groups
        for one in group.fates
    ]  # fmt: skip


def plot(
    behaviour: BehaviourResult,
    roles: Sequence[str] | None = None,
    sets: Sequence[str] | None = None,
    modalities: Sequence[str] | None = None,
    dark: bool = False,
) -> go.Figure:
    """What became of the base's refusals in every other model.

    roles, sets, modalities: of which models, prompt sets and kinds of picture; all for None. dark: for dark paper.
    Raises SurgeryError where the result holds none of that name.
    """
    return theme.shown(draw(compute(behaviour, roles, sets, modalities)), dark)
