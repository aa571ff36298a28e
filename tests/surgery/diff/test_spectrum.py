"""Spectra against an exact decomposition in float64, and the laws of what is made of them."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor

from vlsurgery.surgery.diff import subspaces
from vlsurgery.surgery.diff.effective_rank import effective_rank, estimated_rank
from vlsurgery.surgery.diff.matrices import BFloat16Matrix, InMemoryMatrix
from vlsurgery.surgery.diff.spectrum import (
    MAX_EXACT_SIDE,
    NUM_SINGULAR_VALUES,
    OVERSAMPLING,
    Spectrum,
    leading_directions,
    spectrum,
)
from vlsurgery.surgery.diff.subspaces import Subspaces

ROWS, COLUMNS = 700, 560


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def orthogonal(seed: int, size: int) -> Tensor:
    return torch.linalg.qr(draw(seed, size, size))[0]


def with_values(values: Tensor, seed: int = 0, rows: int = ROWS, columns: int = COLUMNS) -> Tensor:
    """A matrix of these singular values, in random directions."""
    left, right = (torch.linalg.qr(draw(seed + i, side, len(values)))[0] for i, side in enumerate((rows, columns)))
    return (left * values) @ right.T


def found(matrix: Tensor, seed: int = 1) -> Spectrum:
    return spectrum(InMemoryMatrix(matrix), float(matrix.double().square().sum()), seed)


FALLING = torch.arange(1, COLUMNS + 1)
MATRICES = {
    "flat": draw(0, ROWS, COLUMNS),
    "wide": draw(0, COLUMNS, 900),
    "low rank": with_values(torch.linspace(3, 1, 12)),
    "low rank in noise": with_values(torch.linspace(90, 60, 12)) + 0.3 * draw(9, ROWS, COLUMNS),
    "power law": with_values(FALLING**-0.5),
    "exponential": with_values(torch.exp(-FALLING / 20)),
    "one direction": with_values(torch.tensor([1e-6])),
    "small": draw(3, 40, 90),
    "small and tall": draw(4, 90, 3),
}


@pytest.mark.parametrize("name", MATRICES)
def test_values_are_within_the_bound_and_never_above(name: str) -> None:
    matrix = MATRICES[name]
    spectral = found(matrix)
    exact = torch.linalg.svdvals(matrix.double())
    missing = exact[: len(spectral.reported)] - spectral.reported
    assert float(missing.max()) <= spectral.error
    assert float(missing.min()) >= -3e-6 * float(exact[0])
    rest = exact[len(spectral.values) :]
    assert not len(rest) or float(rest[0]) <= spectral.remainder
    assert len(spectral.reported) == min(NUM_SINGULAR_VALUES, *matrix.shape)


@pytest.mark.parametrize("seed", range(6))
def test_the_bound_of_a_remainder_far_below_the_leading_values_holds_and_is_near(seed: int) -> None:
    """A remainder smaller than the rounding error of the leading values' squares."""
    matrix = with_values(torch.cat((torch.linspace(300, 100, 60), torch.full((300,), 1e-3))), seed)
    left = float(torch.linalg.svdvals(matrix.double())[NUM_SINGULAR_VALUES + OVERSAMPLING])
    assert left <= found(matrix, seed).remainder < 4 * left


