"""Integrals along a path: exact where Simpson's rule is, within the tolerance where the path is steep, cheap."""

import numpy as np
import pytest
from hypothesis import given, strategies as st
from numpy.typing import NDArray
from scipy.integrate import quad

from vlsurgery.probes.path_integral import PathIntegral

Array = NDArray[np.float64]
STEEP, WHERE = 60.0, np.array([0.31, 0.77])


def _mean(values: Array) -> Array:
    return values.mean(0)


def _rise(place: float) -> tuple[Array, Array]:
    """Two prompts whose number rises steeply, each at its own place; coefficient 0 brings two thirds of it."""
    number = 5 / (1 + np.exp(-STEEP * (place - WHERE)))
    slope = STEEP * number * (1 - number / 5)
    return number, slope[:, None] * np.array([2 / 3, 1 / 3])


@given(st.lists(st.floats(-3, 3), min_size=8, max_size=8))
def test_cubic_slopes_are_integrated_exactly_in_five_points(numbers: list[float]) -> None:
    powers = np.array(numbers).reshape(1, 2, 4)  # of one prompt, by coefficient

    def slopes(place: float) -> tuple[Array, Array]:
        basis = place ** np.arange(4)
        risen = (powers * place ** np.arange(1, 5) / np.arange(1, 5)).sum((1, 2))
        return risen, powers @ basis

    path = PathIntegral(slopes, _mean)
    assert list(path.refine(1e-6, 5)) == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert np.allclose(path.total, (powers / np.arange(1, 5)).sum(-1), atol=1e-12)
    assert np.array_equal(path.start, powers[..., 0])


def test_a_steep_rise_is_found_and_every_prompt_agrees_with_quadrature() -> None:
    path = PathIntegral(_rise, _mean)
    read = list(path.refine(0.01, 129))
    assert len(read) == path.points == len(set(read)) < 60
    change = _rise(1.0)[0] - _rise(0.0)[0]
    assert _mean(path.total).sum() == pytest.approx(change.mean(), rel=0.01)
    for prompt in range(2):
        expected, _ = quad(lambda at, prompt=prompt: _rise(at)[1][prompt, 0], 0, 1, points=[WHERE[prompt]])
        assert path.total[prompt, 0] == pytest.approx(expected, rel=0.03)


def test_points_go_where_the_rise_is() -> None:
    path = PathIntegral(_rise, _mean)
    read = np.array(list(path.refine(0.01, 129))[5:])
    near = (np.abs(read[:, None] - WHERE) < 0.15).any(1)
    assert near.mean() > 0.75


@pytest.mark.parametrize("points", [5, 8, 17])
def test_no_more_places_are_read_than_allowed(points: int) -> None:
    read = list(PathIntegral(_rise, _mean).refine(0.0, points))
    assert 5 <= len(read) <= points


def test_a_path_that_changes_nothing_is_read_five_times() -> None:
    path = PathIntegral(lambda _: (np.zeros(3), np.zeros((3, 4))), _mean)
    assert len(list(path.refine(0.05, 33))) == 5
    assert not path.total.any()
