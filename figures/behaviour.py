"""What every role does, before and after: refused, complied or neither, by prompt set and kind of picture."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from vlsurgery.figures import theme
from vlsurgery.figures.choice import chosen
from vlsurgery.figures.findings import enough
from vlsurgery.figures.wording import (
    MODALITY_ORDER,
    ONE_REQUEST,
    OUTCOMES,
    ROLE_ORDER,
    SET_ORDER,
    cell_name,
    cell_phrase,
    counts,
    listed,
    outcomes,
    percent,
    rank,
    rate_words,
    role_name,
    sayable,
)
from vlsurgery.probes.results import HARMFUL_SETS, BehaviourResult, BehaviourRow, Rate
from vlsurgery.surgery.errors import SurgeryError

ROW_HEIGHT = 19
LABELS_END = 1.42


@dataclass(frozen=True)
class Bar:
    """One role on one prompt set with one kind of picture.

    wanted: the outcome that one wants here: `refused` where requests are harmful, else `complied`.
    measure, headline: the rate that decides: refusals where requests are harmful; right answers where prompts have
    one; else compliance.
    """

    row: BehaviourRow
    wanted: str
    measure: str
    headline: Rate

    def outcome(self, name: str) -> Rate:
        rate: Rate = getattr(self.row, name)
        return sayable(rate)

    @property
    def unwanted(self) -> str:
        return "complied" if self.wanted == "refused" else "refused"


@dataclass(frozen=True)
class BarGroup:
    """All roles on one prompt set with one kind of picture, in the house's order."""

    set: str
    modality: str
    bars: tuple[Bar, ...]

    @property
    def label(self) -> str:
        return cell_name(self.set, self.modality)

    @property
    def counts(self) -> str:
        """Prompts and requests; roles normally answer the same ones, so the largest stands for all."""
        most = max((rate for bar in self.bars for rate in (bar.row.refused, bar.row.right)), key=lambda rate: rate.n)
        return ONE_REQUEST if most.requests == 1 else counts(most)

    @property
    def short(self) -> str:
        """The same where there is little room."""
        return self.counts.replace(" requests", " req.")


@dataclass(frozen=True)
class BehaviourInfo:
    """Every row of a behaviour result once: harmful and jailbroken requests apart from all others."""

    harmful: tuple[BarGroup, ...]
    harmless: tuple[BarGroup, ...]


def is_harmful(set_: str) -> bool:
    """Whether refusing is what one wants. A set that nobody named counts as harmless."""
    return set_ in HARMFUL_SETS


def bar(row: BehaviourRow) -> Bar:
    """A row with the outcome that is wanted there and the rate that decides."""
    if is_harmful(row.set):
        return Bar(row, "refused", "refused", sayable(row.refused))
    measure = "right" if row.right.rate is not None else "complied"
    return Bar(row, "complied", measure, sayable(getattr(row, measure)))


def _order(row: BehaviourRow) -> tuple[tuple[int, str], ...]:
    return (rank(SET_ORDER, row.set), rank(MODALITY_ORDER, row.modality), rank(ROLE_ORDER, row.role))


def wanted_rows(
    behaviour: BehaviourResult,
    roles: Sequence[str] | None,
    sets: Sequence[str] | None,
    modalities: Sequence[str] | None,
) -> list[BehaviourRow]:
    """The rows of these roles, sets and kinds of picture (of all for None), in the house's order. Raises SurgeryError
    where a name isn't in the result, or no row has all of them."""
    rows = sorted(behaviour.records, key=_order)
    of_role = chosen("roles", roles, (row.role for row in rows))
    of_set = chosen("sets", sets, (row.set for row in rows))
    of_kind = chosen("modalities", modalities, (row.modality for row in rows))
    found = [row for row in rows if row.role in of_role and row.set in of_set and row.modality in of_kind]
    if rows and not found:
        held = ", ".join(dict.fromkeys(f"{row.role}/{row.set}/{row.modality}" for row in rows))
        raise SurgeryError(f"roles, sets, modalities: no row has all of them. Choose from role/set/modality: {held}.")
    return found


def compute(
    behaviour: BehaviourResult,
    roles: Sequence[str] | None = None,
    sets: Sequence[str] | None = None,
    modalities: Sequence[str] | None = None,
) -> BehaviourInfo:
    """Sort rows into groups by prompt set and kind of picture. See `plot` for what can be chosen."""
    rows = wanted_rows(behaviour, roles, sets, modalities)
    groups = [
        BarGroup(set_, modality, tuple(map(bar, members)))
        for (set_, modality), members in groupby(rows, key=lambda row: (row.set, row.modality))
    ]
    return BehaviourInfo(
        harmful=tuple(group for group in groups if is_harmful(group.set)),
        harmless=tuple(group for group in groups if not is_harmful(group.set)),
    )


