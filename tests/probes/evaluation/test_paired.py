import itertools
import math

import numpy as np
import pytest
from hypothesis import assume, given, settings, strategies as st
from scipy.optimize import brentq, minimize_scalar
from statsmodels.stats.contingency_tables import mcnemar

from vlsurgery.probes.evaluation.intervals import Z, wilson
from vlsurgery.probes.evaluation.paired import (
    pair_variance,
    paired_difference,
    requests_to_show_difference,
    sign_flip_p,
    tango,
)

# Both, ours only, theirs only, neither.
TABLES = st.tuples(*[st.integers(0, 25)] * 4).filter(lambda table: sum(table) > 1)
ROWS = st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(0, 9)), min_size=2, max_size=50).filter(
    lambda rows: len({request for *_, request in rows}) > 1
)


def outcomes(table):
    pairs = [(True, True), (True, False), (False, True), (False, False)]
    kept = [pair for pair, count in zip(pairs, table, strict=True) for _ in range(count)]
    return [ours for ours, _ in kept], [theirs for _, theirs in kept]


@given(TABLES)
def test_p_is_that_of_the_exact_mcnemar_test(table):
    a, b, c, d = table
    found = paired_difference(*outcomes(table), range(a + b + c + d))
    assert found.p == pytest.approx(min(1.0, mcnemar([[a, b], [c, d]], exact=True).pvalue), abs=1e-9)


@given(st.lists(st.integers(-4, 4), min_size=1, max_size=10))
def test_p_is_the_share_of_all_signs_that_are_as_far_from_zero(sums):
    """Every way to choose the signs, one by one."""
    totals = [sum(sign * each for sign, each in zip(signs, sums, strict=True)) for signs in _signs(len(sums))]
    expected = np.mean([abs(total) >= abs(sum(sums)) for total in totals])
    assert sign_flip_p(np.array(sums)) == pytest.approx(expected)


def _signs(count):
    return itertools.product((1, -1), repeat=count)


def by_closed_form(ours_only, theirs_only, n):
    """Tango's interval as the outer real roots of a quartic (Yang, Sun and Hardin 2013)."""
    g, m, s = Z**2, ours_only - theirs_only, ours_only + theirs_only
    coefficients = [
        n**2 * (n / g + 1) ** 2,
        -n * m * (n / g + 1) * (4 * n / g + 1),
        2 * n * m**2 * (3 * n / g + 2) / g - n**2 * (s / g + 1),
        n * m * (2 * s / g + 1) - m**3 * (4 * n / g + 1) / g,
        m**2 * (m**2 / g - s) / g,
    ]
    roots = np.roots(coefficients)
    real = roots[np.abs(roots.imag) < 1e-6].real
    return real.min(), real.max()


@settings(max_examples=300)
@given(TABLES)
def test_the_interval_is_tangos_closed_form(table):
    _, b, c, _ = table
    n = sum(table)
    assume(max(b, c) < n)  # there the quartic has a double root at the end, which its solver finds to 1e-7 only
    found = paired_difference(*outcomes(table), range(n))
    assert (found.low, found.high) == pytest.approx(by_closed_form(b, c, n), abs=1e-6)


@settings(max_examples=40)
@given(TABLES)
def test_at_a_bound_the_score_test_is_at_its_threshold(table):
    """Independently: the likelihood is maximised by a search, and the bound found where the score test rejects."""
    _, b, c, _ = table
    n = sum(table)

    def variance(difference):
        def unlikely(share):
            both = share + difference
            rest = 1 - both - share
            parts = ((b, both), (c, share), (n - b - c, rest))
            return -sum(count * math.log(max(part, 1e-300)) for count, part in parts if count)

        ends = max(0.0, -difference), (1 - difference) / 2
        share = minimize_scalar(unlikely, bounds=ends, method="bounded", options={"xatol": 1e-13}).x
        return 2 * share + difference - difference**2

    low, high = tango(b, c, n)
    for bound, end in ((low, -1), (high, 1)):
        if abs(bound) < 1:
            inside, outside = bound - 1e-4 * end, bound + 1e-4 * end
            assume(-1 < outside < 1)
            scores = [n * ((b - c) / n - each) ** 2 - Z**2 * variance(each) for each in (inside, outside)]
            assert scores[0] < 0 < scores[1]
            root = brentq(lambda each: n * ((b - c) / n - each) ** 2 - Z**2 * variance(each), inside, outside)
            assert bound == pytest.approx(root, abs=1e-6)


