"""The convex step against scipy's own solver, and the laws of its solution."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from scipy.optimize import minimize

from vlsurgery.probes.linearised import (
    BEYOND,
    HULL,
    INDIFFERENCE,
    NOTHING,
    PROXIMITIES,
    PROXIMITY,
    RADIUS,
    LinearModel,
    Region,
    blocks_that_matter,
    cross_validated,
    intervals,
    least,
    solve,
    sparse,
)
from vlsurgery.probes.objective import requirements

PURPOSES = {
    "harmful": "refuse", "jailbroken": "refuse", "harmless": "answer", "borderline": "answer", "capability": "keep",
}  # fmt: skip
seeds = st.integers(0, 10_000)


def made(seed: int, n: int = 40, blocks: int = 4, sources: int = 2, scale: float = 3.0) -> LinearModel:
    """Random prompts whose refusals and over-refusals both rise with the coefficients, and whose answers suffer."""
    rng = np.random.default_rng(seed)
    sets = list(PURPOSES)
    rows = [(str(i), str(i // 2), (sets[i % 5], ("text", "benign")[i % 2]), PURPOSES[sets[i % 5]]) for i in range(n)]
    drift = np.array([-0.5 if purpose == "keep" else 1.5 for *_, purpose in rows])
    jacobian = rng.normal(0, scale / np.sqrt(blocks), (n, blocks * sources)) + drift[:, None] / np.sqrt(blocks)
    at = rng.uniform(0, 0.5, blocks * sources)
    wanted = requirements(rows, rng.normal(2, 1, n))
    return LinearModel(wanted, at, rng.normal(0, 2, n), jacobian, np.repeat(np.arange(blocks), sources))


def cost(model: LinearModel, c: np.ndarray) -> float:
    return model.objective(c) + PROXIMITY / 2 * float(np.sum((c - model.at) ** 2))


def sums(model: LinearModel) -> np.ndarray:
    return np.equal.outer(np.unique(model.block), model.block).astype(float)


@given(seeds, st.sampled_from([(4, 2), (3, 1), (2, 3)]))
@settings(max_examples=12)
def test_scipy_finds_nothing_better(seed, size):
    model = made(seed, blocks=size[0], sources=size[1])
    model = replace(model, at=model.at / max(1.0, *(sums(model) @ model.at)))
    region = Region.around(model.at, RADIUS)
    found = solve(model)
    matrix = sums(model)
    rival = minimize(
        lambda c: cost(model, c),
        model.at,
        bounds=list(zip(region.lower, region.upper, strict=True)),
        constraints=[{"type": "ineq", "fun": lambda c: 1 - matrix @ c, "jac": lambda c: -matrix}],  # noqa: ARG005
        method="SLSQP",
        options={"ftol": 1e-10, "maxiter": 300},
    )
    assert cost(model, found) <= rival.fun + 1e-5
    assert cost(model, found) <= cost(model, model.at) + 1e-6


@given(seeds)
@settings(max_examples=15)
def test_the_solution_stays_in_the_region_and_meets_the_conditions_of_karush_kuhn_and_tucker(seed):
    model = made(seed)
    region = Region.around(model.at, RADIUS)
    found = solve(model)
    assert (found >= region.lower).all()
    assert (found <= region.upper).all()
    room = 1 - sums(model) @ found
    assert room.min() >= -1e-9
    slope = np.array([(cost(model, found + h) - cost(model, found - h)) / 2e-6 for h in 1e-6 * np.eye(len(found))])
    for value, low, high, g, block in zip(found, region.lower, region.upper, slope, model.block, strict=True):
        if room[block] > 1e-4:  # The sum does not bind, so a coefficient's slope is 0 or holds it at its bound.
            assert g > -1e-3 or value > high - 1e-4
            assert g < 1e-3 or value < low + 1e-4


@given(seeds)
@settings(max_examples=8)
def test_a_higher_price_of_over_refusal_never_raises_it(seed):
    model = made(seed)
    of = [("answer" if purpose == "answer" else "other") for purpose in model.wanted.purposes]

    def over_refusal(price: float) -> float:
        priced = replace(model, wanted=replace(model.wanted, prices={"refuse": 1.0, "answer": price, "keep": 1.0}))
        alone = replace(model.wanted, prices={"refuse": 0.0, "answer": 1.0, "keep": 0.0})
        return float(alone.objective(model.predicted(solve(priced))))

    assert "answer" in of
    found = [over_refusal(price) for price in (0.5, 1.0, 2.0, 4.0)]
    assert all(later <= earlier + 1e-5 for earlier, later in itertools.pairwise(found))


@given(seeds, st.randoms(use_true_random=False))
@settings(max_examples=10)
def test_the_order_of_prompts_says_nothing(permuted, seed, random):
    model = made(seed)
    order = list(range(len(model.z)))
    random.shuffle(order)
    shuffled = permuted(model, order)
    np.testing.assert_allclose(solve(shuffled), solve(model), atol=1e-4)


def test_nothing_to_gain_moves_nothing():
    model = made(0)
    still = replace(model, jacobian=np.zeros_like(model.jacobian))
    np.testing.assert_allclose(solve(still), model.at, atol=1e-4)


def test_one_useful_block_is_the_only_one_that_moves():
    """Prompts to refuse gain by block 2 alone; nothing else depends on any block."""
    model = made(1)
    jacobian = np.zeros_like(model.jacobian)
    refuse = np.array([purpose == "refuse" for purpose in model.wanted.purposes])
    jacobian[np.ix_(refuse, model.block == 2)] = 4.0
    found = solve(replace(model, jacobian=jacobian, at=np.full(8, 0.1)))
    np.testing.assert_allclose(found[model.block != 2], 0.1, atol=1e-4)
    np.testing.assert_allclose(found[model.block == 2], 0.4, atol=1e-3)


def test_cross_validation_holds_noise_back_and_lets_what_repeats_go():
    """Where every request says the same, moving pays on unseen ones; where gradients are noise, it does not."""
    model = made(11, n=100, blocks=20)
    noise = np.random.default_rng(0).normal(0, 1.5, model.jacobian.shape)
    useful = np.zeros_like(noise)
    useful[:, 0] = 4.0 * model.wanted.sign
    even = replace(model, at=np.full(40, 0.2), z=np.zeros(100))
    assert cross_validated(replace(even, jacobian=useful)) == PROXIMITIES[0]
    assert cross_validated(replace(even, jacobian=noise)) == PROXIMITIES[-1]


def test_least_change_costs_little_and_drops_what_brings_nothing():
    """Blocks 0 and 3 can do nothing: they go to 0, and what the others may lose is bounded."""
    model = made(8)
    idle = np.isin(model.block, (0, 3))
    model = replace(model, at=np.full(8, 0.2), jacobian=np.where(idle, 0.0, model.jacobian))
    best, (found, price) = solve(model), least(model)
    np.testing.assert_allclose(best[idle], 0.2, atol=1e-4)
    np.testing.assert_allclose(found[idle], 0, atol=1e-3)
    assert price > 0
    assert found.sum() < best.sum()
    gain = model.objective(model.at) - model.objective(best)
    assert model.objective(found) <= model.objective(best) + 0.05 * gain + INDIFFERENCE
    kept = set(blocks_that_matter(model, found))
    assert kept
    assert not kept & {0, 3}


def test_where_nothing_helps_everything_goes_to_0_and_no_block_matters():
    model = made(9)
    still = replace(model, at=np.full(8, 0.25), jacobian=np.zeros_like(model.jacobian))
    found, _ = least(still)
    np.testing.assert_allclose(found, 0, atol=1e-3)
    assert blocks_that_matter(still, found) == []


def test_the_blocks_that_matter_bring_their_share_and_none_could_be_spared():
    model = made(10)
    found = solve(model)
    kept = blocks_that_matter(model, found)
    nothing = model.objective(np.zeros(8))
    gain = nothing - model.objective(found)
    assert gain > 0
    alone = np.where(np.isin(model.block, kept), found, 0.0)
    assert nothing - model.objective(alone) >= 0.9 * gain
    for block in kept:
        assert nothing - model.objective(np.where(model.block == block, 0.0, alone)) < 0.9 * gain


def test_pins_hold_and_the_rest_is_the_best_beside_them():
    model = made(2)
    pins = np.zeros(8, dtype=bool)
    pins[[0, 3]] = True
    region = Region.around(model.at, RADIUS).pinned(np.zeros(8), pins)
    found = solve(model, region)
    assert (found[pins] == 0).all()
    rng = np.random.default_rng(0)
    for _ in range(50):
        other = np.where(pins, 0, np.clip(found + rng.normal(0, 0.05, 8), region.lower, region.upper))
        if (sums(model) @ other <= 1).all():
            assert cost(model, found) <= cost(model, other) + 1e-5
    everything = Region.around(model.at, RADIUS).pinned(model.at, np.ones(8, dtype=bool))
    assert (solve(model, everything) == model.at).all()


def test_a_block_never_holds_more_than_the_whole():
    model = replace(made(3), at=np.tile([0.6, 0.4], 4))
    greedy = replace(model, jacobian=np.abs(model.jacobian) * model.wanted.sign[:, None])
    found = solve(greedy)
    assert (sums(model) @ found <= 1 + 1e-9).all()
    assert (sums(model) @ found > 0.99).all()


def monotone(model: LinearModel, sign: float) -> LinearModel:
    """The same prompts, all far from what is wanted of them; more of anything brings them nearer, or less does."""
    wrong = -200.0 * model.wanted.sign
    return replace(model, z=wrong, jacobian=sign * np.abs(model.jacobian) * model.wanted.sign[:, None])


@given(seeds)
@settings(max_examples=8)
def test_beyond_its_models_a_merge_is_bounded_and_never_below_0(seed):
    model = replace(made(seed), at=np.full(8, 0.7), most=BEYOND)
    wide = Region.around(model.at, 1.0, BEYOND)
    best = solve(monotone(model, 1), wide, proximity=1e-4)
    assert (sums(model) @ best <= BEYOND + 1e-9).all()
    assert (sums(model) @ best > BEYOND - 0.02).all()
    worst = solve(monotone(model, -1), wide, proximity=1e-4)
    assert worst.min() >= 0
    assert worst.max() < 0.02
    assert model.region(1.0).lower.min() == 0


@given(seeds)
@settings(max_examples=8)
def test_beyond_its_models_a_merge_is_no_worse_and_the_same_where_no_limit_held_it(seed):
    inside = made(seed)
    beyond = replace(inside, most=BEYOND)
    ends = [solve(each, Region.around(inside.at, 0.8, each.most)) for each in (inside, beyond)]
    assert cost(inside, ends[1]) <= cost(inside, ends[0]) + 1e-6
    if (sums(inside) @ ends[1]).max() <= HULL and ends[1].max() <= HULL:
        np.testing.assert_allclose(ends[1], ends[0], atol=2e-3)


def test_intervals_hold_the_solution_and_narrow_with_requests():
    """Every request once, and nine times as requests of their own: the same solution, known three times as well."""
    model = made(5, scale=1.0)
    wanted = model.wanted
    rows = [
        (f"{prompt}/{copy}", f"{request}/{copy}", cell, purpose)
        for copy in range(9)
        for prompt, request, cell, purpose in zip(
            wanted.prompts, wanted.requests, wanted.cells, wanted.purposes, strict=True
        )
    ]
    again = requirements(rows, np.tile(wanted.reference, 9))
    many = LinearModel(again, model.at, np.tile(model.z, 9), np.tile(model.jacobian, (9, 1)), model.block)
    found = solve(model)
    np.testing.assert_allclose(solve(many), found, atol=1e-4)
    (low, high), (lowest, highest) = intervals(model, resamples=40), intervals(many, resamples=40)
    assert (low <= found + 0.02).all()
    assert (high >= found - 0.02).all()
    assert (highest - lowest).mean() < 0.6 * (high - low).mean()


def test_sparse_coefficients_are_0_where_their_interval_holds_0():
    model = made(6)
    low = np.array([0.0, 0.2, 0.004, 0.3, 0.1, 0.0, 0.5, 0.006])
    found = sparse(model, low)
    assert (found[low <= NOTHING] == 0).all()
    assert found[low > NOTHING].max() > 0


def test_a_resample_without_a_cell_is_solved_by_the_others():
    model = made(7)
    weights = np.array([float(cell != ("harmful", "text")) for cell in model.wanted.cells])
    kept = weights > 0
    rows = list(
        zip(model.wanted.prompts, model.wanted.requests, model.wanted.cells, model.wanted.purposes, strict=True)
    )
    smaller = LinearModel(
        requirements([row for row, keep in zip(rows, kept, strict=True) if keep], model.wanted.reference[kept]),
        model.at, model.z[kept], model.jacobian[kept], model.block,
    )  # fmt: skip
    np.testing.assert_allclose(solve(model, weights=weights), solve(smaller), atol=1e-3)
    assert model.objective(model.at, weights) == pytest.approx(smaller.objective(model.at))
