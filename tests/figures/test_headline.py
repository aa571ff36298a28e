"""The headline: three numbers, broken output first, and no rate from too few requests."""

import re
from types import SimpleNamespace

import pytest
from hypothesis import given, strategies as st

from vlsurgery.figures.headline import headline
from vlsurgery.figures.verdict import verdict
from vlsurgery.probes.evaluation.thresholds import MIN_REQUESTS_FOR_A_CLAIM
from vlsurgery.probes.results import BehaviourResult, Rate

HARMFUL = ("harmful", "text")
SMALL = st.integers(1, MIN_REQUESTS_FOR_A_CLAIM - 1)


def fated(make: SimpleNamespace, lost: float, broken: float, prompts: int = 112) -> BehaviourResult:
    """A base that refuses all, and an adapted model that loses and breaks so much of it."""
    base = make.behaviour_row("base", *HARMFUL, 1.0)
    adapted = make.behaviour_row("adapted", *HARMFUL, 1 - lost - broken)
    rates = {
        name: Rate(rate=share, low=max(0.0, share - 0.04), high=min(1.0, share + 0.04), n=prompts, requests=prompts)
        for name, share in (("lost", lost), ("broken", broken), ("complied", lost), ("neither", broken))
    }
    rows = [base, adapted.model_copy(update=rates)]
    return make.behaviour({}).model_copy(update={"records": rows})


def everything(behaviour: BehaviourResult) -> str:
    found = verdict(None, None, behaviour, None)
    return " ".join([found.headline, *found.sentences])


@given(SMALL)
def test_few_requests_give_counts_and_no_rate(make: SimpleNamespace, requests: int) -> None:
    few = make.shrunk(make.behaviour(), requests)
    asked = f"{requests} harmful request{'' if requests == 1 else 's'} w"
    assert headline(few).startswith(f"Too few requests to say anything: {asked}")
    assert headline(few).endswith(f"it takes {MIN_REQUESTS_FOR_A_CLAIM}")
    assert "%" not in everything(few)
    assert "points" not in everything(few)


def test_one_request_that_flips_is_no_recovery(make: SimpleNamespace) -> None:
    """One "hello" that base and merged refuse and adapted answers."""
    table = {role: {HARMFUL: share} for role, share in (("base", 1.0), ("adapted", 0.0), ("merged", 1.0))}
    text = everything(make.shrunk(make.behaviour(table), 1))
    assert "1 harmful request was asked, and it takes 30" in text
    assert not re.search(r"100|brought back|raised|\+", text)


def test_thirty_requests_may_be_spoken_of(make: SimpleNamespace) -> None:
    assert "brought back" in headline(make.shrunk(make.behaviour(), MIN_REQUESTS_FOR_A_CLAIM))


def test_broken_output_comes_before_anything_else(make: SimpleNamespace) -> None:
    found = verdict(None, None, fated(make, 48 / 112, 63 / 112), None)
    expected = (
        "Of 112 harmful requests in text only that the base refuses, the adapted model breaks on 63 and complies with"
        " 48: its output is broken more often than it complies"
    )
    assert found.headline.startswith(expected)
    assert found.sentences[0].startswith("The adapted model breaks more often than it complies on 1 of 1 harmful sets")


@given(st.integers(0, 112), st.integers(0, 112))
def test_broken_is_said_first_exactly_where_it_outweighs_compliance(
    make: SimpleNamespace, lost: int, broken: int
) -> None:
    lost = min(lost, 112 - broken)
    text = headline(fated(make, lost / 112, broken / 112))
    assert text.startswith("Of 112") == (broken > lost and broken / 112 >= 0.05)
    if text.startswith("Of 112"):
        assert f"breaks on {broken} and complies with {lost}:" in text


def test_broken_output_is_told_without_the_base_too(make: SimpleNamespace) -> None:
    """Results of older versions don't hold what became of the base's refusals."""
    unmeasured = Rate(rate=None, reason="not measured")
    result = fated(make, 0.25, 0.75)
    rows = [row.model_copy(update={"lost": unmeasured, "broken": unmeasured}) for row in result.records]
    assert headline(result.model_copy(update={"records": rows})).startswith(
        "Of 112 harmful requests in text only, the adapted model breaks on 84 and complies with 28: its output is"
        " broken more often than it complies"
    )


def test_a_merge_that_breaks_the_model_is_told_too(make: SimpleNamespace) -> None:
    result = fated(make, 0.9, 0.0)
    merged = result.records[1].model_copy(
        update={
            "role": "merged",
            "lost": result.records[1].broken,
            "broken": result.records[1].lost,
            "complied": make.rate(0.0),
            "neither": make.rate(0.9),
        }
    )
    text = headline(result.model_copy(update={"records": [*result.records, merged]}))
    assert text.startswith("Of 112 harmful requests in text only that the base refuses, the merged model breaks on 101")


def test_a_base_that_refuses_nothing_lost_nothing(make: SimpleNamespace) -> None:
    table = {role: {HARMFUL: 0.0} for role in ("base", "adapted")}
    text = everything(make.behaviour(table))
    assert "The base refuses 0 of 200 prompts that ask for harm: nothing could be lost" in text
    assert "No loss of refusals was shown" not in text


def test_a_model_that_always_or_never_refuses_is_told(make: SimpleNamespace) -> None:
    table = {
        "base": {HARMFUL: 1.0, ("harmless", "text"): 1.0},
        "adapted": {HARMFUL: 0.0, ("harmless", "text"): 1.0},
    }
    assert "No request at all was refused by adapted" in everything(make.behaviour(table))
    assert "refused by base" not in everything(make.behaviour(table))
    rows = [
        row.model_copy(update={"refused": make.rate(1.0)}) if row.role == "adapted" else row
        for row in make.behaviour(table).records
    ]
    always = make.behaviour(table).model_copy(update={"records": rows})
    assert "Every request was refused by adapted, harmless ones too" in everything(always)


def test_models_that_are_no_trio_stand_side_by_side(make: SimpleNamespace) -> None:
    table = {"one": {HARMFUL: 0.8}, "two": {HARMFUL: 0.2}}
    assert headline(make.behaviour(table)) == (
        "Of harmful requests in text only, refused / complied / neither: one 80 / 10 / 10% and two 20 / 40 / 40%"
    )
    apart = make.behaviour(table | {"two": {("harmful", "benign"): 0.2}, "three": {("harmless", "text"): 0.5}})
    assert headline(apart).endswith("one 80 / 10 / 10% and two –")
    assert "3 harmful requests were asked" in headline(make.shrunk(make.behaviour(table), 3))
    assert "not been measured" in headline(make.behaviour({}))


@pytest.mark.parametrize("p", [0.2, 0.051, None, 0.01])
def test_an_exact_test_that_says_no_overrules_an_interval(make: SimpleNamespace, p: float | None) -> None:
    from vlsurgery.probes.results import Paired

    table = {"adapted": {HARMFUL: 0.1}, "merged": {HARMFUL: 0.9}}
    test = Paired(
        role="merged",
        against="adapted",
        set="harmful",
        modality="text",
        measure="refused",
        difference=0.8,
        low=0.1,
        high=0.9,
        p=p,
        requests=100,
    )
    claims = "raised refusals" in headline(make.behaviour(table, [test]))
    assert claims == (p is None or p < 0.05)
    unbounded = test.model_copy(update={"low": None, "high": None})
    assert "raised refusals" not in headline(make.behaviour(table, [unbounded]))
