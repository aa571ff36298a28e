"""Metrics against float64 numpy, and the laws that any such number obeys."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import Tensor

from surgery.errors import CheckpointError
from surgery.tally import between_metrics, delta_metrics
from surgery.metrics import BetweenSums, DeltaSums

VALUES = st.floats(-100, 100, width=32).map(lambda x: round(x * 64) / 64)
SHAPES = arrays.array_shapes(max_dims=3, max_side=5)


def tensors(count: int) -> st.SearchStrategy[tuple[Tensor, ...]]:
    def draw(shape: tuple[int, ...]) -> st.SearchStrategy[tuple[Tensor, ...]]:
        return st.tuples(*[arrays.arrays(np.float32, shape, elements=VALUES).map(torch.from_numpy)] * count)

    return SHAPES.flatmap(draw)


def cosine(first: np.ndarray, second: np.ndarray) -> float | None:
    norms = np.linalg.norm(first) * np.linalg.norm(second)
    return None if norms == 0 else float(np.sum(first * second) / norms)


def same(found: float | None, expected: float | None) -> bool:
    if found is None or expected is None:
        return found is expected
    return math.isclose(found, expected, rel_tol=1e-9, abs_tol=1e-9)


@given(tensors(2))
def test_delta_metrics_equal_numpy(pair: tuple[Tensor, Tensor]) -> None:
    before, after = (tensor.double().numpy() for tensor in pair)
    found = delta_metrics(*pair)
    delta = after - before
    norm = np.linalg.norm(before)
    assert same(found.relative, None if norm == 0 else np.linalg.norm(delta) / norm)
    assert same(found.cosine, cosine(before, after))
    assert same(found.rms, float(np.sqrt(np.mean(delta**2))))
    assert found.max_abs == np.abs(delta).max()
    assert same(found.changed, float(np.mean(delta != 0)))


@given(tensors(3))
def test_between_metrics_equal_numpy(triple: tuple[Tensor, Tensor, Tensor]) -> None:
    base, adapted, safety = (tensor.double().numpy() for tensor in triple)
    found = between_metrics(*triple)
    first, second = adapted - base, safety - adapted
    assert same(found.cosine, cosine(first, second))
    both = (first != 0) & (second != 0)
    conflict = None if not both.any() else float(np.mean(np.sign(first[both]) != np.sign(second[both])))
    assert same(found.sign_conflict, conflict)


@given(tensors(3), st.integers(0, 200))
def test_sums_of_pieces_add_up_to_the_whole(triple: tuple[Tensor, ...], cut: int) -> None:
    flat = [tensor.reshape(-1) for tensor in triple]
    parts = [[tensor[:cut] for tensor in flat], [tensor[cut:] for tensor in flat]]
    whole = DeltaSums.of(flat[0], flat[1]).metrics()
    pieces = (DeltaSums.of(*parts[0][:2]) + DeltaSums.of(*parts[1][:2])).metrics()
    for name in ("relative", "cosine", "rms", "max_abs", "changed"):
        assert same(getattr(pieces, name), getattr(whole, name))
    between = BetweenSums.of(*flat).metrics()
    added = (BetweenSums.of(*parts[0]) + BetweenSums.of(*parts[1])).metrics()
    assert same(added.cosine, between.cosine)
    assert same(added.sign_conflict, between.sign_conflict)


@given(tensors(1))
def test_nothing_changed_is_zero(single: tuple[Tensor]) -> None:
    found = delta_metrics(single[0], single[0].clone())
    assert (found.rms, found.max_abs, found.changed) == (0, 0, 0)
    assert found.relative in (0, None)
    assert found.cosine is None or found.cosine == pytest.approx(1)


def test_unrelated_models_have_a_delta_cosine_of_minus_a_half() -> None:
    """Both deltas contain `adapted`: what looks like opposition is arithmetic."""
    draws = torch.randn(3, 200_000, generator=torch.Generator().manual_seed(0))
    assert between_metrics(*draws).cosine == pytest.approx(-0.5, abs=0.01)


def test_undoing_is_full_conflict_and_going_on_is_none() -> None:
    base = torch.zeros(8)
    step = torch.arange(1.0, 9.0)
    undone, further = between_metrics(base, step, base), between_metrics(base, step, 2 * step)
    assert (undone.cosine, undone.sign_conflict) == (pytest.approx(-1), 1)
    assert (further.cosine, further.sign_conflict) == (pytest.approx(1), 0)


def test_sums_are_in_float64() -> None:
    """A million small changes on top of large weights: float32 sums would lose them."""
    before = torch.full((1 << 20,), 1.0)
    after = before + 2.0**-20
    assert delta_metrics(before, after).rms == pytest.approx(2.0**-20, rel=1e-12)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_nan_and_infinity_are_named(value: float, place: int) -> None:
    triple = [torch.ones(3, 4) for _ in range(3)]
    triple[place][1, 2] = value
    names = ["the base", "the adapted", "the safety"]
    with pytest.raises(CheckpointError, match=f"^{names[place]}: holds NaN"):
        between_metrics(*triple, names=names)
    if place < 2:
        with pytest.raises(CheckpointError, match=f"^{names[place]}: holds NaN"):
            delta_metrics(*triple[:2], names=names[:2])


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match="shapes differ"):
        delta_metrics(torch.zeros(2, 3), torch.zeros(3, 2))


def test_no_entries_no_change() -> None:
    found = delta_metrics(torch.zeros(0), torch.zeros(0))
    assert (found.relative, found.cosine, found.rms, found.changed) == (None, None, 0, 0)
