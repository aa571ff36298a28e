"""Nulls hold what they say: simulated deltas of which the truth is known fall inside, and what goes beyond, outside."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor

from vlsurgery.surgery.diff import nulls, subspace_nulls, subspaces
from vlsurgery.surgery.results import BetweenMetrics, Sides

ENTRIES = 200_000
SPREAD = 0.02


def normal(seed: int, scale: float = 1.0) -> Tensor:
    return torch.randn(ENTRIES, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * scale


def laplace(seed: int, scale: float) -> Tensor:
    signs = normal(seed).sign()
    return (
        signs * torch.empty(ENTRIES).exponential_(generator=torch.Generator().manual_seed(seed + 99)) * scale / 2**0.5
    )


def within(null: nulls.Null | None, value: float | None, slack: float = 0.0) -> bool:
    assert null is not None
    assert value is not None
    assert null.low <= null.mean <= null.high
    return null.low - slack <= value <= null.high + slack


def test_three_independent_models_are_inside_of_the_null(between_metrics: Callable[..., BetweenMetrics]) -> None:
    found = between_metrics(*(normal(seed, SPREAD).bfloat16() for seed in range(3)))
    assert found.cosine_null is not None
    assert found.cosine_null.mean == pytest.approx(-0.5, abs=0.01)
    assert within(found.cosine_null, found.cosine)
    assert within(found.sign_conflict_null, found.sign_conflict)
    assert within(found.sign_conflict_weighted_null, found.sign_conflict_weighted)
    assert within(found.reversal_null, found.reversal)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("moves", [(0.001, 0.001), (0.004, 0.004), (0.004, 0.02), (0.02, 0.004), (0.1, 0.1)])
def test_rounding_alone_is_inside_of_the_null(
    between_metrics: Callable[..., BetweenMetrics], dtype: torch.dtype, moves: tuple[float, float]
) -> None:
    """Independent moves, rounded when they are stored: the cosine is negative by that alone."""
    base = normal(0, SPREAD).to(dtype)
    adapted = base.double() + normal(1, SPREAD * moves[0])
    safety = adapted + normal(2, SPREAD * moves[1])
    found = between_metrics(base, adapted.to(dtype), safety.to(dtype))
    assert found.cosine_null is not None
    assert found.cosine is not None
    assert found.cosine_null.mean == pytest.approx(found.cosine, rel=0.3, abs=0.01)
    assert within(found.cosine_null, found.cosine, slack=0.2 * abs(found.cosine))
    assert found.sign_conflict_null is not None
    assert found.sign_conflict_null.mean == pytest.approx(found.sign_conflict, abs=0.06)


@pytest.mark.parametrize("draw", [normal, laplace])
def test_tuning_that_starts_from_the_stored_weights_is_inside_too(
    between_metrics: Callable[..., BetweenMetrics], draw: Callable[[int, float], Tensor]
) -> None:
    """Then the two deltas share no rounding at all."""
    base = normal(0, SPREAD).bfloat16()
    adapted = (base.double() + draw(1, SPREAD * 0.01)).bfloat16()
    safety = (adapted.double() + draw(2, SPREAD * 0.01)).bfloat16()
    found = between_metrics(base, adapted, safety)
    assert within(found.cosine_null, found.cosine, slack=1e-3)


def test_independent_moves_in_float32_have_a_null_around_0(between_metrics: Callable[..., BetweenMetrics]) -> None:
    base = normal(0)
    found = between_metrics(
        *(each.float() for each in (base, base + normal(1, 0.1), base + normal(1, 0.1) + normal(2)))
    )
    assert found.cosine_null is not None
    assert found.cosine_null.mean == pytest.approx(0, abs=1e-6)
    assert found.cosine_null.high == pytest.approx(1.96 / math.sqrt(ENTRIES), rel=0.02)
    assert within(found.cosine_null, found.cosine, slack=0.003)
    assert found.sign_conflict_null is not None
    assert found.sign_conflict_null.mean == pytest.approx(0.5, abs=1e-3)


def test_a_null_of_independent_moves_covers_19_of_20(between_metrics: Callable[..., BetweenMetrics]) -> None:
    """Coverage, over many draws of small tensors."""
    inside = 0
    for seed in range(0, 900, 3):
        generator = torch.Generator().manual_seed(seed)
        base, first, second = torch.randn(3, 2000, generator=generator)
        found = between_metrics(base, base + 0.1 * first, base + 0.1 * first + 0.1 * second)
        inside += within(found.cosine_null, found.cosine)
    assert 0.91 <= inside / 300 <= 0.985


def test_a_safety_delta_that_reverses_is_beyond_the_null(between_metrics: Callable[..., BetweenMetrics]) -> None:
    base, move, other = normal(0, SPREAD), normal(1, SPREAD * 0.03), normal(2, SPREAD * 0.03)
    adapted = (base + move).bfloat16()
    safety = (base + 0.5 * move + 0.2 * other).bfloat16()
    found = between_metrics(base.bfloat16(), adapted, safety)
    assert found.cosine is not None
    assert found.cosine_null is not None
    assert found.cosine < found.cosine_null.low - 0.5
    assert found.reversal == pytest.approx(found.cosine**2)
    assert found.reversal_null is not None
    assert found.reversal is not None
    assert found.reversal > found.reversal_null.high
    assert found.sign_conflict_null is not None
    assert found.sign_conflict is not None
    assert found.sign_conflict > found.sign_conflict_null.high


@given(st.floats(-1, 1), st.floats(0, 1), st.floats(0, 0.01), st.floats(0.01, 1))
def test_nulls_are_ordered_and_in_range(shared: float, unshared: float, variance: float, size: float) -> None:
    shared = -abs(shared) * size
    cosines = nulls.cosine_null(shared, min(unshared, 0.0), variance, size)
    assert -1 <= cosines.low <= cosines.mean <= cosines.high <= 1
    undone = nulls.reversal_null(cosines)
    assert 0 <= undone.low <= undone.mean <= undone.high <= 1
    weighted = nulls.weighted_conflict_null(shared, 0.0, variance, 0.7 * size)
    assert 0 <= weighted.low <= weighted.mean <= weighted.high <= 1
    conflict = nulls.conflict_null(500 - 500 * shared, 500, 1000)
    assert 0 <= conflict.low <= conflict.mean <= conflict.high <= 1


def test_a_delta_of_0_has_reasons_and_no_numbers(between_metrics: Callable[..., BetweenMetrics]) -> None:
    base = normal(0).float()
    found = between_metrics(base, base, base + 1)
    assert found == BetweenMetrics(cosine=None, sign_conflict=None, why=found.why)
    assert set(found.why) == {"cosine", "sign_conflict", "sign_conflict_weighted", "reversal"}


def matrices(seed: int, count: int, rows: int, columns: int) -> Tensor:
    return torch.randn(count, rows, columns, generator=torch.Generator().manual_seed(seed))


def low_rank(seed: int, rows: int, columns: int) -> Tensor:
    """As trained weights are: a few strong directions in noise."""
    left, right = matrices(seed, 2, max(rows, columns), 16)
    return 3 * left[:rows] @ right[:columns].T / 4 + matrices(seed + 1, 1, rows, columns)[0]


def leading(delta: Tensor) -> tuple[Tensor, Tensor]:
    left, _, right = torch.linalg.svd(delta.double(), full_matrices=False)
    return left[:, :8], right[:8].T


def overlaps(first: Tensor, second: Tensor) -> tuple[float, float]:
    left, right = zip(leading(first), leading(second), strict=True)
    return subspaces.overlap(*left), subspaces.overlap(*right)


def unrelated(rows: int, columns: int) -> Sides:
    return Sides(left=8 / rows, right=8 / columns)


@pytest.mark.parametrize("correlation", [0.0, -0.3, -0.7, -0.9, -1.0])
@pytest.mark.parametrize("shape", [(96, 160), (200, 64)])
def test_directions_that_rounding_alone_shares_are_the_null(shape: tuple[int, int], correlation: float) -> None:
    """Noise with a share of it in both deltas, the one with a minus; against a whole decomposition in float64."""
    null = subspace_nulls.rounding_null(unrelated(*shape), shape, correlation)
    found = []
    for seed in range(10, 18):
        noise, first, second = matrices(seed, 3, *shape)
        alone = math.sqrt(1 + correlation)
        both = math.sqrt(-correlation)
        found.append(overlaps(alone * first + both * noise, alone * second - both * noise))
    for side, values in zip((null.left, null.right), zip(*found, strict=True), strict=True):
        assert sum(values) / len(values) == pytest.approx(side, rel=0.2, abs=0.03)


def test_large_matrices_share_no_more_than_small_ones() -> None:
    """A matrix scaled down for the simulation overstates the overlap, and never understates it."""
    shape = (600, 700)
    null = subspace_nulls.rounding_null(unrelated(*shape), shape, -0.9)
    noise, first, second = matrices(3, 3, *shape)
    found = overlaps(first * 0.1**0.5 + 0.9**0.5 * noise, second * 0.1**0.5 - 0.9**0.5 * noise)
    assert 8 / 600 < found[0] < null.left
    assert 8 / 700 < found[1] < null.right


def test_unrelated_models_share_the_directions_of_adapted_and_no_others() -> None:
    base, adapted, safety = (low_rank(seed, 120, 150) for seed in (0, 10, 20))
    null = subspace_nulls.unrelated_null(base, adapted, safety, seed=1)
    found = overlaps(adapted - base, safety - adapted)
    for value, side, random in zip(found, (null.left, null.right), (8 / 120, 8 / 150), strict=True):
        assert value > 2 * random
        assert value == pytest.approx(side, abs=0.15)


def test_directions_that_are_reversed_are_beyond_the_null() -> None:
    base, move = low_rank(0, 120, 150), low_rank(5, 120, 150)
    cosine = -0.02  # of rounding, as bfloat16 leaves it beside such a move
    null = subspace_nulls.rounding_null(unrelated(120, 150), (120, 150), cosine)
    found = overlaps(move, (base + 0.2 * move + 0.1 * matrices(9, 1, 120, 150)[0]) - (base + move))
    assert min(found) > max(null.left, null.right) + 0.5
