"""Results about whole cases: every evaluation of one over time, and two side by side."""

from typing import ClassVar

from pydantic import Field

from vlsurgery.probes.evaluation.thresholds import enough
from vlsurgery.probes.results import Rate
from vlsurgery.surgery.results import Frozen, Result


class HistoryRow(Frozen):
    """One rate of one evaluation. line: of history.jsonl, from 1."""

    line: int
    time: str
    role: str
    set: str
    modality: str
    measure: str
    rate: float
    low: float | None
    high: float | None
    requests: int

    @property
    def whole(self) -> Rate:
        return Rate(rate=self.rate, low=self.low, high=self.high, n=self.requests, requests=self.requests)


class HistoryLook(Frozen):
    """One look at `report` prompts. compared_with: the line of the evaluation that it was compared with. note: why it
    was not compared."""

    line: int
    time: str
    step: str
    roles: list[str]
    prompts_digest: str | None
    judge: str | None
    compared_with: int | None = None
    note: str | None = None


class HistoryChange(Frozen):
    """A rate that changed by more than its 95% interval allows for.

    line, since: of the later and the earlier evaluation. difference: later minus earlier, in [-1, 1], with the interval
    of independent prompts, which for the same prompts is wider than needed.
    """

    line: int
    since: int
    role: str
    set: str
    modality: str
    measure: str
    difference: float
    low: float
    high: float
    words: str


class HistoryResult(Result):
    """A row a rate of every evaluation; the looks themselves; and what changed from one to the next."""

    kind: ClassVar[str] = "history"
    row_field: ClassVar[str] = "records"
    shown: ClassVar[tuple[str, ...]] = ("time", "role", "set", "modality", "measure", "rate", "low", "high")

    records: list[HistoryRow] = Field(alias="rows")
    looks: list[HistoryLook]
    changes: list[HistoryChange]
    notes: list[str]
    verdict: str


class ComparedRow(Frozen):
    """One rate in both cases, and the difference: second minus first, in [-1, 1], with a 95% interval.

    paired: from the same prompts, with p of the exact McNemar test; else of independent prompts. requests: on which the
    difference rests, of the smaller case where unpaired. note: on what it rests.
    """

    role: str
    set: str
    modality: str
    measure: str
    first: Rate
    second: Rate
    paired: bool
    difference: float
    low: float | None
    high: float | None
    p: float | None = None
    requests: int
    note: str

    @property
    def differs(self) -> bool:
        """Whether the difference is beyond its interval, on enough requests for words."""
        beyond = self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)
        return beyond and enough(self.requests)


class CaseComparison(Result):
    """A row a role, prompt set, modality and measure that two cases share. notes: what only one of them has."""

    kind: ClassVar[str] = "comparison"
    row_field: ClassVar[str] = "records"
    shown: ClassVar[tuple[str, ...]] = (
        "role", "set", "modality", "measure", "first.rate", "second.rate", "difference", "p",
    )  # fmt: skip

    records: list[ComparedRow] = Field(alias="rows")
    judge: str
    notes: list[str]
    verdict: str
