"""Merges at which the linearised policy may begin: the best uniform one, or one along what blocks gave on the path.

Between models that were trained far apart, a linear model at a uniform merge sees no block that has to be moved whole;
the gains along the path to the base (`probes.attribution`) do.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from vlsurgery.probes.linearised import INDIFFERENCE
from vlsurgery.probes.trials import Bench, Proposal, Trial
from vlsurgery.surgery.runtime.progress import Progress, no_progress

RAY: Final = (0.25, 0.5, 0.75, 1.0)  # strengths of the block that gave most


def by_gains(bench: Bench, gains: Mapping[str, float], progress: Progress = no_progress) -> list[Trial]:
    """Merges toward the base in proportion to what each block gave, at RAY strengths; none where no block gave anything
    or the base is no source. gains: block -> nats of refusal along the path to the base."""
    live = bench.live
    most = max((gains.get(block, 0.0) for block in live.blocks), default=0.0)
    if "base" not in live.sources or most <= 0:
        return []
    proposals = []
    for strength in RAY:
        at = {source: strength * (source == "base") for source in live.sources}
        shares = {block: max(0.0, gains.get(block, 0.0)) / most for block in live.blocks}
        table = {b: {s: value * share for s, value in at.items()} for b, share in shares.items()}
        proposals.append(Proposal("attribution", at, table))
    with live.staying():
        return bench.each(proposals, "comparing merges by what blocks gave", progress)


def better_start(uniform: Trial, tries: Sequence[Trial]) -> Trial:
    """The merge to linearise at: the best of the tries where it is better than the best uniform one; it bears the cost
    of both."""
    best = max(tries, key=lambda trial: trial.objective, default=uniform)
    cost = sum((trial.cost for trial in tries), uniform.cost)
    return (best if best.objective > uniform.objective + INDIFFERENCE else uniform).costing(cost)
