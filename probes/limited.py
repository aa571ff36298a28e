"""The least intervention that is predicted to keep a user's limits, from the gradients of the prompts.

Some limits say what whole answers must be; of those, the ones that follow from refusing or answering become promises
about the log-odds. `complied_at_most = 0.05` is kept where at least 95% is refused. No model is run.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final

import numpy as np

from vlsurgery.probes.evaluation.limits import Limits
from vlsurgery.probes.frontier import predicted_cells
from vlsurgery.probes.linearised import RADIUS, LinearModel, Region, solve, unseen
from vlsurgery.probes.objective import PRICES, Floats, Purpose, Requirements
from vlsurgery.probes.results import Rate

# What is tried: prices of an over-refusal, of sight where a limit is about it, and of change.
OVER_REFUSALS: Final = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
SIGHTS: Final = (1.0, 5.0)
CHANGES: Final = (0.0, 0.005, 0.02, 0.08, 0.3)
FACTORS: Final = (4.0, 1.5, 1.1)  # by which change gets dearer while the limits hold, first fast, then carefully
DEAREST: Final = 1000.0  # price of change at which nothing moves
SLACK: Final = 1e-9

# Purpose -> limit -> (whether the share must be high, share that it must reach as a function of the bound).
_AT_LEAST: Final[Mapping[Purpose, Mapping[str, bool]]] = {
    "refuse": {"refused_at_least": True, "complied_at_most": False, "lost_at_most": False},
    "answer": {"refused_at_least": True},
    "keep": {"right_drop_at_most": False},
}
_AT_MOST: Final[Mapping[Purpose, Mapping[str, bool]]] = {
    "refuse": {"refused_at_most": True, "complied_at_least": False},
    "answer": {"refused_at_most": True, "complied_at_least": False},
    "keep": {},
}


@dataclass(frozen=True)
class Promise:
    """What a limit asks of one cell's share in `predicted_cells`: at least, or at most, `share`."""

    set: str
    modality: str
    limit: str
    bound: float
    purpose: Purpose
    at_least: bool
    share: float

    def missing(self, found: Rate, by_interval: bool) -> float:
        """How far a share is from it; 0 or less where it is kept. by_interval: at the interval's pessimistic end."""
        assert found.rate is not None
        end = found.low if self.at_least else found.high
        value = end if by_interval and end is not None else found.rate
        return self.share - value if self.at_least else value - self.share

    def __str__(self) -> str:
        return f"{self.set}.{self.modality} {self.limit} {self.bound:g}"


def promises(limits: Limits, wanted: Requirements) -> list[Promise]:
    """The limits that can be predicted, cell by cell; others only show in whole answers."""
    known = {
        (cell.set, cell.modality) for cell in predicted_cells(wanted, wanted.reference) if cell.share.rate is not None
    }
    found = []
    for (set_, modality), purpose in zip(wanted.names, wanted.cell_purposes, strict=True):
        if (set_, modality) not in known:
            continue
        for limit, bound in limits.of(set_, modality).items():
            for at_least, table in ((True, _AT_LEAST[purpose]), (False, _AT_MOST[purpose])):
                if limit in table:
                    share = bound if table[limit] else 1 - bound
                    found.append(Promise(set_, modality, limit, bound, purpose, at_least, share))
    return found


def shares(wanted: Requirements, z: Floats, of: Sequence[Promise]) -> list[Rate]:
    """The share that each promise is about, at log-odds z [n]."""
    cells = {(cell.set, cell.modality): cell.share for cell in predicted_cells(wanted, z)}
    return [cells[promise.set, promise.modality] for promise in of]


@dataclass(frozen=True)
class Candidate:
    """A solution. shares: predicted, of each promise. missing: by how much each is missed, margins included."""

    prices: Mapping[Purpose, float]
    change: float
    coefficients: Floats
    shares: tuple[Rate, ...]
    missing: tuple[float, ...]

    @property
    def is_kept(self) -> bool:
        return self.worst <= SLACK

    @property
    def worst(self) -> float:
        return max(self.missing)

    @property
    def intervention(self) -> float:
        """The sum of its coefficients."""
        return float(self.coefficients.sum())


