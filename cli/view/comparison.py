"""Two cases side by side as a table."""

from typing import TYPE_CHECKING

from rich.console import RenderableType
from rich.text import Text

from vlsurgery.cli.view.tables import ABSENT, percent, plain_table, prose
from vlsurgery.figures.wording import cell_name, role_name, signed

if TYPE_CHECKING:
    from vlsurgery.probes.case_results import CaseComparison, ComparedRow


def case_comparison_tables(result: "CaseComparison", first: str, second: str) -> list[RenderableType]:
    """A line a rate. first, second: what the cases are called."""
    title = f"Rates, % (and 95% interval), by {result.judge}; * beyond the interval of the difference"
    heads = (first, second, "points", "interval", "p", "req.")
    table = plain_table(title, "role", "prompts", "", *heads, left=3)
    for row in result.records:
        place = (role_name(row.role), cell_name(row.set, row.modality), row.measure)
        difference = signed(100 * row.difference, 1) + ("*" if row.differs else "")
        p = ABSENT if row.p is None else "<.001" if row.p < 0.001 else f"{row.p:.3f}".lstrip("0")
        numbers = (percent(row.first), percent(row.second), difference, _bounds(row), p, str(row.requests))
        table.add_row(*place, *numbers, style="bold" if row.differs else None)
    notes = list(dict.fromkeys(row.note for row in result.records))
    rests = [f"{note}: {'all' if len(notes) == 1 else _places(result, note)}." for note in notes]
    return [table, *map(prose, rests), *map(prose, result.notes), Text(result.verdict, style="bold")]


def _bounds(row: "ComparedRow") -> str:
    if row.low is None or row.high is None:
        return ABSENT
    return f"{signed(100 * row.low, 1)} to {signed(100 * row.high, 1)}"


def _places(result: "CaseComparison", note: str) -> str:
    places = dict.fromkeys(
        f"{role_name(row.role)} on {cell_name(row.set, row.modality)}" for row in result.records if row.note == note
    )
    return "; ".join(places)
