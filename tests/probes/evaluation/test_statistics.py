import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, mannwhitneyu

from vlsurgery.probes.evaluation.statistics import (
    auroc,
    best_by_chance,
    cluster_ids,
    paired_difference,
    rate,
    separation,
    wilson,
)


@given(st.integers(0, 60), st.integers(1, 60))
def test_wilson_is_scipys(hits, n):
    hits = min(hits, n)
    reference = binomtest(hits, n).proportion_ci(method="wilson")
    assert wilson(hits, n) == pytest.approx((reference.low, reference.high), abs=1e-9)


def test_73_requests_without_failure_show_95_percent_and_72_do_not():
    assert rate([True] * 73, range(73)).low >= 0.95
    assert rate([True] * 72, range(72)).low < 0.95


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 8)), min_size=1, max_size=60))
def test_a_rate_lies_in_its_interval_and_counts_requests(rows):
    outcomes, requests = zip(*rows, strict=True)
    found = rate(outcomes, requests)
    assert 0 <= found.low <= found.rate <= found.high <= 1
    assert found.n == len(rows)
    assert found.requests == len(set(requests))


def test_repeating_every_prompt_does_not_narrow_the_interval():
    outcomes = [i % 3 == 0 for i in range(60)]
    once = rate(outcomes, range(60))
    copied = rate(outcomes * 10, list(range(60)) * 10)
    assert copied.rate == once.rate
    assert copied.high - copied.low > 0.8 * (once.high - once.low)


def test_no_prompt_gives_no_rate_but_a_reason():
    assert rate([], []).rate is None
    assert rate([], []).reason


@given(st.lists(st.tuples(st.floats(-5, 5), st.booleans()), min_size=4, max_size=40))
def test_auroc_is_the_mann_whitney_statistic(rows):
    scores, labels = np.array([r[0] for r in rows]), np.array([r[1] for r in rows])
    if labels.all() or not labels.any():
        return
    reference = mannwhitneyu(scores[labels], scores[~labels]).statistic / (labels.sum() * (~labels).sum())
    assert auroc(scores[:, None], labels)[0] == pytest.approx(reference)


def test_separation_finds_a_known_dprime_within_its_interval():
    generator = np.random.default_rng(0)
    labels = np.arange(400) % 2 == 0
    scores = generator.normal(size=400) + 1.5 * labels
    area, dprime = separation(scores[:, None], labels, list(range(400)))[0]
    assert dprime.low < 1.5 < dprime.high
    assert area.low < area.value < area.high
    assert area.n == 400


def test_separation_without_variance_says_so():
    labels = np.array([True, False] * 4)
    area, dprime = separation(labels[:, None].astype(float), labels, list(range(8)))[0]
    assert area.value == 1
    assert (area.low, area.high) == (pytest.approx(wilson(4, 4)[0]), 1)  # four requests a class
    assert dprime.value is None
    assert dprime.reason


@pytest.mark.parametrize("sign", [1, -1, 0])
def test_a_separation_without_exception_is_as_sure_as_its_requests_are_many(sign):
    """With harmless twins every request speaks for both classes, however many prompts it has."""
    labels, requests = np.array([True, False] * 120), [i // 6 for i in range(240)]
    scores = sign * labels + (0.01 * np.arange(240) / 240 if sign else 0)
    area, _ = separation(scores[:, None].astype(float), labels, requests)[0]
    assert area.value == (1 + sign) / 2
    assert area.low == pytest.approx({1: wilson(40, 40)[0], -1: 0, 0: 0.5 - wilson(0, 40)[1]}[sign])
    assert area.high == pytest.approx({1: 1, -1: wilson(0, 40)[1], 0: 0.5 + wilson(0, 40)[1]}[sign])
    assert area.n == 40


def noise_by_request(generator, twins, columns=3):
    """Scores that know the request and nothing of its class: 10 prompts a request, of one class or half of each."""
    requests = np.repeat(np.arange(24), 10)
    labels = np.tile(np.arange(10) < 5, 24) if twins else requests % 2 == 0
    sides = generator.normal(size=(24, 2, columns))[requests, (labels & twins).astype(int)]
    common = generator.normal(size=(24, columns))[requests]
    return common + sides + 0.1 * generator.normal(size=(240, columns)), labels, requests.tolist()


@pytest.mark.parametrize("twins", [True, False])
def test_the_null_of_the_best_is_passed_by_chance_5_times_in_100(twins):
    generator = np.random.default_rng(0)
    trials = [noise_by_request(generator, twins) for _ in range(300)]
    passed = np.mean([auroc(s, y).max() > best_by_chance(s, y, r, seed) for seed, (s, y, r) in enumerate(trials)])
    assert passed == pytest.approx(0.05, abs=3 * (0.05 * 0.95 / 300) ** 0.5)  # three standard deviations


def test_chance_of_the_best_grows_with_the_number_of_places_looked_at():
    generator = np.random.default_rng(0)
    labels = np.arange(60) % 2 == 0
    scores = generator.normal(size=(60, 200))
    one, many = best_by_chance(scores[:, :1], labels, range(60)), best_by_chance(scores, labels, range(60))
    assert 0.5 < one < many < 1
    # noise itself is not a finding: its best of 200 places lies within what chance gives about 95 times in 100
    assert auroc(scores, labels).max() < many + 0.05


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(0, 9)), min_size=1, max_size=50))
def test_a_paired_difference_is_antisymmetric_and_zero_against_itself(rows):
    ours, theirs, requests = zip(*rows, strict=True)
    value, low, high = paired_difference(ours, theirs, requests)
    back, back_low, back_high = paired_difference(theirs, ours, requests)
    assert (back, back_low, back_high) == pytest.approx((-value, -high, -low))
    assert low <= value <= high
    unseen = wilson(0, len(set(requests)))[1]
    assert paired_difference(ours, ours, requests) == (0, -unseen, unseen)


@pytest.mark.parametrize(("ours", "theirs"), [(True, False), (False, True), (True, True)])
def test_a_difference_without_exception_is_as_sure_as_its_requests_are_many(ours, theirs):
    requests = [i // 2 for i in range(146)]
    value, low, high = paired_difference([ours] * 146, [theirs] * 146, requests)
    assert value == ours - theirs
    assert (low, high) == pytest.approx((max(-1, value - wilson(0, 73)[1]), min(1, value + wilson(0, 73)[1])))


@given(st.integers(1, 20), st.integers(1, 5))
def test_no_interval_of_requests_that_agree_is_without_width(requests, prompts):
    keys = [request for request in range(requests) for _ in range(2 * prompts)]
    outcomes = [True, False] * (requests * prompts)
    found = rate(outcomes, keys)
    assert found.low < found.rate == 0.5 < found.high
    value, low, high = paired_difference(outcomes, [False] * len(outcomes), keys)
    assert low < value < high


def test_clusters_are_numbered_by_first_appearance():
    assert cluster_ids(["b", "a", "b", "c"]).tolist() == [0, 1, 0, 2]