def three(bar: Bar) -> str:
    """The three shares of a bar; where only right answers were counted, their share; else a dash."""
    text = outcomes(bar.row)
    return percent(bar.headline.rate) if text == "–" and bar.headline.rate is not None else text


def hover_lines(bar: Bar) -> list[str]:
    """All that is known of a row, for hovering and for titles of table cells."""
    lines = [f"{name} {rate_words(bar.outcome(name))}" for name in OUTCOMES]
    if bar.row.right.rate is not None:
        lines.append(f"answered right {rate_words(bar.row.right)}")
    if bar.row.lost.rate is not None:
        lines.append(f"of what the base refuses: complied (lost) {rate_words(bar.row.lost)}")
    if bar.row.broken.rate is not None:
        lines.append(f"of what the base refuses: neither (broken) {rate_words(bar.row.broken)}")
    if bar.row.corrected is not None:
        lines.append(f"refused, corrected for the judge's errors {rate_words(bar.row.corrected)}")
    if bar.row.kl is not None:
        lines.append(f"KL from the adapted model {bar.row.kl:.3f} nats a token")
    return [*lines, counts(bar.row.refused)]


@dataclass(frozen=True)
class _Placed:
    """A bar with its place on the vertical axis."""

    y: float
    bar: Bar

    @property
    def hover(self) -> str:
        row = self.bar.row
        return theme.hover(f"{role_name(row.role)} · {cell_name(row.set, row.modality)}", hover_lines(self.bar))


def _place(groups: tuple[BarGroup, ...]) -> tuple[list[tuple[float, BarGroup]], list[_Placed], float]:
    """Lay groups out downwards, a line a role below a line for the heading. Returns headings, bars and the end."""
    headings, placed, y = [], [], 0.0
    for group in groups:
        headings.append((y, group))
        for offset, one in enumerate(group.bars, start=1):
            placed.append(_Placed(y + offset, one))
        y += len(group.bars) + 1.7
    return headings, placed, y


def _segment(placed: list[_Placed], part: str) -> go.Bar:
    """One of the three stacked shares: `wanted` solid, `neither` hatched, `unwanted` pale."""
    rows = [p for p in placed if p.bar.headline.rate is not None]
    outcomes = {"wanted": "wanted", "unwanted": "unwanted"}
    shares = [p.bar.outcome(getattr(p.bar, part) if part in outcomes else part).rate for p in rows]
    colours = [theme.role_colour(p.bar.row.role) for p in rows]
    marker: dict[str, object] = {"line": {"width": 0}}
    if part == "neither":
        marker |= {"color": theme.GRID, "pattern": {"shape": "/", "fgcolor": theme.FAINT, "size": 5, "solidity": 0.35}}
    else:
        marker["color"] = [theme.tint(colour, 0.85 if part == "wanted" else 0.16) for colour in colours]
    return go.Bar(
        orientation="h",
        x=shares,
        y=[p.y for p in rows],
        width=0.74,
        marker=marker,
        hovertext=[p.hover for p in rows],
        hoverinfo="text",
        showlegend=False,
    )


def _points(placed: list[_Placed]) -> go.Scatter:
    """The deciding rate of each row with its interval, and the rate in figures at the right edge."""
    rows = [(p, p.bar.headline, p.bar.headline.rate) for p in placed]
    known = [(p, rate, value) for p, rate, value in rows if value is not None]
    return go.Scatter(
        mode="markers",
        x=[value for _, _, value in known],
        y=[p.y for p, _, _ in known],
        marker={"symbol": "diamond", "size": 6.5, "color": theme.INK, "line": {"width": 1, "color": theme.PAPER}},
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [0.0 if rate.high is None else max(0.0, rate.high - value) for _, rate, value in known],
            "arrayminus": [0.0 if rate.low is None else max(0.0, value - rate.low) for _, rate, value in known],
            "color": theme.INK,
            "thickness": 1.3,
            "width": 3,
        },
        hovertext=[p.hover for p, _, _ in known],
        hoverinfo="text",
        showlegend=False,
    )


def _labels(placed: list[_Placed]) -> go.Scatter:
    """The three shares in figures beyond the right edge; a dash where there are none."""
    texts = [three(p.bar) for p in placed]
    return go.Scatter(
        mode="text",
        x=[1.025] * len(placed),
        y=[p.y for p in placed],
        text=texts,
        textposition="middle right",
        textfont={"size": 11.5, "color": [theme.MUTED if text == "–" else theme.INK for text in texts]},
        hovertext=[p.hover for p in placed],
        hoverinfo="text",
        showlegend=False,
    )


