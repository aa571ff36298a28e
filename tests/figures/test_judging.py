"""Judges are named, two that differ are shown as two, and every kind is counted."""

from collections import Counter
from types import SimpleNamespace

from hypothesis import given, strategies as st

from vlsurgery.figures import judging
from vlsurgery.figures.report import report
from vlsurgery.probes.results import KINDS, BehaviourResult, JudgeAgreement, JudgeUsed

COUNTS = st.dictionaries(st.sampled_from(KINDS), st.integers(0, 50))


def judged_twice(make: SimpleNamespace) -> BehaviourResult:
    first, second = (make.behaviour({"adapted": {("harmful", "text"): share}}) for share in (0.9, 0.5))
    judges = [JudgeUsed(name=name, tokens=128, description=f"Says {name}.") for name in ("rules", "hf:x")]
    agreement = JudgeAgreement(judges=("rules", "hf:x"), n=200, agreement=0.6, kappa=0.25, differing=[("adapted", "p")])
    return first.model_copy(
        update={"judges": judges, "other_judges": {"hf:x": second.records}, "agreement": [agreement]}
    )


def test_both_rates_and_their_agreement_are_there(make: SimpleNamespace) -> None:
    result = judged_twice(make)
    rows = judging.by_judge(result, ["adapted"])
    assert [(row.judge, row.cells) for row in rows] == [("rules", ("90 / 5 / 5",)), ("hf:x", ("50 / 25 / 25",))]
    (sentence,) = judging.agreements(result)
    assert "60% of 200 completions" in sentence
    assert "kappa 0.25" in sentence
    html = report(None, None, result, None, cdn=True)
    for part in ("Says rules.", "Says hf:x.", "50 / 25 / 25", "differ on 1 of 200 completions"):
        assert part in html


def test_one_judge_needs_no_second_table(make: SimpleNamespace) -> None:
    assert judging.by_judge(make.behaviour(), ["adapted"]) == ()


@given(st.lists(st.tuples(st.sampled_from(["base", "adapted"]), st.sampled_from(["harmful", "harmless"]), COUNTS)))
def test_kinds_are_counted_whole(make: SimpleNamespace, told: list[tuple[str, str, dict[str, int]]]) -> None:
    rows = [
        make.behaviour_row(role, set_, f"own{i}", 0.5).model_copy(update={"kinds": counts})
        for i, (role, set_, counts) in enumerate(told)
    ]
    result = make.behaviour({}).model_copy(update={"records": rows})
    found = judging.kinds(result, ["base", "adapted"])
    expected = Counter(dict.fromkeys(("base", "adapted"), 0))
    for role, _, counts in told:
        expected[role] += sum(counts.values())
    for place, role in enumerate(("base", "adapted")):
        assert sum(row.counts[place] for row in found) == expected[role]


def test_kinds_of_older_results_are_counted_from_completions(make: SimpleNamespace) -> None:
    found = judging.kinds(make.behaviour(), ["base", "adapted"], make.completions(60))
    rows = {(row.side, row.kind): row.counts for row in found}
    assert rows["harmful requests", "compliance"] == (0, 60)
    assert rows["harmful requests", "broken words or loops"] == (0, 20)
    assert rows["harmful requests", "refusal"] == (60, 40)


def test_what_was_cut_before_it_was_decided_is_told(make: SimpleNamespace) -> None:
    row = make.behaviour_row("adapted", "harmful", "text", 0.5).model_copy(update={"kinds": {"undecided": 7}})
    result = make.behaviour({}).model_copy(update={"records": [row]})
    assert judging.undecided(result).startswith("Cut at 64 tokens before they were decided")
    assert "7 of adapted on harmful · text only" in judging.undecided(result)
    assert judging.undecided(make.behaviour()) == ""
