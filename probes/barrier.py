"""The barrier between two models: how much worse merges on the straight line between them are than the line's ends say.

A merge of models that lie in one basin loses about what its ends lose, in proportion (linear mode connectivity: Frankle
et al. 2020, arXiv 1912.05671). The height of the barrier is the largest rise above that (Entezari et al. 2022, arXiv
2110.06296). The loss is that of the adapted model's own answers, which a broken merge loses first. Both ends and the
points at a quarter, a half and three quarters belong to the coarse uniform grid, so nothing is run for it.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from vlsurgery.probes.objective import Floats, Purpose, Requirements
from vlsurgery.probes.results import Barrier
from vlsurgery.probes.trials import Trial

PLACES: Final = (0.25, 0.5, 0.75)
NOTICED: Final = 0.1  # nats: a lower barrier takes less than a tenth of an answer's probability


def barriers(wanted: Requirements, trials: Sequence[Trial], sources: Sequence[str]) -> list[Barrier]:
    """The barrier between the adapted model and each source. trials: uniform merges, the coarse grid among them."""
    purpose: Purpose = "keep" if "keep" in wanted.purposes else "answer"
    answers = replace(wanted, prices={purpose: 1.0})
    found = {tuple(trial.point.parameters[source] for source in sources): trial.z for trial in trials}
    lines = [[tuple(t * (source == other) for other in sources) for t in (0.0, *PLACES, 1.0)] for source in sources]
    return [_barrier(answers, source, [found[at] for at in line]) for source, line in zip(sources, lines, strict=True)]


def _barrier(answers: Requirements, source: str, line: Sequence[Floats]) -> Barrier:
    """line: [n] log-odds at 0, at PLACES and at 1. The interval, 95% over requests, is of the height where it is
    greatest."""
    rises = _rises(np.array([answers.objective(z) for z in line]))
    top = int(rises.argmax())
    weights = answers.resampled()
    draws = _rises(np.array([answers.objective(z, weights) for z in line]))[top]
    low, high = (float(end) for end in np.quantile(draws, (0.025, 0.975)))
    height = float(rises[top])
    requests = {r for r, purpose in zip(answers.requests, answers.purposes, strict=True) if purpose in answers.prices}
    return Barrier(
        source=source,
        at=PLACES[top],
        height=height,
        low=min(low, height),
        high=max(high, height),
        requests=len(requests),
    )


def _rises(losses: Floats) -> Floats:
    """[places, ...] by how much losses are above the straight line between those of the ends. losses: [points, ...]."""
    t = np.array(PLACES).reshape(-1, *[1] * (losses.ndim - 1))
    return np.asarray(losses[1:-1] - (1 - t) * losses[0] - t * losses[-1])


def warned(found: Sequence[Barrier]) -> str:
    """A sentence a barrier that is clearly there; empty where none is."""
    told = [
        f"On the straight line to {each.source} a merge loses {each.height:.2f} nats more of the adapted model's own "
        f"answers than its ends ({each.low:.2f} to {each.high:.2f}, at {each.at:g}, {each.requests} requests): a "
        f"barrier lies between the two, so expect merges half way to be worse than either."
        for each in found
        if each.low > NOTICED
    ]
    return " ".join(told)
