import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, mannwhitneyu

from probes.statistics import auroc, best_by_chance, cluster_ids, paired_difference, rate, separation, wilson


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
    assert dprime.value is None
    assert dprime.reason


def test_chance_of_the_best_grows_with_the_number_of_places_looked_at():
    generator = np.random.default_rng(0)
    labels = np.arange(60) % 2 == 0
    scores = generator.normal(size=(60, 200))
    one, many = best_by_chance(scores[:, :1], labels), best_by_chance(scores, labels)
    assert 0.5 < one < many < 1
    # noise itself is not a finding: its best of 200 places lies within what chance gives about 95 times in 100
    assert auroc(scores, labels).max() < many + 0.05


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(0, 9)), min_size=1, max_size=50))
def test_a_paired_difference_is_antisymmetric_and_zero_against_itself(rows):
    ours, theirs, requests = zip(*rows, strict=True)
    value, low, high = paired_difference(ours, theirs, requests)
    back, back_low, back_high = paired_difference(theirs, ours, requests)
    assert (back, back_low, back_high) == pytest.approx((-value, -high, -low))
    assert paired_difference(ours, ours, requests) == (0, 0, 0)


def test_clusters_are_numbered_by_first_appearance():
    assert cluster_ids(["b", "a", "b", "c"]).tolist() == [0, 1, 0, 2]
