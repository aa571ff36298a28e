"""Judges by name, any function as a judge, and what every judge owes."""

import sys
import types

import numpy as np
import pytest
from hypothesis import given, strategies as st

from vlsurgery.probes.evaluation.judges import opening
from vlsurgery.probes.evaluation.judges.callables import CallableJudge
from vlsurgery.probes.evaluation.judges.checking import KINDS_OF, checked
from vlsurgery.probes.evaluation.judges.opening import JUDGES, is_judge, judge_texts, open_judge
from vlsurgery.probes.evaluation.judges.protocol import Exchange
from vlsurgery.probes.prompts import Prompt
from vlsurgery.probes.results import KINDS, LABELS, Verdict
from vlsurgery.surgery.errors import SurgeryError

EXCHANGES = [Exchange("I cannot help."), Exchange("First, mix."), Exchange("")]


class Fixed:
    """A judge that gives the rows it was made with."""

    name = "fixed"
    description = "gives what it was told to give"

    def __init__(self, rows):
        self.rows = rows
        self.seen = []

    def judge(self, exchanges):
        self.seen = list(exchanges)
        return self.rows


def verdict(label="complied", kind="compliance"):
    return Verdict(label=label, kind=kind, reason="because")


def test_every_kind_belongs_to_a_label():
    assert set(KINDS_OF) == set(LABELS)
    assert {kind for kinds in KINDS_OF.values() for kind in kinds} == set(KINDS)


# Functions as judges


@given(st.lists(st.tuples(st.text(), st.sampled_from(LABELS)), min_size=1, max_size=20))
def test_a_functions_labels_come_back_in_their_order(rows):
    texts = [text for text, _ in rows]
    found = judge_texts(texts, judge=lambda completions, prompts: [label for _, label in rows])  # noqa: ARG005
    assert [each.label for each in found] == [label for _, label in rows]
    assert all(each.kind in KINDS_OF[each.label] and each.reason for each in found)


@pytest.mark.parametrize(
    "true", [True, np.True_, "refused", "REFUSED ", {"label": "refused"}, verdict("refused", "partial")]
)
def test_each_way_to_say_refused(true):
    (found,) = judge_texts(["text"], judge=lambda completions, prompts: [true])  # noqa: ARG005
    assert found.refused


def test_a_function_gets_texts_and_prompts_and_may_give_a_generator():
    seen = {}

    def mine(completions, prompts):
        seen.update(completions=completions, prompts=prompts)
        return (False for _ in completions)

    found = judge_texts(("a", "b"), ["ask", None], judge=mine)
    assert seen == {"completions": ["a", "b"], "prompts": ["ask", None]}
    assert [each.label for each in found] == ["complied", "complied"]
    assert found[0].reason == "mine: complied"


def test_a_mapping_may_name_kind_and_reason():
    row = {"label": "complied", "kind": "refuse_then_comply", "reason": "turned"}
    (found,) = judge_texts(["text"], judge=lambda completions, prompts: [row])  # noqa: ARG005
    assert found == Verdict(label="complied", kind="refuse_then_comply", reason="turned")


def test_neither_without_a_kind_is_empty_cut_or_off_topic():
    judge = CallableJudge(lambda completions, prompts: ["neither"] * len(completions), "n")  # noqa: ARG005
    exchanges = [Exchange("  "), Exchange("so", cut=True), Exchange("so")]
    assert [each.kind for each in judge.judge(exchanges)] == ["empty", "undecided", "off_topic"]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (["refused", "maybe", "refused"], r"judge f, row 2: unknown label 'maybe'\. Expected one of refused, complied"),
        (["refused", 1, "refused"], r"judge f, row 2: expected one of refused, .* found 1\."),
        (["refused", None, True], r"judge f, row 2: .* found None"),
        (["refused", {"kind": "partial"}, True], r"judge f, row 2: expected a dict with 'label'"),
        (["refused", {"label": "refused", "score": 1}, True], r"row 2: expected a dict with 'label'.* found \{'label'"),
        ([{"label": "refused", "kind": "compliance"}] * 3, r"row 1: kind 'compliance' does not go with 'refused'"),
        ([{"label": "refused", "kind": "nope"}] * 3, r"row 1: expected a 'kind' of refusal"),
        ([{"label": "refused", "reason": 3}] * 3, r"row 1: expected a 'kind' .* and a 'reason' in words"),
        ([verdict("refused", "compliance")] * 3, r"row 1: kind 'compliance' does not go with 'refused'"),
        (["refused"] * 2, r"judge f: row 3 is missing: expected 3 verdicts, found 2"),
        (["refused"] * 4, r"judge f: row 4 is one too many: expected 3 verdicts, found 4"),
        ("refused", r"judge f: expected a list .* found 'refused'"),
        ({"label": "refused"}, r"judge f: expected a list"),
        (None, r"judge f: expected a list .* found None"),
    ],
)
def test_wrong_rows_are_one_line_that_names_judge_row_expected_and_found(rows, words):
    judge = CallableJudge(lambda completions, prompts: rows, "f")  # noqa: ARG005
    with pytest.raises(SurgeryError, match=words) as caught:
        judge.judge(EXCHANGES)
    assert "\n" not in str(caught.value)


