"""The bound on a largest eigenvalue holds, is near, and is never above what the powers alone say."""

import pytest
import torch
from hypothesis import given, strategies as st
from scipy.stats import norm
from torch import Tensor

from vlsurgery.surgery.diff.norm_bounds import MISSED_COMPONENT, NUM_TEST_VECTORS, largest_eigenvalue_bound

SIZE = 300
STEPS = torch.arange(1, SIZE + 1, dtype=torch.float64)
# Eigenvalues, the largest first, and how far above the largest the bound from three powers may be.
EIGENVALUES = {
    "one": (torch.eye(1, SIZE, dtype=torch.float64)[0], 1.001),
    "three": (torch.where(STEPS <= 3, 1 / STEPS, 0.0), 1.25),
    "all the same": (torch.ones(SIZE, dtype=torch.float64), 1.001),
    "even": (1 - (STEPS - 1) / SIZE, 1.55),
    "power law": (1 / STEPS, 1.35),
    "exponential": (torch.exp(-STEPS / 20), 1.45),
    "one above many": (torch.where(STEPS <= 1, 2.0, 1.0), 1.001),
}


def powers(values: Tensor, seed: int, count: int, scale: float = 1.0, along: float | None = None) -> list[Tensor]:
    """W, G W, G^2 W, .. of a diagonal G: any other is one in other coordinates. along: the largest component of the
    test vectors along the first direction."""
    vectors = torch.randn(SIZE, NUM_TEST_VECTORS, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    if along is not None:
        vectors[0] *= along / vectors[0].abs().max()
    return [(values * scale)[:, None] ** power * vectors for power in range(count + 1)]


def plain(found: list[Tensor]) -> float:
    """The bound that the last power alone gives."""
    return (float(found[-1].double().norm(dim=0).max()) / 0.553) ** (1 / (len(found) - 1))


@pytest.mark.parametrize(("dtype", "near"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
@pytest.mark.parametrize("name", EIGENVALUES)
@given(seed=st.integers(0, 2**31), count=st.integers(1, 5))
def test_the_bound_holds_where_test_vectors_have_as_little_as_one_in_a_million_have(
    name: str, dtype: torch.dtype, near: float, seed: int, count: int
) -> None:
    """And is no worse than that of the powers alone."""
    values, _ = EIGENVALUES[name]
    found = [each.to(dtype) for each in powers(values, seed, count, along=0.553)]
    bound = largest_eigenvalue_bound(found)
    assert float(values[0]) <= bound * (1 + near)
    assert bound <= plain(found) * (1 + near)


def test_sixteen_test_vectors_all_have_less_with_a_chance_of_one_in_a_million() -> None:
    assert (2 * norm.cdf(MISSED_COMPONENT) - 1) ** NUM_TEST_VECTORS == pytest.approx(1e-6, rel=0.1)


@pytest.mark.parametrize("name", EIGENVALUES)
@pytest.mark.parametrize("seed", range(5))
def test_three_powers_are_near_and_nearer_than_four_without_their_polynomial(name: str, seed: int) -> None:
    values, near = EIGENVALUES[name]
    *three, fourth = powers(values, seed, 4)
    bound = largest_eigenvalue_bound(three)
    assert bound <= near * float(values.max())
    assert bound < plain([*three, fourth])


@given(st.floats(1e-3, 1e3), st.integers(0, 99))
def test_a_multiple_of_the_matrix_has_a_multiple_of_the_bound(scale: float, seed: int) -> None:
    values, _ = EIGENVALUES["power law"]
    one, other = (largest_eigenvalue_bound(powers(values, seed, 3, each)) for each in (1.0, scale))
    assert other == pytest.approx(scale * one, rel=1e-6)


@pytest.mark.parametrize("name", ["one", "one above many"])
@given(off=st.floats(1e-5, 1e-3), seed=st.integers(0, 99))
def test_the_bound_holds_for_products_that_are_off(name: str, off: float, seed: int) -> None:
    """Products by R and by its transpose, each off by so much of the factor's norm, and against the largest
    direction, which these vectors have enough of."""
    values, _ = EIGENVALUES[name]
    found = powers(values, seed, 0)
    for _ in range(3):
        image = found[-1]
        for _ in range(2):
            size = image.norm(dim=0)
            image = values.sqrt()[:, None] * image
            image[0] -= off * size * image[0].sign()
        found.append(image)
    assert float(values.max()) <= largest_eigenvalue_bound(found, off)


def test_what_is_far_off_is_bounded_by_the_powers_alone() -> None:
    found = powers(EIGENVALUES["even"][0], 0, 3)
    assert largest_eigenvalue_bound(found, 10.0) == pytest.approx(plain(found), rel=1e-9)


def test_no_matrix_at_all_is_bounded_by_0() -> None:
    assert largest_eigenvalue_bound(powers(torch.zeros(SIZE, dtype=torch.float64), 0, 3)) == 0
