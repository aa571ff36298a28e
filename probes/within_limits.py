"""The least intervention within a user's limits, predicted and then measured on `select`."""

import time
from dataclasses import dataclass
from typing import Final

from vlsurgery.probes.evaluation.limits import Limits
from vlsurgery.probes.limited import SLACK, Candidate, LeastWithin, Promise, promises, shares
from vlsurgery.probes.results import PredictedLimit, Rate
from vlsurgery.probes.trials import Bench, Cost, Trial
from vlsurgery.probes.trust_region import ConvexStep, tried

MAX_TRIALS: Final = 4  # merges that are measured before the search ends


@dataclass(frozen=True)
class Within:
    """What was found. rows: a limit that can be predicted each. missed: why no merge keeps them; None where it does."""

    trial: Trial
    rows: list[PredictedLimit]
    missed: str | None


def within_limits(bench: Bench, step: ConvexStep, limits: Limits) -> Within | None:
    """The least intervention that is predicted to keep the limits, and does on `select`; None where no limit can be
    predicted.

    Its predicted shares keep them by the limits' own `bind`, the measured ones by the rate: `report` prompts, which are
    more, decide by intervals. Where a measurement misses a limit, as much more is asked for, and the search goes on.
    """
    known = {(cell, modality) for cell, modality in bench.select.wanted.names}
    promised = [each for each in promises(limits, step.model.wanted) if (each.set, each.modality) in known]
    if not promised:
        return None
    margins, cost = [0.0] * len(promised), Cost(0, 0.0)
    for _ in range(MAX_TRIALS):
        began = time.perf_counter()
        search = LeastWithin(step.model, step.proximity, promised, limits.bind == "interval", margins)
        found = search.found()
        trial = tried(bench, found.coefficients)
        cost += Cost(bench.select.prompts, time.perf_counter() - began)
        told = shares(bench.select.wanted, trial.z, promised)
        short = [promise.missing(share, False) for promise, share in zip(promised, told, strict=True)]
        missed = None if found.is_kept else search.why_not(found)
        if missed or max(short) <= SLACK:
            break
        at = short.index(max(short))
        gap = f"{100 * short[at]:.1f} points"
        missed = f"on select prompts {promised[at]} is missed by {gap}, though it was predicted to be kept"
        margins = [margin + max(0.0, each) for margin, each in zip(margins, short, strict=True)]
    named = trial.named(policy="limits", parameters=bench.means(trial.table), chosen=True).costing(cost)
    return Within(named, _rows(promised, found, told), missed)


def _rows(promised: list[Promise], found: Candidate, measured: list[Rate]) -> list[PredictedLimit]:
    return [
        PredictedLimit(
            set=promise.set,
            modality=promise.modality,
            limit=promise.limit,
            bound=promise.bound,
            predicted=predicted,
            measured=share,
            share=promise.share,
            at_least=promise.at_least,
        )
        for promise, predicted, share in zip(promised, found.shares, measured, strict=True)
    ]
