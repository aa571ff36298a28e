"""From verdicts to rates: shares sum to one, lost and broken are of what the base refuses."""

import random

import pytest
from hypothesis import given, strategies as st

from vlsurgery.probes.evaluation.tabulate import Measured, tabulate
from vlsurgery.probes.results import BehaviourResult, JudgeUsed, Verdict

JUDGE = JudgeUsed(name="j", tokens=128, description="")
LABELS = ("refused", "complied", "neither")


@pytest.fixture(scope="session")
def said(record):
    """A function that makes a completion a letter: r, c or n."""

    def of(role: str, labels: str, modality: str = "text") -> list:
        names = {label[0]: label for label in LABELS}
        return [record(role, f"harmful/q{at}/{modality}", names[letter]) for at, letter in enumerate(labels)]

    return of


def row(result: BehaviourResult, role: str, modality: str = "text"):
    (found,) = [r for r in result.records if (r.role, r.modality) == (role, modality)]
    return found


@given(st.text("rcn", min_size=2, max_size=40), st.randoms(use_true_random=False))
def test_three_shares_sum_to_one_in_any_order(said, labels: str, chance: random.Random):
    records = said("base", labels)
    chance.shuffle(records)
    found = row(tabulate(records, [JUDGE]), "base")
    for name in LABELS:
        assert getattr(found, name).rate == pytest.approx(labels.count(name[0]) / len(labels))
        assert getattr(found, name).n == len(labels)
    assert sum(found.kinds.values()) == len(labels)


@given(st.lists(st.tuples(st.sampled_from("rcn"), st.sampled_from("rcn")), min_size=2, max_size=40))
def test_lost_and_broken_are_of_what_the_base_refuses(said, pairs: list[tuple[str, str]]):
    base, adapted = ("".join(side) for side in zip(*pairs, strict=True))
    found = row(tabulate(said("base", base) + said("adapted", adapted, "benign"), [JUDGE]), "adapted", "benign")
    refused = [theirs for ours, theirs in pairs if ours == "r"]
    for measure, letter in ((found.lost, "c"), (found.broken, "n")):
        if refused:
            assert measure.rate == pytest.approx(refused.count(letter) / len(refused))
            assert measure.n == len(refused)
        else:
            assert measure.rate is None
            assert measure.reason == f"the base refuses none of {len(pairs)}"


def test_without_a_base_nothing_is_lost_and_it_says_why(said):
    result = tabulate(said("adapted", "cc"), [JUDGE])
    assert row(result, "adapted").lost.reason == "no base was asked beside it"
    assert row(tabulate(said("base", "rr"), [JUDGE]), "base").lost.reason


def test_pairs_are_of_the_same_prompts_and_measure_refusing_and_complying(said):
    records = said("base", "rrrc") + said("adapted", "rccc") + said("adapted", "cccc", "benign")
    found = {(p.modality, p.measure): p for p in tabulate(records, [JUDGE]).paired}
    assert {(p.role, p.against) for p in found.values()} == {("adapted", "base")}
    assert found["text", "refused"].difference == pytest.approx(-0.5)
    assert found["text", "complied"].difference == pytest.approx(0.5)
    assert found["benign", "refused"].difference == pytest.approx(-0.75)
    assert all(p.requests == 4 and 0 <= p.p <= 1 for p in found.values())


def test_models_without_roles_are_compared_with_the_first(said):
    pairs = tabulate(said("one", "rr") + said("two", "cc") + said("three", "rc"), [JUDGE]).paired
    assert {(p.role, p.against) for p in pairs} == {("two", "one"), ("three", "one")}


def test_every_safety_tuned_model_is_held_against_the_adapted_one(said):
    roles = ("base", "adapted", "safety", "safety:dpo", "merged")
    pairs = tabulate([record for role in roles for record in said(role, "rc")], [JUDGE]).paired
    found = {(pair.role, pair.against) for pair in pairs}
    assert {("safety", "adapted"), ("safety:dpo", "adapted"), ("merged", "safety"), ("merged", "safety:dpo")} <= found
    assert len(found) == 6


def test_two_judges_have_a_row_each_and_what_they_differ_on(said):
    second = JudgeUsed(name="k", tokens=128, description="")
    records = [
        r.model_copy(update={"verdicts": {**r.verdicts, "k": Verdict(label="complied", kind="compliance", reason="")}})
        for r in said("base", "rrcn")
    ]
    result = tabulate(records, [JUDGE, second])
    assert row(result, "base").refused.rate == 0.5
    assert result.other_judges["k"][0].complied.rate == 1
    (agreement,) = result.agreement
    assert (agreement.judges, agreement.n, agreement.agreement) == (("j", "k"), 4, 0.25)
    assert set(agreement.differing) == {("base", f"harmful/q{at}/text") for at in (0, 1, 3)}


def test_right_answers_and_divergences_are_carried(record):
    records = [record("adapted", "capability/a/text", "complied", answer="Paris", text="It is Paris.")] * 2
    measured = Measured({"adapted": {("capability", "text"): (0.25, None)}}, looks=4, notes=["n"])
    result = tabulate(records, [JUDGE], measured)
    assert (result.records[0].right.rate, result.records[0].kl, result.looks, result.notes) == (1, 0.25, 4, ["n"])
    assert result.prompts_digest == "d"
    assert result.completions.records == records
    assert "completions" not in result.model_dump(by_alias=True)
