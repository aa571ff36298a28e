"""The objective's laws: what it ignores, what it weighs more, and what its intervals are made of."""

import numpy as np
import pytest
from hypothesis import given, strategies as st

from vlsurgery.probes.objective import PRICES, WORST_CELLS, paired_objectives, requirements

ROWS = [
    ("a", "1", ("harmful", "text"), "refuse"),
    ("b", "2", ("harmful", "text"), "refuse"),
    ("c", "1", ("harmful", "benign"), "refuse"),
    ("d", "3", ("harmless", "text"), "answer"),
    ("e", "4", ("harmless", "text"), "answer"),
    ("f", "5", ("capability", "own"), "keep"),
]
REFERENCE = np.array([0.0, 0.0, 0.0, 0.0, 0.0, 1.5])
log_odds = st.lists(st.floats(-20, 20), min_size=6, max_size=6).map(np.array)


def test_by_hand():
    """Two cells to refuse, joined by a soft maximum; one to answer, at twice the price; one to keep, from its own."""
    z = np.array([1.0, 3.0, -2.0, -4.0, 0.5, 1.0])

    def lost(value):
        return np.log1p(np.exp(-value))

    text, benign = (lost(1.0) + lost(3.0)) / 2, lost(-2.0)
    refuse = np.log((np.exp(WORST_CELLS * text) + np.exp(WORST_CELLS * benign)) / 2) / WORST_CELLS
    answer = (lost(4.0) + lost(-0.5)) / 2
    keep = lost(1.0) - lost(1.5)
    expected = refuse + 2 * answer + keep
    assert PRICES == {"refuse": 1.0, "answer": 2.0, "keep": 1.0}
    assert float(requirements(ROWS, REFERENCE).objective(z)) == pytest.approx(expected)


@given(log_odds)
def test_the_adapted_model_loses_nothing_of_its_own_answers(z):
    wanted = requirements(ROWS, z)
    assert wanted.losses(z)[wanted.names.index(("capability", "own"))] == pytest.approx(0)


@given(log_odds, st.integers(0, 5), st.floats(0, 5))
def test_more_of_what_is_wanted_is_never_worse(z, at, more):
    wanted = requirements(ROWS, REFERENCE)
    better = z.copy()
    better[at] += more * wanted.sign[at]
    assert float(wanted.objective(better)) <= float(wanted.objective(z)) + 1e-9


@given(log_odds, st.permutations(range(6)))
def test_the_order_of_prompts_says_nothing(z, order):
    shuffled = requirements([ROWS[at] for at in order], REFERENCE[list(order)])
    assert float(shuffled.objective(z[list(order)])) == pytest.approx(
        float(requirements(ROWS, REFERENCE).objective(z)), abs=1e-9
    )


@given(log_odds)
def test_a_soft_maximum_lies_between_mean_and_worst(z):
    wanted = requirements(ROWS, REFERENCE, {"refuse": 1.0, "answer": 0.0, "keep": 0.0})
    losses = [loss for loss, of in zip(wanted.losses(z), wanted.cell_purposes, strict=True) if of == "refuse"]
    assert np.mean(losses) - 1e-9 <= float(wanted.objective(z)) <= max(losses) + 1e-9


@given(log_odds)
def test_emphasis_is_the_slope_by_each_cells_loss(z):
    wanted = requirements(ROWS, REFERENCE)
    losses = wanted.losses(z)
    slope = [(wanted.joined(losses + h) - wanted.joined(losses - h)) / 2e-6 for h in 1e-6 * np.eye(len(losses))]
    np.testing.assert_allclose(wanted.emphasis(losses).sum(0), slope, atol=1e-6)


@given(log_odds, st.lists(st.integers(0, 3), min_size=6, max_size=6).map(lambda w: np.array(w, float)))
def test_a_weight_is_a_number_of_copies(z, weights):
    wanted = requirements(ROWS, REFERENCE)
    copies = [at for at in range(6) for _ in range(int(weights[at]))]
    if not copies:
        return
    many = requirements([ROWS[at] for at in copies], REFERENCE[copies])
    assert float(wanted.objective(z, weights)) == pytest.approx(float(many.objective(z[copies])), abs=1e-9)


def test_a_difference_has_the_sign_of_the_better_one_and_an_interval_over_requests():
    rng = np.random.default_rng(0)
    rows = [(str(i), str(i // 2), ("harmful", ("text", "benign")[i % 2]), "refuse") for i in range(80)]
    wanted = requirements(rows, np.zeros(80))
    theirs = rng.normal(0, 2, 80)
    found = paired_objectives(wanted, theirs + rng.normal(1, 0.2, 80), theirs)
    assert 0 < found.low <= found.value <= found.high
    assert not found.is_tie
    assert found.requests == 40
    back = paired_objectives(wanted, theirs, theirs + 1)
    assert back.high < 0
    same = paired_objectives(wanted, theirs, theirs)
    assert (same.low, same.value, same.high) == (0, 0, 0)
    assert same.is_tie


def test_prompts_of_a_request_are_drawn_together():
    draws = requirements(ROWS, REFERENCE).resampled(50)
    assert draws.shape == (50, 6)
    assert (draws[:, 0] == draws[:, 2]).all()
    assert (draws[:, [0, 1, 3, 4, 5]].sum(1) == 5).all()
