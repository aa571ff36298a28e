import numpy as np
import pytest
from hypothesis import assume, given, settings, strategies as st
from scipy.stats import binom
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint

from vlsurgery.probes.evaluation.intervals import (
    cluster_ids,
    effective_requests,
    rate,
    requests_to_show,
    unpaired_difference,
    wilson,
)
from vlsurgery.probes.evaluation.thresholds import MIN_REQUESTS_FOR_A_CLAIM, enough

ROUNDING = 1e-12


def width(found):
    return found.high - found.low


@given(st.integers(2, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_one_prompt_a_request_has_wilsons_interval(drawn):
    hits, n = drawn
    found = rate([i < hits for i in range(n)], range(n))
    assert (found.low, found.high) == pytest.approx(proportion_confint(hits, n, method="wilson"), abs=1e-9)


def test_73_requests_without_failure_show_95_percent_and_72_do_not():
    assert rate([True] * 73, range(73)).low >= 0.95
    assert rate([True] * 72, range(72)).low < 0.95
    assert requests_to_show(0.95) == 73


@given(st.floats(0.01, 0.99), st.floats(0.01, 1.0))
def test_so_many_requests_show_a_rate_and_one_fewer_does_not(bound, share):
    needed = requests_to_show(bound, share)
    if needed is None:
        assert share <= bound
        return
    assume(needed < 1e9)
    assert wilson(share * needed, needed)[0] >= bound - 1e-7
    assert needed == 1 or wilson(share * (needed - 1), needed - 1)[0] < bound + 1e-9


def test_no_number_of_requests_shows_certainty_and_none_is_needed_for_what_is_always_so():
    assert requests_to_show(1.0) is None
    assert requests_to_show(0.0, share=0.0) == 1


ROWS = st.lists(st.tuples(st.booleans(), st.integers(0, 8)), min_size=1, max_size=60)


@given(ROWS)
def test_a_rate_lies_in_its_interval_and_counts_requests(rows):
    outcomes, requests = zip(*rows, strict=True)
    found = rate(outcomes, requests)
    assert (found.n, found.requests) == (len(rows), len(set(requests)))
    if found.requests == 1:
        assert (found.low, found.high) == (None, None)
        assert "one request" in found.reason
    else:
        assert 0 <= found.low <= found.rate <= found.high <= 1
        assert found.low < found.high


@given(ROWS, st.integers(2, 5))
def test_the_same_evidence_again_never_widens_an_interval(rows, times):
    """As new requests it narrows it; as further prompts of the same requests it changes nothing."""
    outcomes, requests = zip(*rows, strict=True)
    assume(len(set(requests)) > 1)
    once = rate(outcomes, requests)
    fresh = rate(outcomes * times, [(copy, request) for copy in range(times) for request in requests])
    assert width(fresh) < width(once)
    assert fresh.low >= once.low - ROUNDING
    assert fresh.high <= once.high + ROUNDING


# Two lots of requests, all of equally many prompts, with the same rate: successes of each request.
def _lots(size):
    successes = st.lists(st.integers(0, size), min_size=2, max_size=8)
    moves = st.lists(st.tuples(st.integers(0, 23), st.integers(0, 23)), max_size=30)
    return st.tuples(st.just(size), successes, st.integers(1, 3), moves)


LOTS = st.integers(1, 6).flatmap(_lots)


def _moved(successes, moves, size):
    """The same number of successes over as many requests, some moved from one to another."""
    found = list(successes)
    for source, target in moves:
        source, target = source % len(found), target % len(found)
        if found[source] > 0 and found[target] < size:
            found[source] -= 1
            found[target] += 1
    return found


def prompts_of(size, successes):
    outcomes = [place < hits for hits in successes for place in range(size)]
    return outcomes, [request for request in range(len(successes)) for _ in range(size)]


@settings(max_examples=300)
@given(LOTS)
def test_fewer_requests_at_the_same_rate_never_narrow_the_interval(drawn):
    size, some, times, moves = drawn
    others = _moved(some * times, moves, size)
    whole = rate(*prompts_of(size, some + others))
    for part in (rate(*prompts_of(size, some)), rate(*prompts_of(size, others))):
        assert part.rate == pytest.approx(whole.rate)
        assert width(part) >= width(whole) - ROUNDING
        assert part.low <= whole.low + ROUNDING
        assert part.high >= whole.high - ROUNDING


@given(st.integers(2, 300).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n), st.integers(1, 9))))
def test_prompts_that_agree_with_their_request_add_nothing(drawn):
    hits, n, copies = drawn
    outcomes = [i < hits for i in range(n)]
    once, copied = rate(outcomes, range(n)), rate(outcomes * copies, list(range(n)) * copies)
    assert (copied.low, copied.high) == pytest.approx((once.low, once.high), abs=1e-9)


