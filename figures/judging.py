"""Who judged and how: the judges, what they agree on, what each makes of every cell, and how often which kind."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from vlsurgery.figures.wording import (
    MODALITY_ORDER,
    SET_ORDER,
    cell_name,
    kind_name,
    listed,
    number,
    outcomes,
    percent,
    plural,
    rank,
    role_name,
)
from vlsurgery.probes.results import HARMFUL_SETS, KINDS, BehaviourResult, CompletionsResult


@dataclass(frozen=True)
class JudgedRow:
    """One prompt set and kind of picture by one judge. cells: refused / complied / neither, a role each."""

    label: str
    judge: str
    cells: tuple[str, ...]


def by_judge(behaviour: BehaviourResult, roles: Sequence[str]) -> tuple[JudgedRow, ...]:
    """The three shares by every judge, side by side; nothing where there is one judge."""
    if not behaviour.other_judges:
        return ()
    judged = {behaviour.judge.name: behaviour.records, **behaviour.other_judges}
    found = {(row.set, row.modality, judge, row.role): outcomes(row) for judge, rows in judged.items() for row in rows}
    cells = sorted({key[:2] for key in found}, key=lambda at: (rank(SET_ORDER, at[0]), rank(MODALITY_ORDER, at[1])))
    return tuple(
        JudgedRow(cell_name(*cell), judge, tuple(found.get((*cell, judge, role), "–") for role in roles))
        for cell in cells
        for judge in judged
    )


def agreements(behaviour: BehaviourResult) -> tuple[str, ...]:
    """How far each two judges agree, a sentence a pair."""
    return tuple(
        f"{one.judges[0]} and {one.judges[1]} give the same label to {percent(one.agreement)} of"
        f" {plural(one.n, 'completion')} (Cohen's kappa {number(one.kappa)}); they differ on {len(one.differing)}."
        for one in behaviour.agreement
    )


def undecided(behaviour: BehaviourResult) -> str:
    """Which completions were cut at the limit of tokens before they were decided; nothing where none was."""
    cut: Counter[str] = Counter()
    for row in behaviour.records:
        cut[f"{role_name(row.role)} on {cell_name(row.set, row.modality)}"] += row.kinds.get("undecided", 0)
    told = [f"{count} of {where}" for where, count in cut.items() if count]
    if not told:
        return ""
    return (
        f"Cut at {behaviour.judge.tokens} tokens before they were decided, and counted as neither: {listed(told)}."
        " Ask with more `--tokens` to decide them."
    )


@dataclass(frozen=True)
class KindRow:
    """How often one kind of verdict was given. side: of harmful requests or of others. counts: a role each."""

    side: str
    kind: str
    counts: tuple[int, ...]


def kinds(
    behaviour: BehaviourResult, roles: Sequence[str], completions: CompletionsResult | None = None
) -> tuple[KindRow, ...]:
    """Counts of kinds by role, harmful sets apart from the others; kinds that no role has are left out.

    completions: counted where the behaviour itself, as those of older versions, holds no kinds.
    """
    found: Counter[tuple[bool, str, str]] = Counter()
    for set_, role, kind, count in [*_counted(behaviour)] or [*_said(completions)]:
        found[set_ in HARMFUL_SETS, role, kind] += count
    rows = [
        KindRow(side, kind_name(kind), tuple(found[harmful, role, kind] for role in roles))
        for side, harmful in (("harmful requests", True), ("other requests", False))
        for kind in KINDS
    ]
    return tuple(row for row in rows if any(row.counts))


def _counted(behaviour: BehaviourResult) -> Iterator[tuple[str, str, str, int]]:
    for row in behaviour.records:
        for kind, count in row.kinds.items():
            yield row.set, row.role, kind, count


def _said(completions: CompletionsResult | None) -> Iterator[tuple[str, str, str, int]]:
    for record in completions.records if completions else []:
        for verdict in list(record.verdicts.values())[:1]:
            yield record.set, record.role, verdict.kind, 1