def test_published_interval():
    """Pairs (1, 1, 7, 12) of Fagerland, Lydersen and Laake 2014: Tango's interval of -6/21 is (-.517, -.026)."""
    found = paired_difference(*outcomes((1, 1, 7, 12)), range(21))
    assert (found.value, found.low, found.high) == pytest.approx((-6 / 21, -0.517, -0.026), abs=5e-4)


@given(ROWS)
def test_a_paired_difference_is_antisymmetric_and_zero_against_itself(rows):
    ours, theirs, requests = zip(*rows, strict=True)
    found, back = paired_difference(ours, theirs, requests), paired_difference(theirs, ours, requests)
    assert back == pytest.approx((-found.value, -found.high, -found.low, found.p), abs=1e-9)
    assert -1 <= found.low <= found.value <= found.high <= 1
    assert found.low < found.high
    same = paired_difference(ours, ours, requests)
    assert (same.value, same.p) == (0, 1)
    assert same.high == pytest.approx(-same.low)
    sizes = np.bincount([sorted(set(requests)).index(request) for request in requests])
    n = sizes.sum() ** 2 / (sizes**2).sum()
    assert same.high == pytest.approx(Z**2 / (n + Z**2), abs=1e-9)


def test_no_difference_at_all_is_as_sure_as_its_requests_are_many():
    requests = [i // 2 for i in range(146)]
    found = paired_difference([True] * 146, [True] * 146, requests)
    assert (found.low, found.high) == pytest.approx((-wilson(0, 73)[1], wilson(0, 73)[1]))


@given(ROWS, st.integers(2, 4))
def test_the_same_evidence_again_never_widens_the_interval(rows, times):
    ours, theirs, requests = zip(*rows, strict=True)
    once = paired_difference(ours, theirs, requests)
    keys = [(copy, request) for copy in range(times) for request in requests]
    fresh = paired_difference(ours * times, theirs * times, keys)
    assert once.low - 1e-9 <= fresh.low < fresh.high <= once.high + 1e-9
    assert fresh.high - fresh.low < once.high - once.low


@given(st.tuples(*[st.integers(0, 9)] * 4).filter(lambda table: sum(table) > 1), st.integers(2, 6))
def test_further_prompts_that_agree_with_their_request_add_nothing(table, copies):
    ours, theirs = outcomes(table)
    n = len(ours)
    once = paired_difference(ours, theirs, range(n))
    copied = paired_difference(ours * copies, theirs * copies, list(range(n)) * copies)
    assert copied == pytest.approx(once, abs=1e-9)


def test_one_request_shows_nothing():
    assert paired_difference([True, True], [False, True], ["a", "a"]) == (0.5, None, None, None)


@given(st.floats(0, 0.5), st.floats(0, 0.5), st.floats(-1, 1))
def test_the_variance_of_a_pair_is_one_that_a_difference_can_have(ours_only, theirs_only, difference):
    """Between that of no other discordance than the difference itself, and that of discordant pairs alone."""
    found = pair_variance(ours_only, theirs_only, difference)
    least = abs(difference) - difference**2
    assert least - 1e-9 <= found <= 1 - difference**2 + 1e-9


@given(TABLES, st.floats(-0.9, 0.9))
def test_so_many_pairs_of_the_same_discordance_show_a_difference_and_one_fewer_does_not(table, bound):
    _, b, c, _ = table
    n, value = sum(table), (b - c) / sum(table)
    low, _ = tango(b, c, n)
    assume(low > -1 and abs(value - bound) > 0.01)
    needed = requests_to_show_difference(bound, value, low, n)
    if needed is None:
        assert value <= bound
        return
    assert tango(b / n * needed, c / n * needed, needed)[0] >= bound - 1e-6
    fewer = needed - 1
    assert fewer == 0 or tango(b / n * fewer, c / n * fewer, fewer)[0] < bound + 1e-6
