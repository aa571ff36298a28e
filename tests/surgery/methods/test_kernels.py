"""Compiled loops, beside numpy in float64."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from scipy.stats import rankdata

from vlsurgery.surgery.methods import METHODS, kernels
from vlsurgery.surgery.runtime import jit as compiled

# What vectors are stored as: bfloat16 by its bits.
STORED = ("bfloat16", "float32", "float64")
SEEDS = st.integers(0, 2**16)
# Shorter than a tile, a tile, and one that ends in the middle of a tile.
LENGTHS = st.sampled_from([1, 7, kernels.TILE, 2 * kernels.TILE + 5])


def draw(seed: int, length: int, stored: str, count: int = 4) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Vectors as they are stored, and as the numbers that they are in float64."""
    noise = torch.tensor(np.random.default_rng(seed).normal(size=(count, length))).to(getattr(torch, stored))
    rows = (noise.view(torch.uint16) if stored == "bfloat16" else noise).numpy()
    return list(rows), list(noise.double().numpy())


def empty(length: int, stored: str) -> np.ndarray:
    return np.full(length, np.nan, np.float64 if stored == "float64" else np.float32)


@pytest.mark.parametrize("stored", STORED)
@given(seed=SEEDS, length=LENGTHS)
def test_deltas(stored: str, seed: int, length: int) -> None:
    (base, model), (b, m) = draw(seed, length, stored, 2)
    out, numbers = empty(length, stored), empty(length, stored)
    compiled.subtract(base, model, out)
    compiled.upcast_into(model, numbers)
    np.testing.assert_array_equal(out, m.astype(out.dtype) - b.astype(out.dtype))
    np.testing.assert_array_equal(numbers, m)


@pytest.mark.parametrize("stored", STORED)
@given(seed=SEEDS, length=LENGTHS, share=st.floats(0, 1))
def test_masked_deltas(stored: str, seed: int, length: int, share: float) -> None:
    (base, model), _ = draw(seed, length, stored, 2)
    whole, out = empty(length, stored), empty(length, stored)
    compiled.subtract(base, model, whole)
    chosen = np.random.default_rng(seed).random(length) < share
    kernels.masked_delta(base, model, chosen, out)
    np.testing.assert_array_equal(out, np.where(chosen, whole, 0))
    magnitudes = np.abs(whole.astype(np.float32))
    low, high = np.sort(np.random.default_rng(seed + 1).choice(magnitudes, 2))
    kernels.delta_between(base, model, low.view(np.int32), high.view(np.int32), out)
    np.testing.assert_array_equal(out, np.where((magnitudes >= low) & (magnitudes <= high), whole, 0))


@pytest.mark.parametrize("stored", STORED)
@given(seed=SEEDS, length=LENGTHS, shift=st.integers(0, 20))
def test_counts_of_magnitudes(stored: str, seed: int, length: int, shift: int) -> None:
    (base, model), _ = draw(seed, length, stored, 2)
    delta, bins = empty(length, stored), np.empty(length, np.int32)
    compiled.subtract(base, model, delta)
    found = np.abs(delta).astype(np.float32).view(np.int32)
    assert kernels.largest(delta) == found.max()
    first, last = np.sort(np.random.default_rng(seed).choice(found, 2))
    below, at_first, at_last, inside = kernels.count_magnitudes(base, model, first, last, np.int32(shift), bins)
    assert (below, at_first, at_last) == ((found < first).sum(), (found == first).sum(), (found == last).sum())
    between = found[(found > first) & (found < last)]
    np.testing.assert_array_equal(bins[:inside], (between - first) >> shift)


@given(values=st.lists(st.floats(width=32, allow_nan=False), min_size=1))
def test_bfloat16_is_rounded_as_torch_does(values: list[float]) -> None:
    numbers, out = np.array(values, np.float32), np.empty(len(values), np.uint16)
    assert compiled.round_to_bfloat16(numbers, out) == np.abs(numbers).max().view(np.int32)
    np.testing.assert_array_equal(out, torch.from_numpy(numbers).bfloat16().view(torch.uint16).numpy())


@given(seed=SEEDS, place=st.integers(0, 2 * kernels.TILE))
def test_no_nan_is_rounded_away(seed: int, place: int) -> None:
    numbers = np.random.default_rng(seed).normal(size=2 * kernels.TILE + 1).astype(np.float32)
    numbers[place] = np.nan
    assert compiled.round_to_bfloat16(numbers, np.empty(len(numbers), np.uint16)) > np.float32(np.inf).view(np.int32)
    assert kernels.largest(numbers) > np.float32(np.inf).view(np.int32)


@pytest.mark.parametrize("rescale", [False, True])
@pytest.mark.parametrize("stored", STORED)
@given(seed=SEEDS, width=st.integers(1, 300), rows=st.integers(1, 5))
def test_magprune(rescale: bool, stored: str, seed: int, width: int, rows: int) -> None:
    """Each row by itself; entries that share exponent and seven digits share the mean of their ranks."""
    (base, model), _ = draw(seed, width * rows, stored, 2)
    whole, out = empty(width * rows, stored), empty(width * rows, stored)
    compiled.subtract(base, model, whole)
    drawn = np.random.default_rng(seed).integers(-(2**15), 2**15, width * rows).astype(np.int16)
    kernels.magprune(base, model, width, drawn, 65536 * 0.3, 65536 * 0.4 / max(1, width - 1), rescale, out)
    keys = np.abs(whole).astype(np.float32).view(np.int32).reshape(rows, width) >> 16
    keys = np.maximum(keys, keys.max(axis=1, keepdims=True) - (kernels.RANK_BINS - 1))
    chances = np.round(65536 * (0.3 + 0.4 * (rankdata(keys, axis=1) - 1) / max(1, width - 1))).ravel()
    # The chance is computed in float32, which may round a half to the other side.
    surely = np.abs(drawn - (chances - 32768)) > 1
    wanted = np.where(drawn < chances - 32768, whole * (65536 / chances if rescale else 1), 0)
    np.testing.assert_allclose(out[surely], wanted[surely], rtol=1e-4)


