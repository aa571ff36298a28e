"""The frontier of one choice: what every price is predicted to buy, and those merges measured on `select`."""

from collections.abc import Sequence

from vlsurgery.probes.frontier import Priced, gain_over, merge_rates, predicted_cells, priced
from vlsurgery.probes.linearised import HULL, RADIUS
from vlsurgery.probes.results import Estimate, Frontier, PricedMerge
from vlsurgery.probes.trials import Bench, Proposal, Trial
from vlsurgery.probes.trust_region import ConvexStep, cut
from vlsurgery.surgery.runtime.progress import Progress


def traced(step: ConvexStep, prices: Sequence[float], progress: Progress) -> list[Priced]:
    """The solutions at prices of an over-refusal in the model of one step. No model is run."""
    region = step.model.region(RADIUS)
    return [
        priced(step.model, price, region, step.proximity, step.price)
        for price in progress(prices, "predicting other prices")
    ]


def measured(bench: Bench, solutions: Sequence[Priced], progress: Progress) -> list[Trial]:
    """Solutions, measured."""
    tables = [cut(bench, each.coefficients) for each in solutions]
    prices = [{"price": each.price, **bench.means(table)} for each, table in zip(solutions, tables, strict=True)]
    proposals = [Proposal("linearised", *given) for given in zip(prices, tables, strict=True)]
    return [trial.named(policy="frontier") for trial in bench.each(proposals, "tracing the frontier", progress)]


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
