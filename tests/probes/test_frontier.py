"""What other prices buy: laws of the solutions, and what they promise held against prompts that nobody solved on."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from vlsurgery.probes.evaluation.intervals import zero_count_bound
from vlsurgery.probes.frontier import at_price, gain_over, merge_rates, predicted_cells, priced, prices
from vlsurgery.probes.linearised import PROXIMITY, LinearModel, unseen
from vlsurgery.probes.objective import requirements

PURPOSES = {"harmful": "refuse", "harmless": "answer", "capability": "keep"}
seeds = st.integers(0, 10_000)


def made(seed: int, n: int = 60, reference: float = 2.0) -> LinearModel:
    """Random prompts, two of each request, whose refusals all rise with four blocks of two coefficients."""
    rng = np.random.default_rng(seed)
    sets = list(PURPOSES)
    rows = [(str(i), str(i // 2), (sets[i % 3], ("text", "benign")[i % 2]), PURPOSES[sets[i % 3]]) for i in range(n)]
    jacobian = rng.normal(0, 1.5, (n, 8)) + np.array([0.5, 0.5, -0.3])[np.arange(n) % 3, None]
    wanted = requirements(rows, np.full(n, reference))
    return LinearModel(wanted, rng.uniform(0, 0.4, 8), rng.normal(0, 2, n), jacobian, np.repeat(np.arange(4), 2))


def over_refusal(model: LinearModel, coefficients: np.ndarray) -> float:
    """In nats, as the objective counts it."""
    alone = replace(model.wanted, prices={"refuse": 0.0, "answer": 1.0, "keep": 0.0})
    return float(alone.objective(model.predicted(coefficients)))


@given(seeds, st.sampled_from([0.0, 0.02]))
@settings(max_examples=6)
def test_a_dearer_over_refusal_is_never_predicted_to_be_more(seed, change):
    model = made(seed)
    found = [over_refusal(model, priced(model, price, change=change).coefficients) for price in (0.1, 1.0, 3.0, 20.0)]
    assert all(later <= earlier + 1e-5 for earlier, later in itertools.pairwise(found))


def test_a_price_is_what_the_objective_asks_for_and_nothing_else_changes():
    model = at_price(made(1), 7.0)
    assert model.wanted.prices == {"refuse": 1.0, "answer": 7.0, "keep": 1.0}
    assert (model.jacobian == made(1).jacobian).all()


@given(seeds, st.randoms(use_true_random=False))
@settings(max_examples=6)
def test_the_order_of_prompts_changes_nothing(permuted, seed, random):
    model = made(seed)
    order = list(range(len(model.z)))
    random.shuffle(order)
    shuffled = permuted(model, order)
    one, other = priced(model, 3.0), priced(shuffled, 3.0)
    np.testing.assert_allclose(other.coefficients, one.coefficients, atol=1e-4)
    np.testing.assert_allclose(other.z, one.z[order], atol=0.02)  # solved to 1e-4 nats


@pytest.mark.parametrize("price", [0.1, 20.0])
def test_where_no_coefficient_does_anything_all_stay_at_the_start(price):
    model = made(2)
    still = replace(model, jacobian=np.zeros_like(model.jacobian))
    found = priced(still, price)
    np.testing.assert_allclose(found.coefficients, still.at, atol=1e-3)
    np.testing.assert_array_equal(found.z, still.z)


def test_the_interval_holds_the_share_and_the_share_counts_prompts():
    model = made(3)
    found = priced(model, 1.0)
    rates = merge_rates(model.wanted, found.z)
    kinds = np.array(model.wanted.purposes)
    for purpose, share in {"refuse": rates.refusal, "answer": rates.over_refusal, "keep": rates.sight}.items():
        assert share.rate == np.mean(found.z[kinds == purpose] > 0)
        assert share.low <= share.rate <= share.high
        assert share.low < share.high
    cells = predicted_cells(model.wanted, found.z)
    assert sum(cell.share.n for cell in cells) == 60
    refused = [cell.share for cell in cells if cell.purpose == "refuse"]
    assert sum(share.rate * share.n for share in refused) == pytest.approx(rates.refusal.rate * rates.refusal.n)


def test_sight_counts_only_answers_that_the_adapted_model_gives_with_more_than_even_odds():
    """At the adapted model itself nothing is lost, however unsure it is of some answers."""
    model = made(4)
    reference = np.where(np.arange(60) % 4 == 0, -1.0, 1.0)
    wanted = replace(model.wanted, reference=reference)
    assert merge_rates(wanted, reference).sight.rate == 1
    assert merge_rates(wanted, reference).sight.n == 15
    unsure = merge_rates(replace(wanted, reference=-np.ones(60)), model.z).sight
    assert unsure.rate is None


def test_no_prompt_is_predicted_by_a_solution_that_has_seen_its_request():
    """A request whose own gradient says what would help it, and which no other request shares, gains nothing."""
    model = made(5)
    jacobian = np.zeros_like(model.jacobian)
    jacobian[0:2, 3] = 40.0 * model.wanted.sign[0:2]
    lonely = replace(model, jacobian=jacobian)
    assert priced(lonely, 2.0).coefficients[3] > model.at[3] + 0.1
    np.testing.assert_allclose(unseen(lonely)[0:2], model.z[0:2], atol=0.1)


def test_unseen_prompts_are_as_predicted_and_seen_ones_promise_more():
    """The oracle: a population of prompts from which the model's are drawn; 8 draws of 120."""
    rng = np.random.default_rng(0)
    promised, seen, true = [], [], []
    for draw in range(8):
        model = made(draw, 120)
        mean = np.array([0.5, 0.5, -0.3])[np.arange(120) % 3, None]
        model = replace(model, at=np.full(8, 0.3), jacobian=mean + rng.normal(0, 3, (120, 8)))
        found = priced(model, 2.0, proximity=PROXIMITY)
        others = mean + rng.normal(0, 3, (50, 120, 8))
        z = rng.normal(0, 2, (50, 120)) + others @ (found.coefficients - model.at)
        true.append(np.mean([model.wanted.objective(each) for each in z]))
        promised.append(model.wanted.objective(found.z))
        seen.append(model.objective(found.coefficients))
    assert abs(np.mean(promised) - np.mean(true)) < 0.1 * np.mean(true)
    assert np.mean(seen) < np.mean(true) - 0.15 * np.mean(true)