def test_a_crash_is_one_line_with_its_cause():
    def broken(completions, prompts):
        raise KeyError("two\nlines")

    with pytest.raises(
        SurgeryError, match=r"judge broken, rows 1 to 2: expected verdicts, but it raised KeyError"
    ) as c:
        judge_texts(["a", "b"], judge=broken)
    assert isinstance(c.value.__cause__, KeyError)
    assert "\n" not in str(c.value)


def test_a_function_of_one_argument_is_told_how_it_is_called():
    with pytest.raises(SurgeryError, match=r"f\(completions, prompts\)"):
        judge_texts(["a"], judge=lambda completions: ["refused"])  # noqa: ARG005


# Every judge is checked


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([verdict()], r"judge fixed: row 2 is missing: expected 3 verdicts, found 1"),
        ([verdict()] * 5, r"judge fixed: row 4 is one too many"),
        ([verdict(), "refused", verdict()], r"judge fixed, row 2: expected a Verdict, found 'refused'"),
        ([verdict(), verdict("neither", "partial"), verdict()], r"row 2: kind 'partial' does not go with 'neither'"),
    ],
)
def test_checked_holds_every_judge_to_rows_and_type(rows, words):
    with pytest.raises(SurgeryError, match=words):
        checked(Fixed(rows), EXCHANGES)


# Opening


def test_names_are_imported_when_asked_for(monkeypatch):
    module = types.ModuleType("a_module_of_judges")
    module.MINE = Fixed([])
    monkeypatch.setitem(sys.modules, "a_module_of_judges", module)
    monkeypatch.setitem(opening.JUDGES, "mine", ("a_module_of_judges", "MINE"))
    assert open_judge("mine") is module.MINE


def test_the_packages_own_judges_are_judges():
    for name in JUDGES:
        judge = open_judge(name)
        assert is_judge(judge)
        assert [each.label for each in checked(judge, EXCHANGES[:1])] == ["refused"]


def test_a_judge_is_returned_as_it_is():
    judge = Fixed([])
    assert open_judge(judge) is judge


@pytest.mark.parametrize(
    ("spec", "labels", "words"),
    [
        ("standrad", None, r"unknown judge 'standrad'\. Expected one of standard, rules, classifier, hf:ID"),
        ("rules", "A=refused", r"labels go with a text-classification checkpoint .* not with judge 'rules'"),
        (3, None, r"judge 3: expected a name"),
        (Fixed, None, r"expected a name"),
        ("hf:", None, r"names no model"),
        ("hf:no/such dir/here", None, r"no such directory, and not the name of a model on the Hub"),
        ("hf:x#nonsense", None, r"unknown format 'nonsense'\. Expected one of harmbench-llama"),
    ],
)
def test_what_is_no_judge_is_told(spec, labels, words):
    with pytest.raises(SurgeryError, match=words):
        open_judge(spec, labels)


# Texts


def test_prompts_bring_their_set_picture_and_topic(tmp_path):
    judge = Fixed([verdict()])
    prompt = Prompt("1", "r", "harmful", "ask", "report", "own", tmp_path / "p.png", topic=("oven",))
    judge_texts(["text"], [prompt], judge)
    assert judge.seen == [Exchange("text", "ask", "harmful", True, ("oven",))]


def test_no_texts_have_no_verdicts():
    assert judge_texts([], judge=Fixed([verdict()])) == []


@pytest.mark.parametrize(
    ("completions", "prompts", "words"),
    [
        ("one text", None, r"expected a list of texts, found one text\. Write \[text\]"),
        (3, None, r"completions: expected a list of texts, found 3"),
        (["a", None], None, r"completions, row 2: expected a text, found None"),
        (["a", "b"], ["ask"], r"prompts: expected 2, one for each completion, found 1"),
        (["a"], "ask", r"prompts: expected a list"),
        (["a", "b"], ["ask", 3], r"prompts, row 2: expected a text, a Prompt or None, found 3"),
    ],
)
def test_texts_that_are_none_are_told(completions, prompts, words):
    with pytest.raises(SurgeryError, match=words):
        judge_texts(completions, prompts, Fixed([verdict()]))
