"""A planted effect holds, no effect does not, and too little evidence leaves the verdict open."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, strategies as st
from statsmodels.stats.contingency_tables import mcnemar

from vlsurgery.probes.claims import measure
from vlsurgery.probes.claims.evidence import SMALLEST, decided
from vlsurgery.probes.results import Claim, ClaimEvidence, ClaimsResult

HARMFUL = ("harmful", "jailbroken")


def claim(key: str, *cases: object) -> Claim:
    return next(each for each in measure(cases).records if each.key == key)


def without(make: SimpleNamespace, **as_role: str) -> dict[tuple[str, str], float]:
    """The paper's shares, with one role behaving as another."""
    return {
        (role, name): make.PAPER.get((as_role.get(role.replace(":", "_"), role), name), share)
        for (role, name), share in make.PAPER.items()
    }


def test_all_that_is_planted_holds(make: SimpleNamespace) -> None:
    found = measure([make.case()])
    assert [each.key for each in found.records] == ["C1", "C2", "C3", "C4", "C5", "C6"]
    assert {each.key: each.verdict for each in found.records} == dict.fromkeys(
        ("C1", "C2", "C3", "C4", "C5", "C6"), "holds"
    )
    assert found.verdict == "On seed 0: C1, C2, C3, C4, C5 and C6 hold."
    three = measure([make.case(f"seed {at}") for at in range(3)])
    assert three.verdict.startswith("On seed 0, seed 1 and seed 2: C1")


@pytest.mark.parametrize(
    ("key", "changed"),
    [
        ("C1", {"adapted": "base"}),
        ("C2", {"safety": "adapted"}),
        ("C2", {"safety": "base"}),  # restored at no cost
        ("C5", {"merged": "adapted"}),
        ("C5", {"merged": "safety"}),
        ("C6", {"merged": "merged:uniform"}),
    ],
)
def test_what_is_not_there_does_not_hold(make: SimpleNamespace, key: str, changed: dict[str, str]) -> None:
    assert claim(key, make.case(shares=without(make, **changed))).verdict == "does not hold"


@pytest.mark.parametrize("key", ["C1", "C2", "C5", "C6"])
def test_below_thirty_requests_nothing_is_told(make: SimpleNamespace, key: str) -> None:
    assert claim(key, make.case(requests=29)).verdict == "can't tell"
    assert claim(key, make.case(requests=30)).verdict == "holds"


def test_seeds_that_ask_the_same_are_no_new_requests(make: SimpleNamespace) -> None:
    """Three seeds of 20 requests are 20 requests."""
    cases = [make.case(f"seed {at}", requests=20) for at in range(3)]
    (lost, *_) = claim("C1", *cases).evidence
    assert (lost.requests, lost.prompts) == (20, 60)
    assert lost.verdict == "can't tell"
    assert lost.by_case == {f"seed {at}": pytest.approx(0.9) for at in range(3)}


def test_seeds_that_contradict_each_other_leave_it_open(make: SimpleNamespace) -> None:
    turned = {**make.PAPER, ("adapted", "harmful"): 1.0, ("base", "harmful"): 0.5}
    cases = [make.case("seed 0", requests=200), make.case("seed 1", shares=turned, requests=200)]
    (lost, *_) = claim("C1", *cases).evidence
    assert lost.low > 0
    assert (lost.verdict, lost.reason) == ("can't tell", "seed 1 shows the opposite")


def test_broken_output_is_no_loss(make: SimpleNamespace) -> None:
    found = claim("C1", make.case(other="neither"))
    assert found.verdict != "holds"
    assert found.evidence[0].value == 0
    assert found.evidence[1].value == pytest.approx(0.9)
    assert "to neither" in found.said


def test_where_more_broke_than_complied_nothing_is_claimed(make: SimpleNamespace) -> None:
    shares = {**make.PAPER, ("adapted", "harmful"): 0.0}
    case = make.case(shares=shares)
    records = [
        make.record("adapted", "harmful", at, "complied" if at < 20 else "neither")
        if (each.role, each.set) == ("adapted", "harmful")
        else each
        for each in case.completions.records
        for at in [int(each.prompt.split()[-1])]
    ]
    found = claim("C1", make.case(completions=case.completions.model_copy(update={"records": records})))
    assert found.verdict == "can't tell"
    assert "broken" in found.evidence[0].reason


def test_a_base_that_refuses_little_can_lose_little(make: SimpleNamespace) -> None:
    shares = {**make.PAPER, ("base", "harmful"): 0.05, ("adapted", "harmful"): 0.05}
    (lost, *_) = claim("C1", make.case(shares=shares)).evidence
    assert (lost.verdict, lost.reason) == ("can't tell", "there was room for 5 points only")


def test_a_ceiling_is_no_defeat(make: SimpleNamespace) -> None:
    """Where the uniform merge does all right, coefficients per block have nothing to win."""
    best = {key: float(key[1] in HARMFUL) if key[0].startswith("merged") else v for key, v in make.PAPER.items()}
    found = claim("C6", make.case(shares=best))
    assert found.verdict == "can't tell"
    assert "room for 0 points" in found.evidence[0].reason
    assert "ahead by seed 0: +0.30 nats (+0.10 to +0.50)" in found.said
    assert "seed 0: 2,100 against 2,100" in found.said


