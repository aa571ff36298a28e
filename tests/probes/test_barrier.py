"""The barrier on straight lines between models: as high as it was made, and none where losses lie on or below them."""

from types import SimpleNamespace

import numpy as np
import pytest

from vlsurgery.probes.barrier import NOTICED, PLACES, barriers, warned
from vlsurgery.probes.grid_search import coarse_grid
from vlsurgery.probes.objective import Requirements, requirements

REQUESTS = 60
LINE = (0.0, *PLACES, 1.0)


def wanted(purposes=("refuse", "keep")) -> Requirements:
    """Prompts of each purpose, each a request of its own."""
    cells = {"refuse": ("harmful", "text"), "answer": ("harmless", "text"), "keep": ("capability", "text")}
    rows = [(f"{p}{i}", f"{p}{i}", cells[p], p) for p in purposes for i in range(REQUESTS)]
    return requirements(rows, np.full(len(rows), 20.0))


def odds(loss: np.ndarray) -> np.ndarray:
    """Log-odds z with -log p(z) = loss."""
    return -np.log(np.expm1(np.maximum(loss, 1e-9)))


def grid(of: Requirements, loss, sources=("base", "safety")):
    """Every point of the coarse grid, where each answer to keep loses `loss(base, safety, prompt)` nats."""
    trials = []
    for point in coarse_grid(len(sources)):
        kept = np.array([loss(*point, i) for i in range(REQUESTS)])
        z = [odds(kept) if purpose != "refuse" else np.zeros(REQUESTS) for purpose in dict.fromkeys(of.purposes)]
        z = [
            -each if purpose == "answer" else each for each, purpose in zip(z, dict.fromkeys(of.purposes), strict=True)
        ]
        point = SimpleNamespace(parameters=dict(zip(sources, point, strict=True)))
        trials.append(SimpleNamespace(point=point, z=np.concatenate(z)))
    return trials


@pytest.mark.parametrize("purpose", ["keep", "answer"])
def test_a_bump_is_found_where_and_as_high_as_it_was_made_and_on_its_own_line_alone(purpose):
    """Both lines fall evenly to their ends; the one to safety has a bump of 2 nats over it at three quarters."""
    of = wanted(("refuse", purpose))
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.2, REQUESTS)

    def loss(base, safety, i):
        bump = 2.0 + noise[i] if safety == 0.75 else 0.5 if safety == 0.5 else 0.0
        return 0.01 + 3 * base + 1 * safety + bump

    none, high = barriers(of, grid(of, loss), ("base", "safety"))
    assert (none.source, high.source) == ("base", "safety")
    assert none.height == pytest.approx(0, abs=1e-6)
    assert high.at == 0.75
    assert high.height == pytest.approx(2 + noise.mean(), abs=1e-3)
    assert high.low < high.height < high.high
    assert high.high - high.low == pytest.approx(2 * 1.96 * noise.std() / np.sqrt(REQUESTS), rel=0.3)
    assert high.requests == REQUESTS
    said = warned([none, high])
    assert f"On the straight line to safety a merge loses {high.height:.2f} nats more" in said
    assert "base" not in said


def test_losses_that_rise_ever_faster_are_no_barrier():
    """The half-way merge loses less than half of what the end does: that is what makes merging work."""
    of = wanted()
    (found, _) = barriers(of, grid(of, lambda base, _safety, _i: 0.01 + 4 * base**2), ("base", "safety"))
    assert found.height < 0
    assert warned([found]) == ""


def test_answers_that_are_all_lost_a_quarter_of_the_way_are_told():
    """The end is as bad, so that the line says a quarter of it: what is warned of is the rest."""
    of = wanted()
    (found, _) = barriers(of, grid(of, lambda base, _safety, _i: 4.0 if base else 0.01), ("base", "safety"))
    assert found.at == 0.25
    assert found.height == pytest.approx(3.0, abs=0.05)
    assert found.low > NOTICED


def test_one_request_with_a_barrier_is_not_warned_of():
    """One in sixty: an interval over requests holds 0."""
    of = wanted()
    trials = grid(of, lambda base, _safety, i: 30.0 if base == 0.5 and i == 7 else 0.01)
    (found, _) = barriers(of, trials, ("base", "safety"))
    assert found.height == pytest.approx(0.5, abs=0.01)
    assert found.low < NOTICED
    assert warned([found]) == ""


def test_one_source_is_a_line_too():
    of = wanted()
    (found,) = barriers(of, grid(of, lambda base, _i: 1.0 + (base == 0.5), ("base",)), ("base",))
    assert (found.source, found.at) == ("base", 0.5)
    assert found.height == pytest.approx(1.0, abs=1e-6)