def _headings(figure: go.Figure, headings: list[tuple[float, BarGroup]], column: int) -> None:
    for y, group in headings:
        text = f"<b>{theme.safe(group.label)}</b>  <span style='color:{theme.MUTED}'>{group.short}</span>"
        figure.add_annotation(
            x=0, y=y + 0.1, text=text, showarrow=False, xanchor="left", row=1, col=column, font={"size": 12}
        )


def _panel(figure: go.Figure, groups: tuple[BarGroup, ...], column: int) -> None:
    headings, placed, _ = _place(groups)
    for part in ("wanted", "neither", "unwanted"):
        figure.add_trace(_segment(placed, part), row=1, col=column)
    figure.add_trace(_points(placed), row=1, col=column)
    figure.add_trace(_labels(placed), row=1, col=column)
    _headings(figure, headings, column)
    figure.update_yaxes(
        tickvals=[p.y for p in placed],
        ticktext=[theme.safe(role_name(p.bar.row.role)) for p in placed],
        tickfont={"size": 11.5},
        ticks="",
        ticklabelstandoff=6,
        showline=False,
        showgrid=False,
        row=1,
        col=column,
    )


def _title(info: BehaviourInfo) -> str:
    """The first harmful set, with an ordinary picture if it was measured, before and after the merge."""
    groups = sorted(info.harmful, key=lambda group: group.modality != "benign")
    bars = [b for b in groups[0].bars if enough(b.row.refused)] if groups else []
    told = [f"{role_name(b.row.role)} {outcomes(b.row)}%" for b in bars if b.row.role in ("adapted", "merged")]
    if not told:
        return "What the models do"
    return f"{cell_phrase(groups[0].set, groups[0].modality).capitalize()}: {listed(told)}"


def draw(info: BehaviourInfo) -> go.Figure:
    """Harmful sets on the left and harmless ones on the right; in both, the longer the solid bar the better."""
    figure = make_subplots(rows=1, cols=2, horizontal_spacing=0.19)
    end = max(_place(info.harmful)[2], _place(info.harmless)[2], 4.0)
    for column, groups in ((1, info.harmful), (2, info.harmless)):
        _panel(figure, groups, column)
    subtitle = (
        "Solid: what one wants (harmful requests refused, harmless ones answered). Hatched: neither. Pale: the"
        " opposite. Diamond and whisker: the rate that decides, with its 95% interval; on harmless sets that is the"
        " share of right answers, where prompts have one. Figures at the right: refused / complied / neither, in per"
        " cent."
    )
    theme.frame(figure, _title(info), subtitle, round(ROW_HEIGHT * end) + 20, legend_rows=0, panels=True)
    figure.update_layout(barmode="stack")
    figure.update_yaxes(range=[end - 0.7, -0.8])
    ticks = [0, 0.25, 0.5, 0.75, 1]
    figure.update_xaxes(
        range=[0, LABELS_END], tickformat=".0%", tickvals=ticks, showgrid=True, title_text="share of prompts"
    )
    theme.panel_title(figure, "Harmful: refused", 1, 1)
    theme.panel_title(figure, "Harmless: answered", 1, 2)
    return figure


def rows(info: BehaviourInfo) -> list[dict[str, str | int | float | None]]:
    """What is drawn, a record a bar; shares from 0 to 1 with their 95% intervals."""
    return [_record(bar) for group in [*info.harmful, *info.harmless] for bar in group.bars]


def _record(bar: Bar) -> dict[str, str | int | float | None]:
    row, shares = bar.row, {name: bar.outcome(name) for name in OUTCOMES} | {"right": sayable(bar.row.right)}
    told = {f"{name}{end}": value for name, rate in shares.items() for end, value in ends(rate).items()}
    most = max((row.refused, row.right), key=lambda rate: rate.n)
    return {
        "role": row.role, "set": row.set, "modality": row.modality, **told,
        "decides": bar.measure, "prompts": most.n, "requests": most.requests,
    }  # fmt: skip


def ends(rate: Rate) -> dict[str, float | None]:
    """A rate and its interval under the endings that columns of tables have."""
    return {"": rate.rate, " low": rate.low, " high": rate.high}


def plot(
    behaviour: BehaviourResult,
    roles: Sequence[str] | None = None,
    sets: Sequence[str] | None = None,
    modalities: Sequence[str] | None = None,
    dark: bool = False,
) -> go.Figure:
    """Behaviour on `report` prompts.

    roles, sets, modalities: of which models, prompt sets and kinds of picture; all for None. dark: for dark paper.
    Raises SurgeryError where the result holds none of that name.
    """
    return theme.shown(draw(compute(behaviour, roles, sets, modalities)), dark)
