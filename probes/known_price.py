"""A merge at a price that was solved before: its coefficients are known, and only it is measured."""

from collections.abc import Sequence

from vlsurgery.probes.models import AS_FOUND, Loader
from vlsurgery.probes.models.forward import keeping_pictures
from vlsurgery.probes.policies import Toward
from vlsurgery.probes.prompts import Prompt
from vlsurgery.probes.results import TargetsResult, TradeoffResult
from vlsurgery.probes.selection import bench_of, decided
from vlsurgery.probes.trials import with_pareto
from vlsurgery.surgery.alignment import Alignment


def at_known_price(
    alignment: Alignment,
    prompts: Sequence[Prompt],
    targets: TargetsResult,
    before: TradeoffResult,
    price: float,
    toward: Toward = "both",
    loader: Loader = AS_FOUND,
) -> TradeoffResult:
    """The result of an earlier choice with its merge at this price as the one to be made.

    The merge, and the best ones of policies, are measured on `select` prompts again. Raises ValueError where the
    earlier choice does not hold the price.
    """
    solved = before.at_price(price)
    if solved is None:
        raise ValueError(f"no merge was solved at a price of {price:g}")
    bench = bench_of(alignment, prompts, targets, toward, loader)
    rivals = [point for point in before.points if point.chosen and point.policy not in ("frontier", "limits")]
    with keeping_pictures(bench.live.chat), bench.live.staying():
        parameters = {"price": price, **bench.means(solved.coefficients)}
        trial = bench.tried("linearised", parameters, solved.coefficients).named(policy="frontier", chosen=True)
        again = [bench.tried("linearised", p.parameters, p.coefficients or {}).named(**dict(p)) for p in rivals]
    others = [
        point.model_copy(update={"chosen": False}) if point.policy in ("frontier", "limits") else point
        for point in before.points
        if point not in rivals and point.parameters.get("price") != price
    ]
    found = decided(bench.select.wanted, [*again, trial], "frontier", before.main_blocks, before.frontier)
    return found.model_copy(update={"points": with_pareto([*others, *found.points])})
