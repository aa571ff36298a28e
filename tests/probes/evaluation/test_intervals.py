import pytest
from hypothesis import given, strategies as st
from scipy.stats import binomtest

from vlsurgery.probes.evaluation.intervals import cluster_ids, paired_difference, rate, wilson


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
