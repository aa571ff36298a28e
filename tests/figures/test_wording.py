"""Numbers in words never say more than the numbers do."""

from hypothesis import given, strategies as st

from vlsurgery.figures.wording import (
    counts,
    interval,
    listed,
    outcomes,
    percent,
    points,
    rank,
    rate_words,
    sayable,
    signed,
)
from vlsurgery.probes.results import BehaviourRow, Rate

SHARES = st.floats(0, 1)


@given(st.floats(1e-7, 1 - 1e-7))
def test_all_and_nothing_are_said_only_where_they_are_true(share: float) -> None:
    assert percent(share) not in ("0%", "100%")
    assert (percent(0.0), percent(1.0)) == ("0%", "100%")


@given(SHARES)
def test_a_percentage_is_the_share_to_half_a_point(share: float) -> None:
    assert abs(float(percent(share).removesuffix("%")) - 100 * share) <= 0.5 + 1e-6


@given(SHARES, SHARES)
def test_intervals_are_rounded_outwards(one: float, other: float) -> None:
    low, high = sorted((one, other))
    shown = interval(low, high).removesuffix("%").split("–")
    assert float(shown[0]) <= 100 * low + 1e-5
    assert float(shown[1]) >= 100 * high - 1e-5
    assert float(shown[1]) - float(shown[0]) <= 100 * (high - low) + 2


def test_exact_percentages_stay_put() -> None:
    assert interval(0.95, 0.99) == "95–99%"
    assert interval(0.29, 0.57) == "29–57%"
    assert interval(None, 1.0) == ""


@given(st.floats(-1, 1))
def test_signs(value: float) -> None:
    text = signed(value)
    assert "-" not in text
    assert text.startswith("−") == (round(abs(value), 2) != 0 and value < 0)


def test_points_and_lists() -> None:
    assert points(0.93, 0.9, 0.96) == "+93.0 points (+90.0 to +96.0)"
    assert points(-0.004) == "−0.4 points"
    assert listed(["a"]) == "a"
    assert listed(["a", "b", "c"]) == "a, b and c"


def test_a_missing_rate_says_why() -> None:
    assert rate_words(Rate(rate=None, reason="the base sees no pictures")) == "not measured (the base sees no pictures)"


def test_unknown_words_come_last_by_name() -> None:
    order = ("base", "merged")
    assert sorted(["b", "merged", "a", "base"], key=lambda word: rank(order, word)) == ["base", "merged", "a", "b"]
    named = ["merged", "base:two", "a", "base", "base:one"]
    assert sorted(named, key=lambda word: rank(order, word)) == ["base", "base:one", "base:two", "merged", "a"]


def test_nothing_is_shown_of_a_single_request() -> None:
    one = Rate(rate=1.0, low=0.2, high=1.0, n=3, requests=1)
    assert rate_words(one) == "not measured (one request: nothing can be said)"
    assert sayable(Rate(rate=1.0, n=2, requests=2)).rate == 1.0


def test_three_shares_in_one() -> None:
    rates = [Rate(rate=share, n=50, requests=50) for share in (0.92, 0.06, 0.02)]
    none = Rate(rate=None, reason="no answer")
    row = BehaviourRow(
        role="base", set="harmful", modality="text", refused=rates[0], complied=rates[1], neither=rates[2], right=none
    )
    assert outcomes(row) == "92 / 6 / 2"
    assert outcomes(row.model_copy(update={"neither": none})) == "–"


def test_counts() -> None:
    assert counts(Rate(rate=0.5, n=200, requests=100)) == "200 prompts, 100 requests"
    assert counts(Rate(rate=0.5, n=1, requests=1)) == "1 request"
