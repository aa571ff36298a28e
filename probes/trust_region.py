"""The linearised policy: from a merge to start with, one convex step at a time, each measured before it is taken.

A step's gradients are taken on `fit` prompts. It is accepted only where the objective on `select` improves, or stays
while less is changed; otherwise the trust region shrinks. The log-odds are linearised again at the new point only where
the region held the step back, or where prediction and measurement differ by more than their intervals.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from vlsurgery.probes.gradients import PromptGradients
from vlsurgery.probes.linearised import (
    HULL,
    INDIFFERENCE,
    RADIUS,
    LinearModel,
    Region,
    blocks_that_matter,
    cross_validated,
    intervals,
    least,
    sparse,
)
from vlsurgery.probes.objective import Floats, Requirements, paired_objectives
from vlsurgery.probes.objective_scorer import ObjectiveScorer
from vlsurgery.probes.trials import Bench, Cost, Table, Trial

MAX_PASSES: Final = 4  # linearisations: the first, and three more
MAX_HALVINGS: Final = 2  # of the trust region, before the search ends
DIGITS: Final = 4  # of coefficients: behaviour shows no more, and people read the recipe

TakeGradients = Callable[[Table], PromptGradients]


@dataclass(frozen=True)
class ConvexStep:
    """One step. accepted: the merge, None where none in any region was better. model: in which it was solved.
    region: the last that was tried. proximity, price: with which it was solved. cost: of measuring."""

    accepted: Trial | None
    model: LinearModel
    region: Region
    proximity: float
    price: float
    cost: Cost


@dataclass(frozen=True)
class Linearised:
    """What the policy found.

    trial: the merge, with the cost of finding it, that of its start included. last: the last step that was accepted;
    None where none was, and the merge is the one that it started from. latest: the last one that was tried, whose
    model was linearised at the merge or one step before it.
    """

    trial: Trial
    last: ConvexStep | None
    latest: ConvexStep


def linearised(
    bench: Bench, fit: ObjectiveScorer, start: Trial, gradients: TakeGradients, most: float = HULL
) -> Linearised:
    """The best merge that convex steps reach from `start`, a merge with coefficients.

    gradients: gives those of the `fit` prompts at the coefficients of a merge. most: the largest coefficient, and sum
    of a block's.
    """
    centre, cost, last = start, start.cost, None
    for _ in range(MAX_PASSES):
        began = time.perf_counter()
        model = linear_model(fit.wanted, gradients(centre.table), most)
        cost += Cost(3 * fit.prompts, time.perf_counter() - began)  # a backward pass counts two
        step = _step(bench, model, centre)
        cost += step.cost
        if step.accepted is None:
            break
        before, centre, last = centre, step.accepted, step
        if not _is_held_back(bench, step) and _agree(bench, step, before):
            break
    return Linearised(_finished(bench, centre, cost, last), last, step)


def _finished(bench: Bench, trial: Trial, cost: Cost, last: ConvexStep | None) -> Trial:
    """The trial as the best of its policy, with the intervals of its coefficients in its last step."""
    found = trial.named(policy="linearised", parameters=bench.means(trial.table), chosen=True).costing(cost)
    if last is None:
        return found
    low, high = (
        named(bench, np.round(ends, DIGITS)) for ends in intervals(last.model, last.region, last.proximity, last.price)
    )
    both = {block: {s: (low[block][s], high[block][s]) for s in row} for block, row in low.items()}
    return found.named(intervals=both)


def main_blocks(bench: Bench, found: Linearised) -> list[str]:
    """The blocks that bring nine tenths of what the coefficients are predicted to bring; none without a step."""
    if found.last is None:
        return []
    at = blocks_that_matter(found.last.model, _coefficients(bench, found.trial))
    return [bench.live.blocks[block] for block in at]


def sparser(bench: Bench, trial: Trial, last: ConvexStep) -> Trial:
    """The merge in which coefficients whose interval holds 0 are 0, and the others are solved again."""
    began = time.perf_counter()
    assert trial.point.intervals is not None
    low = np.array([row[s][0] for row in trial.point.intervals.values() for s in bench.live.sources])
    found = tried(bench, sparse(last.model, low, last.region, last.proximity))
    cost = trial.cost + Cost(bench.select.prompts, time.perf_counter() - began)
    return found.named(chosen=True, intervals=trial.point.intervals).costing(cost)


def _step(bench: Bench, model: LinearModel, centre: Trial) -> ConvexStep:
    """The solution in the trust region, which is halved until the objective on `select` improves."""
    cost = Cost(0, 0.0)
    proximity = cross_validated(model)
    for halvings in range(MAX_HALVINGS + 1):
        region = model.region(RADIUS / 2**halvings)
        began = time.perf_counter()
        coefficients, price = least(model, region, proximity)
        trial = tried(bench, coefficients)
        cost += Cost(bench.select.prompts, time.perf_counter() - began)
        if is_better(trial, centre):
            return ConvexStep(trial, model, region, proximity, price, cost)
    return ConvexStep(None, model, region, proximity, price, cost)


def is_better(trial: Trial, centre: Trial) -> bool:
    """Whether the objective is better, or nobody would notice a difference and the change of weights is smaller."""
    gain = trial.objective - centre.objective
    changes = [sum(value for row in each.table.values() for value in row.values()) for each in (trial, centre)]
    return gain > 0 or (gain >= -INDIFFERENCE and changes[0] < changes[1])


def tried(bench: Bench, coefficients: Floats) -> Trial:
    """Measure the merge with coefficients [blocks x sources], cut to DIGITS."""
    table = cut(bench, coefficients)
    return bench.tried("linearised", bench.means(table), table)


def cut(bench: Bench, coefficients: Floats) -> Table:
    """Coefficients [blocks x sources] by name, cut to DIGITS."""
    return named(bench, np.floor(coefficients * 10**DIGITS + 1e-3) / 10**DIGITS)


def named(bench: Bench, values: Floats) -> Table:
    """Values [blocks x sources] as block -> source -> value."""
    rows = values.reshape(len(bench.live.blocks), len(bench.live.sources)).tolist()
    return {b: dict(zip(bench.live.sources, row, strict=True)) for b, row in zip(bench.live.blocks, rows, strict=True)}


def _coefficients(bench: Bench, trial: Trial) -> Floats:
    """[blocks x sources] a trial's coefficients."""
    return bench.live.tensor(trial.table).double().numpy().ravel()


