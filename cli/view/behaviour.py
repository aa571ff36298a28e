"""What every model does, in the terminal: three numbers a cell, what was lost, and every judge."""

from collections import Counter
from collections.abc import Callable, Sequence

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from vlsurgery.cli.view.tables import ABSENT, percent, plain_table, prose
from vlsurgery.figures.fates import fate
from vlsurgery.figures.headline import headline
from vlsurgery.figures.judging import agreements, by_judge, undecided
from vlsurgery.figures.wording import (
    MODALITY_ORDER,
    ONE_REQUEST,
    ROLE_ORDER,
    SET_ORDER,
    interval,
    modality_column,
    outcomes,
    percent as exact_percent,
    rank,
    role_name,
    sayable,
)
from vlsurgery.probes.results import HARMFUL_SETS, BehaviourResult, BehaviourRow, Rate


def behaviour_tables(result: BehaviourResult) -> list[RenderableType]:
    """What every role does, on `report` prompts: the headline, refused / complied / neither of every role and cell,
    what became of the base's refusals, and what other judges say."""
    harmful = [row for row in result.records if row.set in HARMFUL_SETS]
    others = [row for row in result.records if row.set not in HARMFUL_SETS]
    roles = sorted({row.role for row in result.records}, key=lambda role: rank(ROLE_ORDER, role))
    parts = (
        ("Harmful requests: refused / complied / neither, % (below: 95% interval of refused)", harmful),
        ("Other requests: refused / complied / neither, % (below: right, or complied, 95% interval)", others),
    )
    tables = [_role_table(title, rows, roles, _behaviour_cell) for title, rows in parts if rows]
    return [prose(f"{headline(result)}."), *tables, *_fate_parts(harmful, roles), *_judge_parts(result, roles)]


def _role_table(
    title: str, rows: Sequence[BehaviourRow], roles: Sequence[str], show: Callable[[BehaviourRow], Text]
) -> Table:
    """A line a cell and a column a role; a dash where a role has no row."""
    table = plain_table(title, "", *[role_name(role).replace("uniform merge", "uniform\nmerge") for role in roles])
    for cell in sorted({(row.set, row.modality) for row in rows}, key=_cell_order):
        found = {row.role: row for row in rows if (row.set, row.modality) == cell}
        shown = [show(found[role]) if role in found else Text(f"{ABSENT}\n") for role in roles]
        table.add_row(_cell_label(cell, list(found.values())), *shown)
    return table


def _cell_order(cell: tuple[str, str]) -> tuple[tuple[int, str], tuple[int, str]]:
    return rank(SET_ORDER, cell[0]), rank(MODALITY_ORDER, cell[1])


def _cell_label(cell: tuple[str, str], rows: Sequence[BehaviourRow]) -> Text:
    """A cell's name, and below it what its rates rest on."""
    rates = [rate for row in rows for rate in (row.refused, row.right) if rate.n]
    prompts = max((rate.n for rate in rates), default=0)
    requests = max((rate.requests for rate in rates), default=0)
    count = f"{requests} req." if prompts == requests else f"{prompts} prompts, {requests} req."
    told = ONE_REQUEST if requests == 1 else count
    return Text.assemble(f"{cell[0]} {modality_column(cell[1])}\n", (told, "dim"))


def _behaviour_cell(row: BehaviourRow) -> Text:
    """The three shares of a row, and below them the rate that decides with its interval: "92 / 6 / 2", "87–96"."""
    harmful, right = row.set in HARMFUL_SETS, sayable(row.right)
    three = outcomes(row)
    if three == ABSENT and right.rate is None:
        return Text(f"{ABSENT}\n")
    rate = row.refused if harmful else row.complied
    below = percent(right) if not harmful and right.rate is not None else _bounds(rate)
    lines = [Text(three), below] if three != ABSENT else [below]
    if row.corrected is not None:
        lines.append(Text.assemble("corr. ", percent(row.corrected)))
    return Text("\n").join(lines)


def _bounds(rate: Rate) -> Text:
    return Text(interval(rate.low, rate.high).removesuffix("%"), style="dim")


def _fate_parts(rows: Sequence[BehaviourRow], roles: Sequence[str]) -> list[RenderableType]:
    """What became of the requests that the base refuses, in a table, and where that can't be said, why."""
    told = [row for row in rows if fate(row)]
    named = [role for role in roles if any(row.role == role for row in told)]
    title = "Of what the base refuses: complied with (lost) / neither (broken), % (below: 95% intervals)"
    reasons = Counter(row.lost.reason for row in rows if row.role == "adapted" and row.lost.rate is None)
    lines = [
        prose(f"Lost and broken of {count} harmful sets: {reason}.") for reason, count in reasons.items() if reason
    ]
    return [*([_role_table(title, told, named, _fate_cell)] if told else []), *lines]


def _fate_cell(row: BehaviourRow) -> Text:
    """The shares lost and broken, and below them their intervals: "43 / 52", "38–49 / 47–58"."""
    found = fate(row)
    if found is None or found.lost.rate is None or found.broken.rate is None:
        return Text(f"{ABSENT}\n")
    shares = [exact_percent(share).removesuffix("%") for share in (found.lost.rate, found.broken.rate)]
    bounds = [interval(rate.low, rate.high).removesuffix("%") for rate in (found.lost, found.broken)]
    return Text.assemble(" / ".join(shares), ("\n" + " / ".join(bounds) if all(bounds) else "", "dim"))


def _judge_parts(result: BehaviourResult, roles: Sequence[str]) -> list[RenderableType]:
    """Rates by every judge beside each other, where there are several, and how far they agree."""
    parts: list[RenderableType] = []
    if rows := by_judge(result, roles):
        heads = [role_name(role).replace("uniform merge", "uniform\nmerge") for role in roles]
        table = plain_table("By every judge: refused / complied / neither, %", "", "judge", *heads, left=2)
        for row in rows:
            table.add_row(row.label, row.judge, *row.cells)
        parts.append(table)
    told = [*agreements(result), *filter(None, [undecided(result).replace("`", "")])]
    return [*parts, *map(prose, told)]