@pytest.mark.parametrize("bfloat16", [False, True])
@pytest.mark.parametrize("name", ["low rank", "low rank in noise", "exponential", "one direction", "small"])
def test_values_that_stand_out_are_found_to_float32(name: str, bfloat16: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """In whatever precision the subspace is found."""
    monkeypatch.setattr("vlsurgery.surgery.diff.matrices.multiplies_bfloat16", lambda: bfloat16)
    matrix = MATRICES[name]
    exact = torch.linalg.svdvals(matrix.double())
    assert found(matrix).values[:12].tolist() == pytest.approx(
        exact[:12].tolist(), rel=1e-4, abs=1e-5 * float(exact[0])
    )


@pytest.mark.parametrize("name", ["low rank", "low rank in noise", "small"])
def test_directions_are_singular_directions(name: str) -> None:
    matrix, spectral = MATRICES[name], found(MATRICES[name])
    left, right = spectral.left[:, :3], spectral.right[:, :3]
    assert torch.allclose(left.T @ left, torch.eye(3), atol=1e-5)
    image = matrix @ right
    assert torch.allclose(image, left * spectral.values[:3].float(), atol=2e-3 * float(spectral.values[0]))


@given(st.integers(2, 30), st.integers(2, 30), st.integers(0, 99))
def test_small_matrices_are_exact(rows: int, columns: int, seed: int) -> None:
    matrix = draw(seed, rows, columns)
    spectral = found(matrix)
    exact = np.linalg.svd(matrix.double().numpy(), compute_uv=False)
    assert spectral.is_exact
    assert np.abs(spectral.values.numpy() - exact).max() <= spectral.error + 1e-12 * exact[0]


@pytest.mark.parametrize("name", ["flat", "low rank in noise", "small"])
def test_spectra_do_not_change_under_permutations_and_rotations(name: str) -> None:
    matrix = MATRICES[name]
    rows, columns = (torch.randperm(size, generator=torch.Generator().manual_seed(5)) for size in matrix.shape)
    turned = orthogonal(6, len(matrix)) @ matrix
    for other in (matrix[rows][:, columns], turned):
        one, same = found(matrix), found(other)
        assert torch.allclose(one.values[:3], same.values[:3], rtol=0.03)
        assert float(torch.linalg.matrix_norm(matrix, 2)) <= float(same.values[0]) + same.error


def test_a_seed_gives_the_same_spectrum_and_another_nearly_so() -> None:
    matrix = MATRICES["low rank in noise"]
    assert torch.equal(found(matrix, 1).values, found(matrix, 1).values)
    assert torch.allclose(found(matrix, 1).values[:12], found(matrix, 2).values[:12], rtol=1e-4)


@pytest.mark.parametrize("scale", [2.0**-30, 2.0**30])
def test_scaling_scales_values_and_error(scale: float) -> None:
    one, scaled = found(MATRICES["flat"]), found(MATRICES["flat"] * scale)
    assert torch.allclose(one.values * scale, scaled.values, rtol=1e-4)
    assert scaled.error == pytest.approx(one.error * scale, rel=1e-3)


@pytest.mark.parametrize("scale", [1e-15, 1e-10, 1e15])
def test_sparse_deltas_of_any_size(scale: float) -> None:
    """The remainder of three entries is 0 up to rounding."""
    matrix = torch.zeros(ROWS, COLUMNS)
    matrix[0, 0], matrix[7, 11], matrix[14, 22] = scale, scale / 2, scale / 3
    spectral = found(matrix)
    assert (spectral.values[:3] / scale).tolist() == pytest.approx([1, 1 / 2, 1 / 3], rel=1e-4)
    assert 0 <= spectral.remainder < 1e-5 * scale
    assert 0 < spectral.error < 1e-5 * scale


@given(st.lists(st.floats(0.01, 10), min_size=1, max_size=30))
def test_effective_rank_is_between_1_and_n(values: list[float]) -> None:
    rank = effective_rank(torch.tensor(values))
    assert 1 - 1e-9 <= rank <= len(values) + 1e-9
    assert effective_rank(torch.ones(len(values))) == pytest.approx(len(values))
    shares = np.array(values) / np.sum(values)
    assert rank == pytest.approx(float(np.exp(-(shares * np.log(shares)).sum())), rel=1e-5)


@given(st.lists(st.floats(0.01, 1), min_size=4, max_size=60), st.integers(1, 3))
def test_the_bounds_of_an_effective_rank_hold(values: list[float], parts: int) -> None:
    """Whatever the tail looks like."""
    spectral = torch.tensor(sorted(values, reverse=True), dtype=torch.float64)
    head, tail = spectral[: len(values) * parts // 4], spectral[len(values) * parts // 4 :]
    rank = estimated_rank(head, float(tail.square().sum()), float(tail[0]), len(tail))
    assert rank.low <= rank.value <= rank.high
    assert rank.low * 0.999 <= effective_rank(spectral) <= rank.high * 1.001


@pytest.mark.parametrize("name", ["flat", "low rank in noise", "power law", "exponential"])
def test_the_estimate_of_an_effective_rank_is_near(name: str) -> None:
    spectral = found(MATRICES[name])
    left_over = spectral.energy - float(spectral.values.square().sum())
    rank = estimated_rank(spectral.values, left_over, spectral.remainder, COLUMNS - len(spectral.values))
    exact = effective_rank(torch.linalg.svdvals(MATRICES[name].double()))
    assert rank.low <= exact <= rank.high
    assert rank.value == pytest.approx(exact, rel=0.25)


def base(matrix: Tensor) -> Subspaces:
    return Subspaces(*leading_directions(InMemoryMatrix(matrix), 1, subspaces.base_rank(tuple(matrix.shape))))


def overlap(delta: Tensor, start: Subspaces) -> float:
    return subspaces.base_overlap(InMemoryMatrix(delta), float(delta.double().square().sum()), start)


@pytest.mark.parametrize("rows", [ROWS, 80])
def test_a_delta_inside_of_the_base_overlaps_and_one_outside_does_not(rows: int) -> None:
    start = base(with_values(torch.linspace(9, 1, 60 if rows > MAX_EXACT_SIDE else 20), rows=rows))
    inside = (start.left[:, :5] * torch.arange(5, 0, -1)) @ start.right[:, 5:10].T
    noise = draw(7, rows, COLUMNS)
    left, right = (side @ side.T for side in start)
    outside = (noise - left @ noise) @ (torch.eye(COLUMNS) - right)
    assert overlap(inside, start) == pytest.approx(1, abs=1e-4)
    assert subspaces.intruder_share(found(inside), start) == pytest.approx(0, abs=1e-4)
    assert overlap(outside, start) == pytest.approx(0, abs=1e-4)
    assert subspaces.intruder_share(found(outside), start) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("narrow", [False, True])
def test_a_matrix_in_bfloat16_has_the_directions_of_its_values_in_float32(
    narrow: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vlsurgery.surgery.diff.matrices.multiplies_bfloat16", lambda: narrow)
    stored = with_values(torch.linspace(9, 1, 60)).bfloat16()
    for one, other in zip(
        leading_directions(BFloat16Matrix(stored.view(torch.uint16)), 1, 8),
        leading_directions(InMemoryMatrix(stored.float()), 1, 8),
        strict=True,
    ):
        assert torch.linalg.svdvals(one.T @ other).min() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("narrow", [False, True])
@pytest.mark.parametrize(
    ("values", "rank"),
    [(torch.linspace(9, 1, 12), 12), (torch.cat((torch.logspace(0, -1.5, 20), torch.full((400,), 1e-3))), 20)],
    ids=["low rank", "falling, above a floor"],
)
def test_leading_directions_are_numpys(
    values: Tensor, rank: int, narrow: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On both sides; of a matrix of low rank no more directions than its rank."""
    monkeypatch.setattr("vlsurgery.surgery.diff.matrices.multiplies_bfloat16", lambda: narrow)
    matrix = with_values(values)
    left, _, right = np.linalg.svd(matrix.double().numpy(), full_matrices=False)
    found = leading_directions(InMemoryMatrix(matrix), 1, NUM_SINGULAR_VALUES)
    assert all(side.shape[1] == (rank if rank == len(values) else NUM_SINGULAR_VALUES) for side in found)
    for side, expected in zip(found, (left[:, :rank], right[:rank].T), strict=True):
        assert torch.allclose(side.T @ side, torch.eye(side.shape[1]), atol=1e-4)
        assert np.square(side.double().numpy().T @ expected).sum(axis=0).min() > 0.9999


def test_random_deltas_have_the_overlaps_that_the_nulls_say() -> None:
    start = base(draw(1, ROWS, COLUMNS))
    deltas = [draw(seed, ROWS, COLUMNS) for seed in range(2, 8)]
    overlaps = [overlap(delta, start) for delta in deltas]
    assert np.mean(overlaps) == pytest.approx(subspaces.overlap_null(start), rel=0.05)
    strange = [subspaces.intruder_share(found(delta), start) for delta in deltas]
    assert np.mean(strange) == pytest.approx(subspaces.intruder_share_null(start), abs=0.02)
    directions = [found(delta).left[:, :8] for delta in deltas]
    pairs = [subspaces.overlap(one, other) for i, one in enumerate(directions) for other in directions[:i]]
    assert np.mean(pairs) == pytest.approx(subspaces.random_overlap(directions[0], directions[1]), rel=0.2)


def test_a_subspace_overlaps_itself_whatever_its_basis() -> None:
    basis = found(MATRICES["low rank"]).left[:, :8]
    assert subspaces.overlap(basis, basis @ orthogonal(2, 8)) == pytest.approx(1, abs=1e-5)
    assert subspaces.overlap(basis[:, :4], basis[:, 4:]) == pytest.approx(0, abs=1e-5)


def test_intruder_share_against_float64() -> None:
    start, delta = base(draw(1, ROWS, COLUMNS)), MATRICES["low rank in noise"]
    left, values, right = torch.linalg.svd(delta.double(), full_matrices=False)
    leading = (left[:, :8] * values[:8]) @ right[:8]
    rest = [torch.eye(len(side), dtype=torch.float64) - side.double() @ side.double().T for side in start]
    expected = (rest[0] @ leading @ rest[1]).square().sum() / leading.square().sum()
    assert subspaces.intruder_share(found(delta), start) == pytest.approx(float(expected), rel=1e-4)
    assert math.isfinite(float(expected))
