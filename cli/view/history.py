"""The history of a case as a table: a rate a line, an evaluation a column."""

from typing import TYPE_CHECKING

from rich.console import RenderableType
from rich.text import Text

from vlsurgery.cli.view.tables import percent, plain_table, prose
from vlsurgery.figures.wording import cell_name, role_name

if TYPE_CHECKING:
    from vlsurgery.probes.case_results import HistoryResult, HistoryRow

EVALUATIONS = 5  # as many columns as 100 characters hold


def history_tables(result: "HistoryResult") -> list[RenderableType]:
    """The latest evaluations beside each other, then what changed, in words."""
    evaluated = sorted({row.line for row in result.records})
    shown = evaluated[-EVALUATIONS:]
    times = {look.line: look.time for look in result.looks}
    cells: dict[tuple[str, str, str], dict[int, HistoryRow]] = {}
    for row in result.records:
        key = (role_name(row.role), cell_name(row.set, row.modality), row.measure)
        cells.setdefault(key, {})[row.line] = row
    heads = [f"line {line}\n{times[line][:10]}\n{times[line][11:16]}" for line in shown]
    table = plain_table("Rates, % (and 95% interval), by line of history.jsonl", "", *heads)
    for key, rows in cells.items():
        if any(line in rows for line in shown):
            table.add_row(", ".join(key), *[_cell(rows.get(line)) for line in shown])
    looks = f"{len(result.looks)} looks at report prompts, {len(evaluated)} of them with rates"
    looks += f" (the last {len(shown)} are shown)." if len(shown) < len(evaluated) else "."
    changes = [f"line {change.since} to {change.line}: {change.words}" for change in result.changes]
    parts: list[RenderableType] = [table] if shown else []
    return [*parts, prose(looks), *map(prose, changes), *map(prose, result.notes), Text(result.verdict, style="bold")]


def _cell(row: "HistoryRow | None") -> Text:
    return percent(None if row is None else row.whole)