def _is_held_back(bench: Bench, step: ConvexStep) -> bool:
    """Whether a coefficient would have gone further: it ends at the region's edge, where nothing else bounds it."""
    assert step.accepted is not None
    found, edge = _coefficients(bench, step.accepted), 10**-DIGITS
    low = (found <= step.region.lower + edge) & (step.region.lower > 0)
    high = (found >= step.region.upper - 2 * edge) & (step.region.upper < step.model.most)
    return bool((low | high).any())


def _agree(bench: Bench, step: ConvexStep, before: Trial) -> bool:
    """Whether the gain that was predicted on `fit` prompts and the one measured on `select` have one interval."""
    assert step.accepted is not None
    model, ahead = step.model, step.accepted
    predicted = paired_objectives(model.wanted, model.predicted(_coefficients(bench, ahead)), model.z)
    measured = paired_objectives(bench.select.wanted, ahead.z, before.z)
    room = np.hypot((predicted.high - predicted.low) / 2, (measured.high - measured.low) / 2)
    return bool(abs(predicted.value - measured.value) <= room)


def linear_model(wanted: Requirements, taken: PromptGradients, most: float = HULL) -> LinearModel:
    """Gradients of prompts as a linear model of what is wanted of them. Raises ValueError for those of others."""
    if taken.prompts != wanted.prompts:
        raise ValueError("the gradients are of other prompts than the requirements")
    blocks, sources = len(taken.blocks), len(taken.sources)
    return LinearModel(
        wanted=wanted,
        at=taken.at.double().numpy().ravel(),
        z=taken.z.double().numpy(),
        jacobian=taken.jacobian.double().numpy().reshape(len(taken.prompts), blocks * sources),
        block=np.repeat(np.arange(blocks), sources),
        most=most,
    )
