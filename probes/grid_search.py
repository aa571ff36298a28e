"""The best of merges that differ in one strength a source: a coarse grid, refined around its best.

The grid of two sources has 15 points (of three 35), all strengths in quarters that sum to at most 1. From its best,
neighbours are tried in steps of an eighth and then of a sixteenth, until none is better (pattern search: Hooke & Jeeves
1961).
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from vlsurgery.probes.policies import Policy
from vlsurgery.probes.trials import Bench, Cost, Proposal, Trial
from vlsurgery.surgery.runtime.progress import Progress

COARSE: Final = 0.25
FINE: Final = (0.125, 0.0625)

Strengths = tuple[float, ...]  # one a source


def coarse_grid(sources: int) -> list[Strengths]:
    """Strengths in steps of COARSE that sum to at most 1, so that a merge stays in the hull of its parents."""
    steps = [COARSE * at for at in range(round(1 / COARSE) + 1)]
    return [point for point in itertools.product(steps, repeat=sources) if sum(point) <= 1]


def neighbours(point: Strengths, step: float) -> Iterator[Strengths]:
    """The points one step away in one or two of their strengths, within the hull."""
    for moves in itertools.product((-step, 0.0, step), repeat=len(point)):
        moved = tuple(strength + move for strength, move in zip(point, moves, strict=True))
        if 0 < sum(map(bool, moves)) <= 2 and min(moved) >= 0 and sum(moved) <= 1:
            yield moved


def search(bench: Bench, policy: Policy, scores: Mapping[str, float], progress: Progress) -> list[Trial]:
    """Every merge tried, the best marked `chosen`; of equally good ones that with the smallest strengths.

    scores: block -> what its strengths are multiplied by, in [0, 1]. Only the best keeps its coefficients, and its
    cost is that of the whole search.
    """
    tried: dict[Strengths, Trial] = {}

    def run(points: Sequence[Strengths], label: str) -> None:
        fresh = [point for point in points if point not in tried]
        trials = bench.each([proposal(point) for point in fresh], label, progress)
        tried.update(zip(fresh, trials, strict=True))

    def proposal(point: Strengths) -> Proposal:
        scale = dict(zip(bench.live.sources, point, strict=True))
        return Proposal(
            policy, scale, {b: {s: value * scores[b] for s, value in scale.items()} for b in bench.live.blocks}
        )

    def best() -> Strengths:
        return max(tried, key=lambda point: (tried[point].objective, -sum(point)))

    run(coarse_grid(len(bench.live.sources)), f"comparing {policy} merges")
    for step in FINE:
        centre = None
        while centre != best():
            centre = best()
            run(list(neighbours(centre, step)), f"around the best {policy} merge")
    cost = sum((trial.cost for trial in tried.values()), Cost(0, 0.0))
    winner = best()
    return [
        trial.named(chosen=True).costing(cost) if point == winner else trial.named(coefficients=None)
        for point, trial in tried.items()
    ]
