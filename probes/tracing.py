"""The frontier of one choice: what every price is predicted to buy, and those merges measured on `select`."""

import time
from collections.abc import Sequence

from vlsurgery.probes.frontier import Priced, gain_over, merge_rates, predicted_cells, priced
from vlsurgery.probes.linearised import HULL, RADIUS
from vlsurgery.probes.results import Estimate, Frontier, PricedMerge
from vlsurgery.probes.trials import Bench, Cost, Trial
from vlsurgery.probes.trust_region import ConvexStep, cut, tried
from vlsurgery.surgery.runtime.progress import Progress


def traced(step: ConvexStep, prices: Sequence[float], progress: Progress) -> list[Priced]:
    """The solutions at prices of an over-refusal in the model of one step. No model is run."""
    region = step.model.region(RADIUS)
    return [
        priced(step.model, price, region, step.proximity, step.price)
        for price in progress(prices, "predicting other prices")
    ]


def measured(bench: Bench, each: Priced) -> Trial:
    """A solution, measured."""
    began = time.perf_counter()
    trial = tried(bench, each.coefficients)
    cost = Cost(bench.select.prompts, time.perf_counter() - began)
    parameters = {"price": each.price, **bench.means(trial.table)}
    return trial.named(policy="frontier", parameters=parameters).costing(cost)


def frontier_of(
    bench: Bench, step: ConvexStep, solutions: Sequence[Priced], trials: Sequence[Trial], uniform: Sequence[Trial]
) -> Frontier:
    """The frontier as a result. trials: the solutions that were measured. uniform: what they are held against."""
    wanted = step.model.wanted
    points = [
        PricedMerge(
            price=each.price,
            coefficients=cut(bench, each.coefficients),
            rates=merge_rates(wanted, each.z),
            cells=predicted_cells(wanted, each.z),
        )
        for each in solutions
    ]
    gain = Estimate(value=None, reason="none of its merges was measured; --frontier measures them")
    if trials:
        gain = gain_over(bench.select.wanted, [trial.z for trial in trials], [trial.z for trial in uniform])
    return Frontier(points=points, gain=gain, extrapolated=step.model.most > HULL)