@pytest.mark.parametrize("stored", STORED)
@given(seed=SEEDS, length=LENGTHS, shares=st.lists(st.floats(0, 1), min_size=3, max_size=3))
def test_weighted_sums(stored: str, seed: int, length: int, shares: list[float]) -> None:
    """Of models, of moves, and of moves that are there already; these may give their memory for the result."""
    (base, *models), (b, *numbers) = draw(seed, length, stored)
    out = empty(length, stored)
    weights = np.array(shares, out.dtype)
    kernels.weighted_sum(tuple(models), weights, out)
    total = sum(share * number for share, number in zip(shares, numbers, strict=True))
    np.testing.assert_allclose(out, total, rtol=1e-5, atol=1e-5)
    wanted = total + (1 - sum(shares)) * b
    kernels.interpolate(base, tuple(models), weights, out)
    np.testing.assert_allclose(out, wanted, rtol=1e-5, atol=1e-5)
    parts = tuple((number - b).astype(out.dtype) for number in numbers)
    kernels.add_deltas(base, parts, weights, parts[0])
    np.testing.assert_allclose(parts[0], wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("share", "whose"), [(0.0, 0), (1.0, 1)])
def test_coefficients_0_and_1_round_nothing(share: float, whose: int) -> None:
    vectors, _ = draw(5, 3000, "float32", 2)
    out = np.empty(3000, np.float32)
    kernels.interpolate(vectors[0], (vectors[1],), np.array([share], np.float32), out)
    np.testing.assert_array_equal(out, vectors[whose])


@pytest.mark.parametrize("mean", [False, True])
@given(seed=SEEDS, length=LENGTHS, weights=st.lists(st.floats(0.1, 2), min_size=3, max_size=3))
def test_disjoint_merge(mean: bool, seed: int, length: int, weights: list[float]) -> None:
    """Also where the result overwrites one of the deltas, and where entries are 0."""
    (base, *_), (b, *drawn) = draw(seed, length, "bfloat16")
    parts = [part.astype(np.float32) * (np.arange(length) % 3 != place) for place, part in enumerate(drawn)]
    shares = np.array(weights, np.float32)
    voted = np.array(weights, np.float64)[:, None] * (np.array(parts) != 0)
    products = shares[:, None] * np.array(parts)
    side = np.where(products[0] + products[1] + products[2] >= 0, 1, -1)
    agrees = products * side > 0
    total = np.where(agrees, products, 0).astype(np.float64).sum(0)
    count = np.where(agrees, voted, 0).sum(0)
    wanted = b + 0.7 * (total / np.where(count > 0, count, 1) if mean else total)
    kernels.disjoint_merge(base, tuple(parts), shares, shares, np.float32(0.7), mean, parts[0])
    np.testing.assert_allclose(parts[0], wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("stored", STORED)
@given(seed=SEEDS, length=LENGTHS)
def test_products_are_those_of_float64(stored: str, seed: int, length: int) -> None:
    """Of entries, and of moves, which are rounded as those that are merged; entries of one half are added to, those
    above the diagonal stay."""
    (base, *models), (_, *numbers) = draw(seed, length, stored)
    sums, of_moves = np.ones((3, 3)), np.ones((3, 3))
    kernels.gram(tuple(models), sums)
    matrix = np.array(numbers)
    np.testing.assert_allclose(sums, np.tril(matrix @ matrix.T) + 1, rtol=1e-12, atol=1e-9)
    kernels.delta_gram(
        base, tuple(models), empty(len(models) * kernels.TILE, stored).reshape(-1, kernels.TILE), of_moves
    )
    for move, model in zip(matrix, models, strict=True):
        out = empty(length, stored)
        compiled.subtract(base, model, out)
        move[:] = out
    np.testing.assert_allclose(of_moves, np.tril(matrix @ matrix.T) + 1, rtol=1e-12, atol=1e-9)


@pytest.mark.parametrize("name", sorted(name for name in METHODS if name not in ("safelora", "safemerge")))
@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_values_that_are_not_finite_stay_so(name: str, wrong: float) -> None:
    """No election and no coefficient of 0 may hide it: the writer checks the merged values."""
    base, one, two = map(torch.from_numpy, draw(3, 64, "float32", 3)[0])
    one[17] = wrong
    names = METHODS[name].named_inputs or ("x", "y")[: METHODS[name].models[1]]
    parameters: dict[str, Any] = {"gamma": 0.0} if "breadcrumbs" in name else {}
    models = dict(zip(names, (one, two), strict=False))
    weights = dict.fromkeys(names, 1.0 if METHODS[name].named_inputs or name == "model_stock" else 0.4)
    result = METHODS[name].merge(models, base, weights, **parameters)
    assert not torch.isfinite(result[17])


def test_code_that_no_directory_can_keep_is_compiled_all_the_same() -> None:
    made: dict[str, Any] = {}
    exec("def twice(x):\n    return 2 * x", made)
    with pytest.raises(RuntimeError, match="cannot cache"):
        compiled.njit(made["twice"], cache=True)
    assert compiled.compiled(made["twice"])(21) == 42
