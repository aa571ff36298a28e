"""The claims C1 to C6: a row a deciding number, with its interval, the bar that it must pass, and each case's own."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import plotly.graph_objects as go

from vlsurgery.figures import page, theme
from vlsurgery.figures.choice import chosen
from vlsurgery.figures.embedding import embed
from vlsurgery.figures.wording import number, plural, signed
from vlsurgery.probes.results import Claim, ClaimEvidence, ClaimsResult, ClaimVerdict
from vlsurgery.surgery.results import write_text

ROW_HEIGHT = 26
SEEN = 0.005  # a bar nearer to 0 is not drawn
EDGE = 1.06  # where figures begin, right of the values
END = 2.05
MARKS: dict[ClaimVerdict, tuple[str, str]] = {
    "holds": ("#009e73", "circle"),
    "does not hold": ("#d55e00", "x"),
    "can't tell": ("#6b7280", "diamond-open"),
}


@dataclass(frozen=True)
class ClaimRow:
    """One deciding number of a claim, and where it stands from above."""

    y: float
    evidence: ClaimEvidence


@dataclass(frozen=True)
class ClaimsInfo:
    """All rows. heads: of each claim the place of its heading. title: what was found."""

    heads: tuple[tuple[float, Claim], ...]
    rows: tuple[ClaimRow, ...]
    title: str
    cases: int

    @property
    def height(self) -> float:
        return (self.rows[-1].y if self.rows else 1.0) + 1


def compute(result: ClaimsResult, claims: Sequence[str] | None = None) -> ClaimsInfo:
    """Place every claim's heading and deciding numbers, from above. See `plot` for what can be chosen."""
    heads, rows, y = [], [], 0.0
    keys = chosen("claims", claims, (claim.key for claim in result.records))
    for claim in (each for each in result.records if each.key in keys):
        heads.append((y, claim))
        deciding = [each for each in claim.evidence if each.decides]
        rows += [ClaimRow(y + 1 + at, each) for at, each in enumerate(deciding)]
        y += 1.7 + len(deciding)
    return ClaimsInfo(tuple(heads), tuple(rows), result.verdict.removesuffix("."), len(result.cases))


def value_words(found: ClaimEvidence) -> str:
    """A number with its interval and what it rests on: "+72 (+59 to +82) points, 60 requests"."""
    if found.value is None:
        return f"not measured: {found.reason}"
    shown = [_one(found, each) for each in (found.value, found.low, found.high) if each is not None]
    text = shown[0] + (f" ({shown[1]} to {shown[2]})" if len(shown) == 3 else "")
    unit = " points" if found.unit == "points" else ""
    return f"{text}{unit}" + (f", {plural(found.requests, 'request')}" if found.requests else "")


def _one(found: ClaimEvidence, value: float) -> str:
    if found.unit == "points":
        return signed(100 * value, 0)
    return number(value) if found.unit == "share" else signed(value)


def draw(info: ClaimsInfo) -> go.Figure:
    """Markers with intervals, a tick at each bar, a small ring for each case."""
    figure = go.Figure()
    figure.add_vline(x=0, line={"color": theme.RULE, "width": 1})
    for y, claim in info.heads:
        text = f"<b>{claim.key}</b> {theme.safe(claim.text)}: <b>{theme.safe(claim.verdict)}</b>"
        figure.add_annotation(x=-1, y=y + 0.15, text=text, showarrow=False, xanchor="left", font={"size": 12.5})
    known = [row for row in info.rows if row.evidence.value is not None]
    figure.add_trace(_bars(known))
    figure.add_trace(_rings(known))
    for verdict in MARKS:
        figure.add_trace(_markers([row for row in known if row.evidence.verdict == verdict], verdict))
    figure.add_trace(_labels(info.rows))
    subtitle = (
        "Each number with its 95% interval over requests; a small ring is one case, a tick the bar that the claim must "
        "pass (none is drawn at 0). Differences of shares, a share, and cosines have one axis."
    )
    theme.frame(figure, info.title, subtitle, round(ROW_HEIGHT * info.height), legend_rows=1)
    figure.update_yaxes(
        range=[info.height - 0.5, -0.7],
        tickvals=[row.y for row in info.rows],
        ticktext=[theme.safe(row.evidence.name) for row in info.rows],
        tickfont={"size": 11},
        ticks="",
        showline=False,
        showgrid=False,
    )
    figure.update_xaxes(range=[-1.02, END], tickvals=[-1, -0.5, 0, 0.5, 1], showgrid=True)
    return figure


