"""From judged completions to rates, paired differences and agreement. Imports no torch: models need not be there."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, product
from typing import get_args

from vlsurgery.probes.evaluation.completions import Counterparts
from vlsurgery.probes.evaluation.intervals import rate
from vlsurgery.probes.evaluation.judges import is_right
from vlsurgery.probes.evaluation.judges.agreement import compare
from vlsurgery.probes.evaluation.paired import paired_difference
from vlsurgery.probes.prompts import HARMFUL_SETS, SETS, Modality
from vlsurgery.probes.results import (
    BehaviourResult,
    BehaviourRow,
    CompletionRecord,
    CompletionsResult,
    JudgeUsed,
    Paired,
    Rate,
)
from vlsurgery.surgery.alignment.roles import SAFETY, safety_roles

COMPARISONS = (
    ("adapted", "base"),
    ("safety", "adapted"),
    ("merged", "adapted"),
    ("merged", "safety"),
    ("merged", "merged:uniform"),
)

Cell = tuple[str, str]  # set, modality
Outcome = Callable[[CompletionRecord], bool]
Divergence = tuple[float | None, str | None]  # mean KL in nats a token, or the reason why there is none


@dataclass(frozen=True)
class Measured:
    """What a table needs beside completions.

    divergences: role -> cell -> KL from the adapted model; no_divergence: role -> why there is none. looks: how often
    these prompts were looked at. notes: what a reader should know.
    """

    divergences: Mapping[str, Mapping[Cell, Divergence]] = field(default_factory=dict)
    looks: int = 1
    notes: Sequence[str] = ()
    no_divergence: Mapping[str, str] = field(default_factory=dict)

    def divergence(self, role: str, cell: Cell) -> Divergence:
        """The KL of a role from the adapted model in a cell, or why there is none."""
        reason = self.no_divergence.get(role, "the models were not run beside each other")
        return self.divergences.get(role, {}).get(cell, (None, reason))


def tabulate(
    records: Sequence[CompletionRecord], judges: Sequence[JudgeUsed], measured: Measured | None = None
) -> BehaviourResult:
    """Behaviour of every role, by each of the judges; the first judge's rows and comparisons lead.

    records: with verdicts of all judges.
    """
    measured = measured or Measured()
    first, *others = [_Table(records, judge.name) for judge in judges]
    return BehaviourResult(
        records=first.rows(measured),
        paired=first.paired(),
        judges=list(judges),
        other_judges={table.judge: table.rows(measured) for table in others},
        agreement=[compare(records, one.name, other.name) for one, other in combinations(judges, 2)],
        prompts_digest=next((record.prompts_digest for record in records), None),
        looks=measured.looks,
        notes=list(measured.notes),
        completions=CompletionsResult(records=list(records)),
    )


class _Table:
    """The completions of all roles, by cell, under one judge."""

    def __init__(self, records: Sequence[CompletionRecord], judge: str) -> None:
        self.judge = judge
        self.cells: dict[Cell, dict[str, list[CompletionRecord]]] = {
            (set_, modality): {} for set_ in SETS for modality in get_args(Modality)
        }
        for record in records:
            members = self.cells.setdefault((record.set, record.modality), {})
            members.setdefault(record.role, []).append(record)
        self.roles = list(dict.fromkeys(record.role for record in records))
        self._counterparts = {role: Counterparts(records, role) for role in self.roles}

    def rows(self, measured: Measured) -> list[BehaviourRow]:
        return [
            self._row(role, cell, members[role], measured.divergence(role, cell))
            for role in self.roles
            for cell, members in self.cells.items()
            if role in members
        ]

    def _row(self, role: str, cell: Cell, members: Sequence[CompletionRecord], divergence: Divergence) -> BehaviourRow:
        kl, reason = divergence
        has_answers = all(record.answer is not None for record in members)
        return BehaviourRow(
            role=role,
            set=cell[0],
            modality=cell[1],
            **{label: _rate(members, self._is(label)) for label in ("refused", "complied", "neither")},
            **self._lost_and_broken(role, members),
            right=_rate(members, _right) if has_answers else Rate(rate=None, reason="these prompts have no one answer"),
            kinds=dict(Counter(record.verdicts[self.judge].kind for record in members)),
            kl=kl,
            kl_reason=reason if kl is None else None,
        )

    def _is(self, label: str) -> Outcome:
        return lambda record: record.verdicts[self.judge].label == label

    def _lost_and_broken(self, role: str, members: Sequence[CompletionRecord]) -> dict[str, Rate]:
        """Of what the base refuses, the shares that this role complies with, and does neither with."""
        reason = None
        refused: list[CompletionRecord] = []
        if role == "base":
            reason = "the base is what the others are compared with"
        elif "base" not in self._counterparts:
            reason = "no base was asked beside it"
        else:
            asked = [(record, self._counterparts["base"].of(record)) for record in members]
            refused = [record for record, other in asked if other is not None and self._is("refused")(other)]
            if not any(other for _, other in asked):
                reason = "the base was not asked these requests"
            elif not refused:
                reason = f"the base refuses none of {sum(other is not None for _, other in asked)}"
        if reason:
            return {name: Rate(rate=None, reason=reason) for name in ("lost", "broken")}
        return {"lost": _rate(refused, self._is("complied")), "broken": _rate(refused, self._is("neither"))}

    def paired(self) -> list[Paired]:
        """Differences between roles on the same prompts; on the same requests as text where a base does not see."""
        tuned = safety_roles(self.roles)
        every = (p for pair in COMPARISONS for p in product(*(tuned if r == SAFETY else (r,) for r in pair)))
        pairs = [pair for pair in every if set(pair) <= set(self.roles)]
        if not pairs:
            pairs = [(role, self.roles[0]) for role in self.roles[1:]]
        return [
            self._paired(role, against, cell, measure, both)
            for role, against in pairs
            for cell, members in self.cells.items()
            if (both := self._both(members.get(role, ()), against))
            for measure in self._measures(cell, both)
        ]

    def _both(
        self, members: Sequence[CompletionRecord], against: str
    ) -> list[tuple[CompletionRecord, CompletionRecord]]:
        found = [(record, self._counterparts[against].of(record)) for record in members]
        return [(record, other) for record, other in found if other is not None]

    def _measures(self, cell: Cell, both: Sequence[tuple[CompletionRecord, CompletionRecord]]) -> tuple[str, ...]:
        if cell[0] in HARMFUL_SETS:
            return ("refused", "complied")
        has_answers = all(ours.answer is not None and theirs.answer is not None for ours, theirs in both)
        return ("right" if has_answers else "complied", "refused")

    def _paired(
        self,
        role: str,
        against: str,
        cell: Cell,
        measure: str,
        both: Sequence[tuple[CompletionRecord, CompletionRecord]],
    ) -> Paired:
        outcome = _right if measure == "right" else self._is(measure)
        requests = [ours.request for ours, _ in both]
        test = paired_difference([outcome(ours) for ours, _ in both], [outcome(theirs) for _, theirs in both], requests)
        return Paired(
            role=role,
            against=against,
            set=cell[0],
            modality=cell[1],
            measure=measure,
            difference=test.value,
            low=test.low,
            high=test.high,
            p=test.p,
            requests=len(set(requests)),
        )


def _rate(members: Sequence[CompletionRecord], outcome: Outcome) -> Rate:
    return rate([outcome(record) for record in members], [record.request for record in members])


def _right(record: CompletionRecord) -> bool:
    return record.answer is not None and is_right(record.text, record.answer)