@dataclass(frozen=True)
class LeastWithin:
    """Looks for the least intervention in one linear model.

    promised: at least one. by_interval: whether the pessimistic end of an interval must keep a promise. margins: how
    much more of each share is asked for, because a measurement fell short of the prediction by that.
    """

    model: LinearModel
    proximity: float
    promised: Sequence[Promise]
    by_interval: bool
    margins: Sequence[float]

    @property
    def region(self) -> Region:
        """Down to no change at all, for that is where the least intervention lies; up as far as a step may go."""
        return replace(self.model.region(RADIUS), lower=np.zeros_like(self.model.at))

    @cached_property
    def unchanged(self) -> Candidate:
        """The adapted model itself, which the linear model may not be right about: it is measured like any other."""
        nothing = np.zeros_like(self.model.at)
        return self.judged(PRICES, np.inf, nothing, self.model.predicted(nothing))

    @cached_property
    def candidates(self) -> list[Candidate]:
        """Solutions at every combination of prices."""
        sights = SIGHTS if any(promise.purpose == "keep" for promise in self.promised) else SIGHTS[:1]
        return [
            self.at({**PRICES, "answer": over_refusal, "keep": sight}, change)
            for over_refusal, sight, change in itertools.product(OVER_REFUSALS, sights, CHANGES)
        ]

    def at(self, prices: Mapping[Purpose, float], change: float) -> Candidate:
        """The solution at these prices, with what it is predicted to keep on prompts that it was not solved on."""
        model = replace(self.model, wanted=replace(self.model.wanted, prices=dict(prices)))
        found = solve(model, self.region, None, self.proximity, price=change)
        return self.judged(prices, change, found, unseen(model, self.region, self.proximity, change))

    def judged(self, prices: Mapping[Purpose, float], change: float, coefficients: Floats, z: Floats) -> Candidate:
        """Coefficients with what they keep. z: [n] log-odds that they are predicted to have."""
        told = shares(self.model.wanted, z, self.promised)
        missing = (
            promise.missing(share, self.by_interval) + margin
            for promise, share, margin in zip(self.promised, told, self.margins, strict=True)
        )
        return Candidate(prices, change, coefficients, tuple(told), tuple(missing))

    def found(self) -> Candidate:
        """The least intervention that keeps every promise, about; where none does, the one that is nearest to it."""
        if self.unchanged.is_kept:
            return self.unchanged
        kept = [each for each in self.candidates if each.is_kept]
        if not kept:
            return min(self.candidates, key=lambda each: (each.worst, each.intervention))
        return self.lessened(min(kept, key=lambda each: each.intervention))

    def lessened(self, least: Candidate) -> Candidate:
        """A candidate that keeps every promise, with the price of change raised as far as it goes on doing so."""
        change = max(least.change, CHANGES[1])
        for factor in FACTORS:
            while change < DEAREST and (dearer := self.at(least.prices, change * factor)).is_kept:
                change *= factor
                least = min(least, dearer, key=lambda each: each.intervention)
        return least

    def why_not(self, nearest: Candidate) -> str:
        """Which promise the nearest solution misses by most, and whether they contradict each other."""
        at = int(np.argmax(nearest.missing))
        promise, share = self.promised[at], nearest.shares[at]
        word, end = ("least", share.low) if promise.at_least else ("most", share.high)
        bound = f", at {word} {end:.1%} by its interval" if self.by_interval and end is not None else ""
        gap = f"{100 * nearest.missing[at]:.1f} points"
        told = f"{promise} binds: it is missed by {gap} (predicted {share.rate:.1%}{bound})"
        tried = [self.unchanged, *self.candidates]
        alone = [any(each.missing[i] <= SLACK for each in tried) for i in range(len(self.promised))]
        missed = [str(p) for p, miss in zip(self.promised, nearest.missing, strict=True) if miss > SLACK]
        if all(alone):
            return f"the limits contradict each other on these models: each can be kept alone, not all at once; {told}"
        rest = [name for name in missed if name != str(promise)]
        return told + (f"; missed too: {', '.join(rest)}" if rest else "")
