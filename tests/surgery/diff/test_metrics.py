"""Metrics against float64 numpy, and the laws that any such number obeys."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from hypothesis.extra import numpy as arrays
from torch import Tensor

from vlsurgery.surgery.diff.accumulator import Accumulator
from vlsurgery.surgery.diff.metrics import PairStatistics
from vlsurgery.surgery.errors import CheckpointError
from vlsurgery.surgery.results import BetweenMetrics, DeltaMetrics

ROLES = ("base", "adapted", "safety")
NAMES = dict(zip(ROLES, ROLES, strict=True))
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
def test_delta_metrics_equal_numpy(delta_metrics: Callable[..., DeltaMetrics], pair: tuple[Tensor, Tensor]) -> None:
    before, after = (tensor.double().numpy() for tensor in pair)
    found = delta_metrics(*pair)
    delta = after - before
    norm = np.linalg.norm(before)
    assert same(found.relative, None if norm == 0 else np.linalg.norm(delta) / norm)
    assert same(found.cosine, cosine(before, after))
    assert same(found.rms, float(np.sqrt(np.mean(delta**2))))
    assert found.max_abs == np.abs(delta).max()
    assert same(found.changed, float(np.mean(delta != 0)))
    assert same(found.mean_shift, float(np.mean(delta)))


@given(tensors(3))
def test_between_metrics_equal_numpy(
    between_metrics: Callable[..., BetweenMetrics], triple: tuple[Tensor, Tensor, Tensor]
) -> None:
    base, adapted, safety = (tensor.double().numpy() for tensor in triple)
    found = between_metrics(*triple)
    first, second = adapted - base, safety - adapted
    assert same(found.cosine, cosine(first, second))
    both = (first != 0) & (second != 0)
    conflict = None if not both.any() else float(np.mean(np.sign(first[both]) != np.sign(second[both])))
    assert same(found.sign_conflict, conflict)
    products = first * second
    opposed, weight = -products[products < 0].sum(), np.abs(products).sum()
    assert same(found.sign_conflict_weighted, float(opposed / weight) if weight else None)
    opposite = None if found.cosine is None else min(0.0, cosine(first, second)) ** 2
    assert same(found.reversal, opposite)
    assert {key for key in ("cosine", "sign_conflict", "reversal") if getattr(found, key) is None} <= set(found.why)


DTYPES = dict.fromkeys(ROLES, "F32")


def tallied(tensors: Sequence[Tensor], cuts: Sequence[int] = (), parts: int = 1, row: int = 0) -> Accumulator:
    """The sums of base, adapted and safety, taken in ranges that end at `cuts`."""
    flat = [tensor.reshape(-1).numpy() for tensor in tensors]
    whole = Accumulator(len(flat[0]), ROLES, parts, row)
    for start, stop in pairwise([0, *cuts, len(flat[0])]):
        piece = Accumulator(len(flat[0]), ROLES, parts, row)
        piece.add({role: vector[start:stop] for role, vector in zip(ROLES, flat, strict=True)}, NAMES)
        whole.join(piece)
    return whole


def numbers(table: dict[str, object], prefix: str = "") -> dict[str, float]:
    """Every number of a result, by its dotted name."""
    found: dict[str, float] = {}
    for key, value in table.items():
        if isinstance(value, dict):
            found |= numbers(value, f"{prefix}{key}.")
        elif isinstance(value, int | float):
            found[prefix + key] = value
    return found


def close(first: PairStatistics, second: PairStatistics) -> None:
    """All metrics agree."""
    assert numbers(first.metrics().model_dump()) == pytest.approx(numbers(second.metrics().model_dump()), 1e-9, 1e-9)


@given(tensors(3), st.integers(0, 200))
def test_sums_of_ranges_add_up_to_the_whole(triple: tuple[Tensor, ...], cut: int) -> None:
    whole = tallied(triple)
    close(tallied(triple, [min(cut, triple[0].numel())]).statistics(DTYPES), whole.statistics(DTYPES))
    assert sum(sums.entries for sums in whole.part_sums("vl")) == triple[0].numel()


def test_sums_do_not_depend_on_where_a_large_tensor_is_cut() -> None:
    """With nulls from a sample."""
    draws = torch.randn(3, 163_917, generator=torch.Generator().manual_seed(3))
    tensors = [draws[0], draws[0] + 0.1 * draws[1], draws[0] + 0.1 * draws[1] + 0.1 * draws[2]]
    cuts = [17 * 1000, 17 * 9000]
    close(tallied(tensors, cuts).statistics(DTYPES), tallied(tensors).statistics(DTYPES))


@given(tensors(3), st.integers(1, 4))
def test_deltas_that_are_put_in_memory_are_the_differences_and_change_no_sum(
    triple: tuple[Tensor, ...], parts: int
) -> None:
    flat = [tensor.reshape(-1).repeat(parts).numpy() for tensor in triple]
    chunk = dict(zip(ROLES, flat, strict=True))
    plain, filling = (Accumulator(len(flat[0]), ROLES, parts) for _ in range(2))
    plain.add(chunk, NAMES)
    deltas = {role: np.full(len(flat[0]), np.nan, np.float32) for role in ("vl", "safety")}
    filling.add(chunk, NAMES, outputs=deltas)
    close(filling.statistics(DTYPES), plain.statistics(DTYPES))
    for role, before, after in zip(deltas, flat[:-1], flat[1:], strict=True):
        np.testing.assert_array_equal(deltas[role], (after.astype(np.float64) - before).astype(np.float32))


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 5), st.booleans(), st.booleans(), st.integers(0, 99))
def test_parts_are_rows_or_columns(
    delta_metrics: Callable[..., DeltaMetrics],
    parts: int,
    width: int,
    other: int,
    columns: bool,
    together: bool,
    seed: int,
) -> None:
    """Heads one by one, or several in one chunk, and all of them together, against the tensors cut apart."""
    extent = (other, parts * width) if columns else (parts * width, other)
    draws = torch.randn(3, *extent, generator=torch.Generator().manual_seed(seed))
    pieces = [tensor.split(width, dim=int(columns)) for tensor in draws]
    tally = Accumulator(draws[0].numel(), ROLES, parts, parts * width if columns else 0)
    if columns or together:
        tally.add({role: tensor.reshape(-1).numpy() for role, tensor in zip(ROLES, draws, strict=True)}, NAMES)
    else:
        for part in range(parts):
            chunk = {role: piece[part].reshape(-1).numpy() for role, piece in zip(ROLES, pieces, strict=True)}
            tally.add(chunk, NAMES, part)
    close(tally.statistics(DTYPES), tallied(draws).statistics(DTYPES))
    for part, sums in enumerate(tally.part_sums("safety")):
        expected = delta_metrics(pieces[1][part], pieces[2][part])
        assert sums.relative == pytest.approx(expected.relative)
        assert sums.cosine == pytest.approx(expected.cosine)
        assert sums.rms == pytest.approx(expected.rms)


@given(tensors(1))
def test_nothing_changed_is_zero(delta_metrics: Callable[..., DeltaMetrics], single: tuple[Tensor]) -> None:
    found = delta_metrics(single[0], single[0].clone())
    assert (found.rms, found.max_abs, found.changed) == (0, 0, 0)
    assert found.relative in (0, None)
    assert found.cosine is None or found.cosine == pytest.approx(1)


def test_unrelated_models_have_a_delta_cosine_of_minus_a_half(between_metrics: Callable[..., BetweenMetrics]) -> None:
    """Both deltas contain `adapted`: what looks like opposition is arithmetic."""
    draws = torch.randn(3, 200_000, generator=torch.Generator().manual_seed(0))
    assert between_metrics(*draws).cosine == pytest.approx(-0.5, abs=0.01)


def test_reversing_is_full_conflict_and_going_on_is_none(between_metrics: Callable[..., BetweenMetrics]) -> None:
    base = torch.zeros(8)
    step = torch.arange(1.0, 9.0)
    opposite, further = between_metrics(base, step, base), between_metrics(base, step, 2 * step)
    assert (opposite.cosine, opposite.sign_conflict) == (pytest.approx(-1), 1)
    assert (further.cosine, further.sign_conflict) == (pytest.approx(1), 0)


def test_sums_are_in_float64(delta_metrics: Callable[..., DeltaMetrics]) -> None:
    """A million small changes on top of large weights: float32 sums would lose them."""
    before = torch.full((1 << 20,), 1.0)
    after = before + 2.0**-20
    assert delta_metrics(before, after).rms == pytest.approx(2.0**-20, rel=1e-12)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_nan_and_infinity_are_named(
    delta_metrics: Callable[..., DeltaMetrics], between_metrics: Callable[..., BetweenMetrics], value: float, place: int
) -> None:
    triple = [torch.ones(3, 4) for _ in range(3)]
    triple[place][1, 2] = value
    names = ["the base", "the adapted", "the safety"]
    with pytest.raises(CheckpointError, match=f"^{names[place]}: holds NaN"):
        between_metrics(*triple, names=names)
    if place < 2:
        with pytest.raises(CheckpointError, match=f"^{names[place]}: holds NaN"):
            delta_metrics(*triple[:2], names=names[:2])


def test_no_entries_no_change(delta_metrics: Callable[..., DeltaMetrics]) -> None:
    found = delta_metrics(torch.zeros(0), torch.zeros(0))
    assert (found.relative, found.cosine, found.rms, found.changed) == (None, None, 0, 0)