def test_a_merge_that_was_chosen_uniform_says_nothing_of_blocks(make: SimpleNamespace) -> None:
    found = claim("C6", make.case(tradeoff=make.tradeoff("uniform")))
    assert found.verdict == "can't tell"
    assert "the merge that was chosen is uniform" in found.evidence[0].reason


def test_control_pictures_are_no_part_of_a_claim(make: SimpleNamespace) -> None:
    case = make.case()
    more = [make.record("adapted", "harmful", at, "refused", "blank") for at in range(60)]
    whole = case.completions.model_copy(update={"records": [*case.completions.records, *more]})
    assert claim("C1", make.case(completions=whole)).evidence == claim("C1", case).evidence


def test_the_control_shows_what_text_alone_costs(make: SimpleNamespace) -> None:
    shares = {**make.PAPER, ("benign", "harmful"): 0.8}
    found = claim("C1", make.case(shares=shares))
    named = {each.name: each for each in found.evidence}
    lost = named["control, harmless text alone: refused to complied"]
    assert lost.value == pytest.approx(0.2)
    more = named["harmful in text: adapted complies, the control does not, less the reverse"]
    assert more.value == pytest.approx(0.7)
    assert not lost.decides
    assert "the control lost +20 points" in found.said


def test_a_case_that_was_merged_uniformly_is_left_out_and_named(make: SimpleNamespace) -> None:
    found = claim("C6", make.case("seed 0"), make.case("seed 1", tradeoff=make.tradeoff("uniform")))
    assert list(found.evidence[0].by_case) == ["seed 0"]
    assert "chosen on seed 1, which is left out" in found.said


@pytest.mark.parametrize(
    ("cosine", "null", "verdict"),
    [
        (-0.3, 0.0, "holds"),
        (-0.01, 0.0, "does not hold"),
        (0.4, 0.0, "does not hold"),
        (-0.5, -0.5, "does not hold"),  # unrelated models
        (-0.06, -0.045, "does not hold"),  # rounding
    ],
)
def test_a_cosine_is_set_against_its_own_null(make: SimpleNamespace, cosine: float, null: float, verdict: str) -> None:
    assert claim("C4", make.case(diff=make.diff(cosine=cosine, null=null))).verdict == verdict


def test_a_wide_null_leaves_the_cosine_open(make: SimpleNamespace) -> None:
    assert claim("C4", make.case(diff=make.diff(cosine=-0.1, half=0.2))).verdict == "can't tell"


def test_each_seed_is_set_against_its_own_null(make: SimpleNamespace) -> None:
    """-.3 beside 0 and -.5 beside -.5: the mean is beyond the mean null, the second case is not beyond its own."""
    cases = [make.case("seed 0"), make.case("seed 1", diff=make.diff(cosine=-0.5, null=-0.5))]
    found = claim("C4", *cases)
    assert found.evidence[0].by_case["seed 1"] == pytest.approx(found.evidence[0].bar)
    assert found.verdict == "can't tell"


def test_without_results_every_claim_is_open_and_says_why(make: SimpleNamespace) -> None:
    bare = make.case(diff=None, completions=None, tradeoff=None, layers=None)
    for each in measure([bare]).records:
        assert each.verdict == "can't tell", each.key
        assert all(found.reason for found in each.evidence if found.decides)


def test_the_difference_is_that_of_mcnemar(make: SimpleNamespace) -> None:
    """An oracle for what is paired: the counts that a contingency table has."""
    shares = {**make.PAPER, ("base", "harmful"): 0.7, ("adapted", "harmful"): 0.2}
    (lost, *_) = claim("C1", make.case(shares=shares)).evidence
    assert lost.value == pytest.approx((42 - 12) / 60)
    assert mcnemar([[12, 0], [30, 18]], exact=True).pvalue < 0.05
    assert lost.low > 0


@given(st.floats(-1, 1), st.floats(0, 0.5), st.floats(0, 0.5), st.floats(-0.5, 0.5))
def test_a_verdict_is_of_the_interval(value: float, below: float, beyond: float, bar: float) -> None:
    found = decided(
        ClaimEvidence(
            name="", unit="points", value=value, low=value - below, high=value + beyond, bar=bar, verdict="can't tell"
        )
    )
    if found.verdict == "holds":
        assert value - below > bar
    elif found.verdict == "does not hold":
        assert value + beyond < bar + SMALLEST
    mirrored = decided(
        found.model_copy(
            update={
                "value": -value, "low": -value - beyond, "high": -value + below, "bar": -bar, "above": False,
                "reason": None,
            }
        )
    )  # fmt: skip
    assert mirrored.verdict == found.verdict


def test_the_result_is_read_back_and_has_rows(make: SimpleNamespace, tmp_path) -> None:
    result = measure([make.case()], ["a note"])
    result.save(tmp_path / "claims.json")
    content = json.loads((tmp_path / "claims.json").read_text())
    assert content["schema"] == "vlsurgery/claims/1"
    assert [each["key"] for each in content["claims"]] == ["C1", "C2", "C3", "C4", "C5", "C6"]
    again = ClaimsResult.load(tmp_path / "claims.json")
    assert again == result
    assert len(again.rows()) == sum(len(each.evidence) for each in result.records)
    assert list(again.rows()[0]) == ClaimsResult.columns()
    assert np.isfinite(again.rows()[0]["evidence.value"])
