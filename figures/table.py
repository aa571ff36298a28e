"""The behaviour table as data: a row a prompt set and kind of picture, a column a role."""

from dataclasses import dataclass

from vlsurgery.figures.behaviour import Bar, BarGroup, BehaviourInfo, hover_lines
from vlsurgery.figures.wording import ROLE_ORDER, cell_name, interval, percent, points, rank, role_name
from vlsurgery.probes.results import BehaviourResult


@dataclass(frozen=True)
class TableCell:
    """One role on one prompt set. value: the deciding rate, or a dash. bounds: its interval. aside: refusals of a
    harmless set, where there are any. title: everything, for hovering. share: of the cell's bar; None if absent."""

    value: str
    bounds: str
    aside: str
    title: str
    share: float | None


@dataclass(frozen=True)
class TableRow:
    label: str
    counts: str
    measure: str
    cells: tuple[TableCell, ...]


@dataclass(frozen=True)
class BehaviourTable:
    """Roles as columns; harmful rows (share refused) above harmless ones (share right, or answered)."""

    roles: tuple[str, ...]
    harmful: tuple[TableRow, ...]
    harmless: tuple[TableRow, ...]


ABSENT = TableCell("–", "", "", "not measured", None)
_MEASURES = {"refused": "refused", "right": "right", "complied": "answered"}


def _cell(bar: Bar) -> TableCell:
    rate = bar.headline
    if rate.rate is None:
        return TableCell("–", "", "", f"not measured: {rate.reason or 'no reason given'}", None)
    refused = bar.row.refused.rate
    aside = f"{percent(refused)} refused" if bar.measure != "refused" and refused else ""
    return TableCell(percent(rate.rate), interval(rate.low, rate.high), aside, "; ".join(hover_lines(bar)), rate.rate)


def _row(group: BarGroup, roles: tuple[str, ...]) -> TableRow:
    bars = {bar.row.role: bar for bar in group.bars}
    measures = sorted({_MEASURES[bar.measure] for bar in group.bars if bar.headline.rate is not None})
    cells = tuple(_cell(bars[role]) if role in bars else ABSENT for role in roles)
    return TableRow(group.label, group.counts, " / ".join(measures), cells)


def compute(info: BehaviourInfo) -> BehaviourTable:
    """Turn groups into table rows; a role that has no row in a group gets a dash there."""
    groups = [*info.harmful, *info.harmless]
    roles = tuple(sorted({b.row.role for g in groups for b in g.bars}, key=lambda role: rank(ROLE_ORDER, role)))
    return BehaviourTable(
        roles=roles,
        harmful=tuple(_row(group, roles) for group in info.harmful),
        harmless=tuple(_row(group, roles) for group in info.harmless),
    )


@dataclass(frozen=True)
class PairedRow:
    """One paired test in words."""

    comparison: str
    where: str
    measure: str
    difference: str
    requests: int


def paired(behaviour: BehaviourResult) -> tuple[PairedRow, ...]:
    """Every paired test of a result once, in the order it has them."""
    return tuple(
        PairedRow(
            comparison=f"{role_name(test.role)} against {role_name(test.against)}",
            where=cell_name(test.set, test.modality),
            measure=test.measure,
            difference=points(test.difference, test.low, test.high),
            requests=test.requests,
        )
        for test in behaviour.paired
    )