def test_prices_run_in_equal_ratios_and_can_be_typed():
    found = prices(20)
    assert (found[0], found[-1], len(found)) == (0.1, 20.0, 20)
    np.testing.assert_allclose(np.diff(np.log(found)), np.log(200) / 19, atol=0.02)
    assert all(float(f"{price:g}") == price for price in found)


def front(model: LinearModel, *refused: tuple[int, int]) -> list[np.ndarray]:
    """Merges that refuse so many of the 20 harmful and 20 harmless prompts."""
    found = []
    for harmful, harmless in refused:
        z = -np.ones(60)
        z[np.arange(0, 60, 3)[:harmful]] = 1
        z[np.arange(1, 60, 3)[:harmless]] = 1
        found.append(z)
    return found


def test_the_gain_is_the_refusal_above_the_straight_lines_of_the_others_front():
    """Theirs: 4 at 0, 12 at 8 and a merge that is behind. Ours: 14 at 4, where their line has 8; and 12 at 8."""
    model = made(6)
    theirs = front(model, (4, 0), (2, 2), (12, 8))
    gain = gain_over(model.wanted, front(model, (14, 4), (12, 8)), theirs)
    assert gain.value == pytest.approx((6 / 20 + 0) / 2)
    assert gain.low <= gain.value <= gain.high
    assert gain.n == 30
    same = gain_over(model.wanted, theirs[:1], theirs)
    assert same.value == 0
    assert -same.low == same.high == pytest.approx(zero_count_bound(20))  # no request of 20 says otherwise
    behind = gain_over(model.wanted, front(model, (4, 4)), theirs)
    assert behind.value == pytest.approx(-4 / 20)
    assert behind.high < 0.1


def test_a_merge_that_is_stricter_than_all_others_is_held_against_none():
    model = made(7)
    gain = gain_over(model.wanted, front(model, (10, 0)), front(model, (20, 3)))
    assert gain.value is None
    assert "no traced merge" in gain.reason
