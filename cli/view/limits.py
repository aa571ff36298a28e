"""The user's limits as a table: what was measured, what is allowed, and what decided."""

from rich.console import RenderableType
from rich.text import Text

from vlsurgery.cli.view.tables import ABSENT, number, plain_table, prose
from vlsurgery.figures.wording import cell_name, interval, percent, points, rate_words, role_name
from vlsurgery.probes.evaluation.limits import LimitRow, LimitsResult
from vlsurgery.probes.results import TradeoffResult

MET = {True: Text("met", style="green"), False: Text("not met", style="bold red"), None: Text("open", style="yellow")}
SIGNS = {"most": "≤", "least": "≥"}


def limits_tables(result: LimitsResult) -> list[RenderableType]:
    """A line a limit, and last the verdict."""
    bound = "its interval" if result.bind == "interval" else "the rate"
    title = f"Limits of {role_name(result.role)}: {bound} must meet them"
    table = plain_table(title, "prompts", "measure", "measured", "limit", "requests", "", "more needed", left=2)
    for row in result.records:
        measure, _, end = row.limit.partition("_at_")
        cells = (_value(row), f"{SIGNS[end]} {_share(row, row.bound)}", str(row.requests) if row.requests else ABSENT)
        place = row.set if row.modality is None else cell_name(row.set, row.modality)
        table.add_row(place, _measure(measure), *cells, MET[row.met], ABSENT if row.needed is None else str(row.needed))
    reasons = dict.fromkeys(_reason(row) for row in result.records if row.met is None and row.reason)
    return [table, *map(prose, reasons), Text(result.verdict, style="bold")]


def predicted_limits_table(result: TradeoffResult) -> list[RenderableType]:
    """A line a limit that the choice looked to; nothing where it looked to none."""
    if not result.limits:
        return []
    names = ("prompts", "limit", "predicted share (95%)", "measured on select")
    table = plain_table("Limits that the choice looked to, by what refusing is likelier than not", *names, left=2)
    for row in result.limits:
        limit = f"{row.limit} {row.bound:g}"
        table.add_row(cell_name(row.set, row.modality), limit, rate_words(row.predicted), rate_words(row.measured))
    return [table]


def _measure(name: str) -> str:
    return {"right_drop": "drop of right answers", "kl": "KL, nats"}.get(name, name)


def _share(row: LimitRow, value: float) -> str:
    """A bound or a measurement in the limit's unit: per cent, or nats."""
    return number(value) if row.limit == "kl_at_most" else percent(value)


def _value(row: LimitRow) -> str:
    if row.rate is None:
        return ABSENT
    if row.limit == "right_drop_at_most":
        return points(row.rate, row.low, row.high)
    bounds = interval(row.low, row.high)
    return f"{_share(row, row.rate)} ({bounds})" if bounds else _share(row, row.rate)


def _reason(row: LimitRow) -> str:
    place = row.set if row.modality is None else cell_name(row.set, row.modality)
    return f"{place}, {_measure(row.limit.partition('_at_')[0])}: not decided, {row.reason}."
