"""Compiled loops, beside numpy in float64."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from surgery.methods import METHODS, kernels

DTYPES = (torch.bfloat16, torch.float16, torch.float32, torch.float64)
SEEDS = st.integers(0, 2**16)
# Shorter than a tile, a tile, and one that ends in the middle of a tile.
LENGTHS = st.sampled_from([1, 7, kernels.TILE, 2 * kernels.TILE + 5])


def draw(seed: int, length: int, dtype: torch.dtype, count: int = 4) -> list[Tensor]:
    noise = np.random.default_rng(seed).normal(size=(count, length))
    return list(torch.tensor(noise).to(dtype))


def empty_like(vector: np.ndarray) -> np.ndarray:
    return np.full(len(vector), np.nan, np.float64 if vector.dtype == np.float64 else np.float32)


@pytest.mark.parametrize("dtype", DTYPES)
@given(seed=SEEDS, length=LENGTHS)
def test_moves(dtype: torch.dtype, seed: int, length: int) -> None:
    base, *models = draw(seed, length, dtype)
    vectors = tuple(map(kernels.bits, models))
    out = tuple(empty_like(vector) for vector in vectors)
    kernels.moves(kernels.bits(base), vectors, out)
    exact = torch.float64 if dtype == torch.float64 else torch.float32
    for made, model in zip(out, models, strict=True):
        np.testing.assert_array_equal(made, (model.to(exact) - base.to(exact)).numpy())


@pytest.mark.parametrize("dtype", DTYPES)
@given(seed=SEEDS, length=LENGTHS, shares=st.lists(st.floats(0, 1), min_size=3, max_size=3))
def test_weighted_sums_of_moves(dtype: torch.dtype, seed: int, length: int, shares: list[float]) -> None:
    base, *models = draw(seed, length, dtype)
    out = empty_like(kernels.bits(base))
    kernels.moved(kernels.bits(base), tuple(map(kernels.bits, models)), np.array(shares, out.dtype), out)
    b = base.double().numpy()
    wanted = b + sum(share * (model.double().numpy() - b) for share, model in zip(shares, models, strict=True))
    np.testing.assert_allclose(out, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("share", "whose"), [(0.0, 0), (1.0, 1)])
def test_a_whole_move_and_none_round_nothing(share: float, whose: int) -> None:
    vectors = draw(5, 3000, torch.float32, 2)
    out = np.empty(3000, np.float32)
    kernels.moved(vectors[0].numpy(), (vectors[1].numpy(),), np.array([share], np.float32), out)
    np.testing.assert_array_equal(out, vectors[whose].numpy())


@pytest.mark.parametrize("mean", [False, True])
@given(seed=SEEDS, length=LENGTHS, weights=st.lists(st.floats(0.1, 2), min_size=3, max_size=3))
def test_the_elected_sign(mean: bool, seed: int, length: int, weights: list[float]) -> None:
    """Also where the result goes over one of the parts, and where entries are 0."""
    base, *drawn = draw(seed, length, torch.bfloat16)
    parts = [part.float().numpy() * (np.arange(length) % 3 != place) for place, part in enumerate(drawn)]
    shares = np.array(weights, np.float32)
    voted = np.array(weights, np.float64)[:, None] * (np.array(parts) != 0)
    products = shares[:, None] * np.array(parts)
    side = np.where(products[0] + products[1] + products[2] >= 0, 1, -1)
    agrees = products * side > 0
    total = np.where(agrees, products, 0).astype(np.float64).sum(0)
    count = np.where(agrees, voted, 0).sum(0)
    wanted = base.double().numpy() + 0.7 * (total / np.where(count > 0, count, 1) if mean else total)
    kernels.agreed(kernels.bits(base), tuple(parts), shares, shares, np.float32(0.7), mean, parts[0])
    np.testing.assert_allclose(parts[0], wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", DTYPES)
@given(seed=SEEDS, length=LENGTHS)
def test_products_are_those_of_float64(dtype: torch.dtype, seed: int, length: int) -> None:
    vectors = draw(seed, length, dtype)
    sums = np.ones((4, 4))
    kernels.products(tuple(map(kernels.bits, vectors)), sums)
    matrix = torch.stack(vectors).double().numpy()
    # Entries of one half are added to; those above the diagonal stay.
    np.testing.assert_allclose(sums, np.tril(matrix @ matrix.T) + 1, rtol=1e-12, atol=1e-9)


@pytest.mark.parametrize("name", sorted(name for name in METHODS if name not in ("safelora", "safemerge")))
@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_so(name: str, wrong: float) -> None:
    """An election or a share must not make a number of it: whoever writes the result looks for it there."""
    base, one, two = draw(3, 64, torch.float32, 3)
    one[17] = wrong
    names = METHODS[name].slots or ("x", "y")[: METHODS[name].models[1]]
    parameters: dict[str, Any] = {"gamma": 0.0} if "breadcrumbs" in name else {}
    models = dict(zip(names, (one, two), strict=False))
    weights = dict.fromkeys(names, 1.0 if METHODS[name].slots or name == "model_stock" else 0.4)
    result = METHODS[name].merge(models, base, weights, **parameters)
    assert not torch.isfinite(result[17])


def test_code_that_no_directory_can_keep_is_compiled_all_the_same() -> None:
    made: dict[str, Any] = {}
    exec("def twice(x):\n    return 2 * x", made)
    with pytest.raises(RuntimeError, match="cannot cache"):
        kernels.njit(made["twice"], cache=True)
    assert kernels._compiled(made["twice"])(21) == 42
