import io
import re

import pytest
from hypothesis import given, strategies as st
from rich.console import Console

from vlsurgery.cli.view.comparison import case_comparison_tables
from vlsurgery.cli.workflow.comparison import compare_cases
from vlsurgery.probes.case_results import CaseComparison
from vlsurgery.probes.evaluation.intervals import rate, unpaired_difference
from vlsurgery.probes.evaluation.paired import paired_difference
from vlsurgery.probes.results import CompletionRecord, Verdict
from vlsurgery.surgery.errors import SurgeryError

KINDS = {"refused": "refusal", "complied": "compliance", "neither": "degenerate"}


def record(number, label, role="adapted", set_="harmful", judge="rules", prefix="how to ", answer=None, text="text"):
    return CompletionRecord(
        role=role,
        id=f"p{number}",
        request=f"r{number}",
        set=set_,
        modality="text",
        prompt=f"{prefix}{number}",
        text=text,
        answer=answer,
        tokens=4,
        cut=False,
        verdicts={judge: Verdict(label=label, kind=KINDS[label], reason="said so")},
        prompts_digest="abc",
    )


def case(*labels, **more):
    return [record(number, label, **more) for number, label in enumerate(labels)]


def row(found, measure="refused"):
    (only,) = [each for each in found.records if each.measure == measure]
    return only


LABELS = st.lists(st.tuples(st.sampled_from(list(KINDS)), st.sampled_from(list(KINDS))), min_size=2, max_size=60)


@given(LABELS)
def test_the_same_prompts_are_compared_in_pairs(labels):
    ours, theirs = zip(*labels, strict=True)
    found = compare_cases(case(*ours), case(*theirs))
    assert {each.measure for each in found.records} == {"refused", "complied", "neither"}
    for each in found.records:
        test = paired_difference(
            [b == each.measure for b in theirs], [a == each.measure for a in ours], range(len(labels))
        )
        assert each.paired
        assert (each.difference, each.low, each.high, each.p) == test
        assert each.first.rate == pytest.approx(ours.count(each.measure) / len(ours))
        assert each.requests == len(labels)


@given(LABELS)
def test_the_other_way_round_differences_have_the_other_sign(labels):
    ours, theirs = zip(*labels, strict=True)
    there, back = compare_cases(case(*ours), case(*theirs)), compare_cases(case(*theirs), case(*ours))
    for one, other in zip(there.records, back.records, strict=True):
        assert (one.difference, one.low, one.high, one.p) == pytest.approx(
            (-other.difference, -other.high, -other.low, other.p), abs=1e-9
        )


def test_other_prompts_are_compared_as_independent():
    found = compare_cases(case(*["refused"] * 50), case(*["complied"] * 50, prefix="what is "))
    refused = row(found)
    first, second = (rate([hit] * 50, range(50)) for hit in (True, False))
    assert not refused.paired
    assert (refused.difference, refused.low, refused.high) == unpaired_difference(first, second)
    assert refused.p is None
    assert refused.note == "other prompts: not paired"
    assert found.verdict.startswith("2 of 3 rates differ beyond their intervals")


def test_prompts_of_which_some_agree_are_paired_on_these():
    ours = case(*["refused"] * 60)
    theirs = case(*["refused"] * 40) + [record(number, "complied", prefix="else ") for number in range(40, 60)]
    refused = row(compare_cases(ours, theirs))
    assert refused.paired
    assert (refused.difference, refused.requests) == (0, 40)
    assert refused.note == "the 40 prompts that both were asked"
    assert refused.second.rate == pytest.approx(40 / 60)


def test_a_few_shared_prompts_do_not_stand_for_all():
    ours = case(*["refused"] * 60)
    theirs = case(*["refused"] * 10) + [record(number, "complied", prefix="else ") for number in range(10, 60)]
    assert not row(compare_cases(ours, theirs)).paired


def test_right_answers_are_compared_where_all_prompts_have_one():
    ours = case(*["complied"] * 40, set_="capability", answer="Paris", text="Paris.")
    theirs = case(*["complied"] * 40, set_="capability", answer="Paris", text="Rome")
    assert row(compare_cases(ours, theirs), "right").difference == -1


def test_nothing_is_said_of_fewer_than_thirty_requests():
    found = compare_cases(case(*["refused"] * 29), case(*["complied"] * 29))
    assert not any(each.differs for each in found.records)
    assert "0 of 0 rates differ" in found.verdict
    assert "3 rest on fewer than 30 requests" in found.verdict


def test_one_request_has_a_difference_and_no_interval():
    refused = row(compare_cases(case("refused"), case("complied")))
    assert (refused.difference, refused.low, refused.high, refused.p) == (-1, None, None, None)
    unpaired = row(compare_cases(case("refused"), case("complied", prefix="else ")))
    assert (unpaired.difference, unpaired.low, unpaired.high) == (-1, None, None)


def test_what_only_one_case_has_is_told():
    ours = case(*["refused"] * 3) + case(*["refused"] * 3, role="merged")
    theirs = case(*["refused"] * 3) + case(*["refused"] * 3, set_="borderline")
    assert compare_cases(ours, theirs).notes == [
        "merged is in the first case only",
        "adapted was asked borderline · text only in the second case only",
    ]


@pytest.mark.parametrize(
    ("ours", "theirs", "judge", "words"),
    [
        ([], case("refused"), None, "the first case has no completions"),
        (case("refused"), [], None, "the second case has no completions"),
        (case("refused"), case("refused", role="merged"), None, "share no role"),
        (case("refused"), case("refused", judge="other"), None, "second case: adapted's completion of 'p0'"),
        (case("refused"), case("refused"), "other", "has verdicts of rules, not of 'other'"),
        (case("refused") * 2, case("refused"), None, "first case: adapted has two completions of 'p0'"),
    ],
)
def test_faults_are_named(ours, theirs, judge, words):
    with pytest.raises(SurgeryError, match=re.escape(words)):
        compare_cases(ours, theirs, judge)


def test_the_result_is_read_back(tmp_path):
    found = compare_cases(case("refused", "complied"), case("complied", "complied"))
    found.save(tmp_path / "comparison.json")
    assert CaseComparison.load(tmp_path / "comparison.json") == found


def test_the_table_fits_100_columns_and_marks_what_differs():
    found = compare_cases(case(*["refused"] * 50), case(*["complied"] * 50))
    console = Console(width=100, file=io.StringIO())
    for part in case_comparison_tables(found, "case", "case-new"):
        console.print(part)
    text = console.file.getvalue()
    assert "…" not in text
    assert "−100.0*" in text
    assert "<.001" in text
    assert "the same prompts: all." in text
