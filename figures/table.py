"""The behaviour table as data: a row a prompt set and kind of picture, a column a role; and the paired tests."""

from dataclasses import dataclass

from vlsurgery.figures.behaviour import Bar, BarGroup, BehaviourInfo, hover_lines, three
from vlsurgery.figures.fates import fate
from vlsurgery.figures.wording import (
    OUTCOMES,
    ROLE_ORDER,
    cell_name,
    interval,
    percent,
    points,
    rank,
    rate_words,
    role_name,
)
from vlsurgery.probes.results import BehaviourResult


@dataclass(frozen=True)
class TableCell:
    """One role on one prompt set.

    value: refused / complied / neither in per cent, or a dash. shares: the same as numbers, for the cell's bar; empty
    if absent. deciding: the rate that decides with its interval, in words. fate: what became of the base's refusals.
    corrected: the refused rate corrected for the judge's errors. title: everything, for hovering.
    """

    value: str
    shares: tuple[float, ...]
    deciding: str
    fate: str
    corrected: str
    title: str


@dataclass(frozen=True)
class TableRow:
    label: str
    counts: str
    cells: tuple[TableCell, ...]


@dataclass(frozen=True)
class BehaviourTable:
    """Roles as columns; harmful rows above harmless ones."""

    roles: tuple[str, ...]
    harmful: tuple[TableRow, ...]
    harmless: tuple[TableRow, ...]


ABSENT = TableCell("–", (), "", "", "", "not measured")


def _cell(bar: Bar) -> TableCell:
    rates = [bar.outcome(name).rate for name in OUTCOMES]
    shares = tuple(rate for rate in rates if rate is not None)
    whole = len(shares) == len(OUTCOMES)
    if not whole and bar.headline.rate is None:
        reason = bar.outcome("refused").reason or bar.headline.reason or "no reason given"
        return TableCell("–", (), "", "", "", f"not measured: {reason}")
    return TableCell(
        value=three(bar),
        shares=shares if whole else (),
        deciding=_deciding(bar),
        fate=_fate(bar),
        corrected="" if bar.row.corrected is None else f"corr. {rate_words(bar.row.corrected)}",
        title="; ".join(hover_lines(bar)),
    )


def _deciding(bar: Bar) -> str:
    """The rate that decides with its interval; only the interval where the rate is one of the three shares."""
    rate = bar.headline
    if rate.rate is None:
        return ""
    return f"{bar.measure} {rate_words(rate) if bar.measure == 'right' else interval(rate.low, rate.high)}".strip()


def _fate(bar: Bar) -> str:
    found = fate(bar.row)
    if found is None or found.lost.rate is None or found.broken.rate is None:
        return ""
    return f"lost {percent(found.lost.rate)}, broken {percent(found.broken.rate)}"


def _row(group: BarGroup, roles: tuple[str, ...]) -> TableRow:
    bars = {bar.row.role: bar for bar in group.bars}
    cells = tuple(_cell(bars[role]) if role in bars else ABSENT for role in roles)
    return TableRow(group.label, group.counts, cells)


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
    p: str
    requests: int


def paired(behaviour: BehaviourResult) -> tuple[PairedRow, ...]:
    """Every paired test of a result once, in the order it has them."""
    return tuple(
        PairedRow(
            comparison=f"{role_name(test.role)} against {role_name(test.against)}",
            where=cell_name(test.set, test.modality),
            measure=test.measure,
            difference="–" if test.requests < 2 else points(test.difference, test.low, test.high),
            p="–" if test.requests < 2 else _p(test.p),
            requests=test.requests,
        )
        for test in behaviour.paired
    )


def _p(value: float | None) -> str:
    """A p value with two digits that matter; very small ones as a bound."""
    if value is None:
        return "–"
    return "< 0.0001" if value < 0.0001 else f"{value:.2g}"