@given(ROWS)
def test_requests_never_tell_more_than_their_prompts_would_alone(rows):
    outcomes, requests = zip(*rows, strict=True)
    found = effective_requests(list(outcomes), cluster_ids(requests))
    sizes = np.bincount(cluster_ids(requests))
    assert sizes.sum() ** 2 / (sizes**2).sum() - 1e-9 <= found <= len(rows) + 1e-9


def test_the_effective_number_is_that_of_the_variance_of_the_mean():
    """Where at most half of the variance lies within requests: p (1 - p) over the variance of the mean."""
    generator = np.random.default_rng(3)
    shares = generator.beta(0.4, 0.4, 200)
    values = (generator.random((200, 3)) < shares[:, None]).astype(float)
    means = values.mean(1)
    expected = values.mean() * (1 - values.mean()) / (means.var() / 200)
    clusters = np.repeat(np.arange(200), 3)
    assert effective_requests(values.ravel(), clusters) == pytest.approx(expected)


def test_no_prompt_gives_no_rate_but_a_reason():
    assert rate([], []).rate is None
    assert rate([], []).reason


@given(st.integers(2, 20), st.integers(1, 5))
def test_no_interval_of_requests_that_agree_is_without_width(requests, prompts):
    keys = [request for request in range(requests) for _ in range(2 * prompts)]
    found = rate([True, False] * (requests * prompts), keys)
    assert found.low < found.rate == 0.5 < found.high


@given(st.integers(2, 90), st.integers(2, 90), st.floats(0, 1), st.floats(0, 1))
def test_an_unpaired_difference_is_newcombes(n, m, first, second):
    ours, theirs = round(n * first), round(m * second)
    value, low, high = unpaired_difference(
        rate([i < ours for i in range(n)], range(n)), rate([i < theirs for i in range(m)], range(m))
    )
    expected = confint_proportions_2indep(theirs, m, ours, n, method="newcomb", compare="diff")
    assert value == pytest.approx(theirs / m - ours / n)
    assert (low, high) == pytest.approx(expected, abs=1e-9)
    assert -1 <= low <= value <= high <= 1


def test_a_difference_from_one_request_has_no_interval():
    assert unpaired_difference(rate([True], [0]), rate([True] * 9, range(9))) is None


def test_clusters_are_numbered_by_first_appearance():
    assert cluster_ids(["b", "a", "b", "c"]).tolist() == [0, 1, 0, 2]


def test_words_take_thirty_requests():
    assert MIN_REQUESTS_FOR_A_CLAIM == 30
    assert enough(30)
    assert not enough(29)


@pytest.mark.parametrize("n", [20, 50, 112, 500])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
def test_coverage_is_95_percent_or_the_nearest_that_whole_counts_allow(n, share):
    """Exactly: the chances of all counts whose interval holds the true share."""
    chances = binom.pmf(np.arange(n + 1), n, share)
    found = [rate([place < hits for place in range(n)], range(n)) for hits in range(n + 1)]
    held = np.array([each.low - ROUNDING <= share <= each.high + ROUNDING for each in found])
    coverage = chances @ held
    counts = np.flatnonzero(held)
    fewer = coverage - min(chances[counts[0]], chances[counts[-1]])
    more = coverage + min(chances[counts[0] - 1] if counts[0] else 1, chances[counts[-1] + 1] if counts[-1] < n else 1)
    assert 0.93 <= coverage <= 0.97 or (fewer < 0.93 and more > 0.97)


@pytest.mark.parametrize(("share", "correlation"), [(0.02, 0.5), (0.5, 0.0), (0.5, 0.5), (0.5, 1.0)])
def test_coverage_holds_where_prompts_share_requests(share, correlation):
    """Simulated: 50 requests of 2 or 3 prompts, each with its own chance."""
    generator = np.random.default_rng(5)
    held = 0
    for _ in range(800):
        if correlation in (0, 1):
            chances = np.full(50, share) if correlation == 0 else (generator.random(50) < share).astype(float)
        else:
            chances = generator.beta(share * (1 / correlation - 1), (1 - share) * (1 / correlation - 1), 50)
        requests = np.repeat(np.arange(50), generator.choice([2, 3], 50))
        found = rate((generator.random(len(requests)) < chances[requests]).tolist(), requests.tolist())
        held += found.low - ROUNDING <= share <= found.high + ROUNDING
    assert 0.925 <= held / 800 <= 0.975
