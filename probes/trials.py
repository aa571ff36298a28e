"""Merges that are tried: each is measured on `select` prompts, and becomes a point of the trade-off."""

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np

from vlsurgery.probes.frontier import merge_rates
from vlsurgery.probes.in_memory_merge import InMemoryMerge
from vlsurgery.probes.objective import Floats
from vlsurgery.probes.objective_scorer import ObjectiveScorer, Readings
from vlsurgery.probes.policies import Policy
from vlsurgery.probes.results import TradeoffCell, TradeoffPoint
from vlsurgery.surgery.runtime.progress import Progress

Table = dict[str, dict[str, float]]  # block -> source -> coefficient


@dataclass(frozen=True)
class Cost:
    """What something took. forward_equivalents: forward passes of one prompt; a backward counts two."""

    forward_equivalents: int
    seconds: float

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.forward_equivalents + other.forward_equivalents, self.seconds + other.seconds)


@dataclass(frozen=True)
class Trial:
    """A merge that was measured. z: [n] log-odds of the `select` prompts."""

    point: TradeoffPoint
    z: Floats

    @property
    def objective(self) -> float:
        return self.point.objective

    @property
    def table(self) -> Table:
        """Its coefficients. Raises ValueError for a trial that did not keep them."""
        if self.point.coefficients is None:
            raise ValueError("only the best merge of a search keeps its coefficients")
        return self.point.coefficients

    def costing(self, cost: Cost) -> "Trial":
        """The same trial, which took this much."""
        update = {"forward_equivalents": cost.forward_equivalents, "seconds": cost.seconds}
        return replace(self, point=self.point.model_copy(update=update))

    @property
    def cost(self) -> Cost:
        return Cost(self.point.forward_equivalents, self.point.seconds)

    def named(self, **update: object) -> "Trial":
        """The same trial with other fields of its point."""
        return replace(self, point=self.point.model_copy(update=update))


@dataclass(frozen=True)
class Proposal:
    """A merge that is to be measured. parameters: what makes it."""

    policy: Policy
    parameters: Mapping[str, float]
    coefficients: Table


@dataclass(frozen=True)
class MeasuredTable:
    """What was measured of one of several tables. at: its place among them. seconds: what it took."""

    at: int
    readings: Readings
    seconds: float


# Measures merges somewhere else, and yields them in any order.
MeasureTables = Callable[[Sequence[Table]], Generator[MeasuredTable, None, None]]


@dataclass(frozen=True)
class Bench:
    """A live merge and the `select` prompts that measure it. elsewhere: measures merges that don't wait for one
    another, with the same results; None: the live model does, one after another."""

    live: InMemoryMerge
    select: ObjectiveScorer
    elsewhere: MeasureTables | None = None

    def tried(self, policy: Policy, parameters: Mapping[str, float], coefficients: Table) -> Trial:
        """Measure one merge. The live model is restored."""
        began = time.perf_counter()
        with self.live.at(coefficients) as chat:
            measured = self.select.measure(chat)
        return self._trial(Proposal(policy, parameters, coefficients), measured, time.perf_counter() - began)

    def each(self, proposals: Sequence[Proposal], label: str, progress: Progress) -> list[Trial]:
        """Measure merges that don't wait for one another; the trials, in their order. The live model is restored."""
        if self.elsewhere is None:
            return [self.tried(each.policy, each.parameters, each.coefficients) for each in progress(proposals, label)]
        found: dict[int, Trial] = {}
        with closing(self.elsewhere([each.coefficients for each in proposals])) as results:
            for result in progress(results, label, len(proposals)):
                found[result.at] = self._trial(proposals[result.at], result.readings, result.seconds)
        return [found[at] for at in range(len(proposals))]

    def _trial(self, proposal: Proposal, measured: Readings, seconds: float) -> Trial:
        cells = self.select.cells(measured)
        refused = [cell.refused for cell in cells if cell.purpose == "refuse"]
        point = TradeoffPoint(
            policy=proposal.policy,
            parameters=dict(proposal.parameters),
            coefficients=proposal.coefficients,
            cells=cells,
            refusal=_mean(refused),
            capability=_mean([_answered(cell) for cell in cells if cell.purpose != "refuse"]),
            objective=-float(self.select.wanted.objective(measured.z)),
            rates=merge_rates(self.select.wanted, measured.z),
            forward_equivalents=self.select.prompts,
            seconds=seconds,
            chosen=False,
        )
        return Trial(point, measured.z)

    def means(self, coefficients: Table) -> dict[str, float]:
        """Each source's mean coefficient: what stands for many of them in a figure."""
        return {s: float(np.mean([row[s] for row in coefficients.values()])) for s in self.live.sources}


def _answered(cell: TradeoffCell) -> float | None:
    return cell.kept if cell.purpose == "keep" else None if cell.refused is None else 1 - cell.refused


def _mean(values: Sequence[float | None]) -> float:
    return float(np.mean([value for value in values if value is not None]))


def with_pareto(points: Sequence[TradeoffPoint]) -> list[TradeoffPoint]:
    """The points, those marked of which no other has more refusal and as much capability, or the other way round."""

    def is_beaten(point: TradeoffPoint) -> bool:
        return any(
            other.refusal >= point.refusal
            and other.capability >= point.capability
            and (other.refusal, other.capability) != (point.refusal, point.capability)
            for other in points
        )

    return [point.model_copy(update={"pareto": not is_beaten(point)}) for point in points]