def _markers(rows: list[ClaimRow], verdict: ClaimVerdict) -> go.Scatter:
    colour, symbol = MARKS[verdict]
    found = [row.evidence for row in rows]
    spread = [_spread(each) for each in found]
    return go.Scatter(
        mode="markers",
        name=verdict,
        x=[each.value for each in found],
        y=[row.y for row in rows],
        marker={"color": colour, "symbol": symbol, "size": 10, "line": {"width": 1.5, "color": colour}},
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [above for _, above in spread],
            "arrayminus": [below for below, _ in spread],
            "color": colour,
            "thickness": 1.6,
            "width": 4,
        },
        hovertext=[theme.hover(each.name, _lines(each)) for each in found],
        hoverinfo="text",
    )


def _spread(found: ClaimEvidence) -> tuple[float, float]:
    """How far the interval reaches below and above the value; 0 where there is none."""
    if found.value is None or found.low is None or found.high is None:
        return 0.0, 0.0
    return found.value - found.low, found.high - found.value


def _lines(found: ClaimEvidence) -> list[str]:
    told = [f"{case}: {_one(found, value)}" for case, value in found.by_case.items()] if len(found.by_case) > 1 else []
    return [value_words(found), *told, *([found.reason] if found.reason else [])]


def _rings(rows: list[ClaimRow]) -> go.Scatter:
    """The value of each case, where there are several."""
    placed = [
        (value, row.y) for row in rows if len(row.evidence.by_case) > 1 for value in row.evidence.by_case.values()
    ]
    return go.Scatter(
        mode="markers",
        name="one case",
        x=[x for x, _ in placed],
        y=[y + 0.25 for _, y in placed],
        marker={"symbol": "circle-open", "size": 6, "color": theme.MUTED},
        hoverinfo="skip",
        showlegend=bool(placed),
    )


def _bars(rows: list[ClaimRow]) -> go.Scatter:
    """The bar of each number that has one other than 0."""
    placed = [row for row in rows if abs(row.evidence.bar) > SEEN]
    return go.Scatter(
        mode="markers",
        name="bar to pass",
        x=[row.evidence.bar for row in placed],
        y=[row.y for row in placed],
        marker={"symbol": "line-ns-open", "size": 16, "color": theme.INK, "line": {"width": 2}},
        hoverinfo="skip",
        showlegend=bool(placed),
    )


def _labels(rows: tuple[ClaimRow, ...]) -> go.Scatter:
    return go.Scatter(
        mode="text",
        x=[EDGE] * len(rows),
        y=[row.y for row in rows],
        text=[theme.safe(value_words(row.evidence)) for row in rows],
        textposition="middle right",
        textfont={"size": 11, "color": theme.INK},
        hoverinfo="skip",
        showlegend=False,
    )


def rows(info: ClaimsInfo) -> list[dict[str, str | int | float | None]]:
    """What is drawn, a record a deciding number."""
    found = [row.evidence for row in info.rows]
    return [
        {
            "number": each.name, "verdict": each.verdict, "unit": each.unit, "value": each.value, "low": each.low,
            "high": each.high, "bar": each.bar, "requests": each.requests,
            **{f"case {case}": value for case, value in each.by_case.items()},
        }
        for each in found
    ]  # fmt: skip


def plot(result: ClaimsResult, claims: Sequence[str] | None = None, dark: bool = False) -> go.Figure:
    """Whether each claim holds, and by what numbers.

    claims: which, by their keys ("C1"); all for None. dark: for dark paper. Raises SurgeryError where there is no such
    claim.
    """
    return theme.shown(draw(compute(result, claims)), dark)


def write_page(path: Path, result: ClaimsResult) -> None:
    """Write the figure and what was found in words as one file that needs nothing else."""
    info = compute(result)
    figure = embed("claims", draw(info), rows(info))
    write_text(path, page.render("claims.html.jinja", figure=figure, result=result, words=value_words))
