"""Agreement of judges with each other and with people, and rates corrected for a judge's errors."""

import math
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from scipy.stats import binom
from sklearn import metrics

from vlsurgery.probes.evaluation.intervals import wilson
from vlsurgery.probes.evaluation.judges.agreement import (
    AgreementResult,
    against_labels,
    cohen_kappa,
    compare,
    labels_of,
)
from vlsurgery.probes.evaluation.judges.callables import CallableJudge
from vlsurgery.probes.evaluation.judges.judge_errors import corrected_rate, judge_errors, rogan_gladen
from vlsurgery.probes.evaluation.judges.labels import HumanLabel, read_labels
from vlsurgery.probes.results import LABELS, CompletionRecord, Verdict
from vlsurgery.surgery.errors import SurgeryError

labels_of_two = st.lists(st.tuples(st.sampled_from(LABELS), st.sampled_from(LABELS)), min_size=1, max_size=60)
KIND = {"refused": "refusal", "complied": "compliance", "neither": "degenerate"}


def record(at, **verdicts):
    return CompletionRecord(
        role="base",
        id=f"p{at}",
        request=f"r{at}",
        set="harmful",
        modality="text",
        prompt="ask",
        text="answer",
        tokens=1,
        cut=False,
        verdicts={name: Verdict(label=label, kind=KIND[label], reason="") for name, label in verdicts.items()},
        prompts_digest="0",
    )


def confusion(both, missed, wrong, left):
    """A judge with so many completions: refused by both, by people alone, by the judge alone, by neither."""
    people = ["refused"] * (both + missed) + ["complied"] * (wrong + left)
    judge = ["refused"] * both + ["complied"] * missed + ["refused"] * wrong + ["complied"] * left
    return judge_errors("j", judge, people)


# Two judges


@given(labels_of_two)
def test_kappa_is_scikit_learns(pairs):
    first, second = (list(side) for side in zip(*pairs, strict=True))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = metrics.cohen_kappa_score(first, second, labels=list(LABELS))
    found = cohen_kappa(first, second)
    assert (found is None and math.isnan(expected)) or found == pytest.approx(expected, abs=1e-12)


@given(labels_of_two)
def test_comparing_is_symmetric_and_counts_what_differs(pairs):
    records = [record(at, a=one, b=other) for at, (one, other) in enumerate(pairs)]
    there, back = compare(records, "a", "b"), compare(records, "b", "a")
    assert (there.agreement, there.kappa, there.differing) == (back.agreement, back.kappa, back.differing)
    assert there.n == len(pairs)
    assert there.differing == [("base", f"p{at}") for at, (one, other) in enumerate(pairs) if one != other]
    assert there.agreement == pytest.approx(1 - len(there.differing) / there.n)
    if not there.differing:
        assert there.agreement == 1
        assert there.kappa in (1, None)


def test_what_cannot_be_compared_is_told():
    with pytest.raises(
        SurgeryError, match=r"completion p0 of base: judge b didn't judge it, only a\. Run `vlsurgery re"
    ):
        compare([record(0, a="refused")], "a", "b")
    with pytest.raises(SurgeryError, match="no completion to compare"):
        compare([], "a", "b")


# Labels from a file


def write(tmp_path: Path, text: str | bytes, name: str = "labels.csv") -> Path:
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_file_with_bom_quoted_newlines_and_other_columns(tmp_path):
    text = '\ufeffID,Completion,annotator,Final_Label,prompt\r\n1,"a\r\nb, ""c""",x,Refused,ask\r\n2,,y,neither,\r\n'
    assert read_labels(write(tmp_path, text)) == [
        HumanLabel('a\r\nb, "c"', "refused", "ask", None, "1", 2),
        HumanLabel("", "neither", None, None, "2", 4),
    ]


def test_xstests_labels_are_known_and_partial_refusals_are_refusals(tmp_path):
    path = write(tmp_path, "response\tlabel\na\t1_full_compliance\nb\t2_full_refusal\nc\t3_partial_refusal\n", "l.tsv")
    assert [each.label for each in read_labels(path)] == ["complied", "refused", "refused"]


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


@given(st.lists(st.tuples(TEXTS, st.sampled_from(LABELS)), min_size=1))
def test_what_was_written_is_read(rows):
    import csv
    import io
    import tempfile

    out = io.StringIO(newline="")
    writer = csv.writer(out)
    writer.writerow(["text", "label"])
    writer.writerows(rows)
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder), out.getvalue())
        expected = [(text.strip(), label) for text, label in rows]
        assert [(each.completion, each.label) for each in read_labels(path)] == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "text,label\na,refused\nb,0\n",
            r"line 3: unknown label '0'\. Expected one of refused, complied, neither, 1_f",
        ),
        ('text,label\n"a\nb",refused\nc,\n', r"line 4: unknown label ''"),
        ("text,verdict\na,refused\n", r"line 1: no column human_label or final_label or label; found text, verdict"),
        ("answer,label\na,refused\n", r"line 1: no column completion or response or text; found answer, label"),
        ("text,label,Text\na,refused,b\n", r"line 1: the column 'text' stands twice"),
        ("text,label\na,b,refused\n", r"line 2: 3 cells where the header has 2"),
        ('text,label\n"a"b,refused\n', r"line 2: not CSV"),
        ('text,label\n"a,refused\n', r"line 2: not CSV"),
        ("text,label\n", r"holds no labelled completion"),
        ("", r"holds no labelled completion"),
        (b"text,label\na,refused\n\xff,refused\n", r"line 3: not UTF-8 text"),
    ],
)
def test_a_file_that_is_none_is_told_with_its_line(tmp_path, text, words):
    with pytest.raises(SurgeryError, match=words) as caught:
        read_labels(write(tmp_path, text))
    assert str(caught.value).startswith(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(SurgeryError, match=r"nowhere\.csv: can't be read \(No such file"):
        read_labels(tmp_path / "nowhere.csv")


# A judge against people


@given(labels_of_two)
def test_a_judges_errors_are_scikit_learns(pairs):
    people, judge = (list(side) for side in zip(*pairs, strict=True))
    found = judge_errors("j", judge, people)
    truth, said = ([label == "refused" for label in side] for side in (people, judge))
    assert found.accuracy.rate == pytest.approx(metrics.accuracy_score(truth, said))
    for name, expected, n in (
        ("precision", metrics.precision_score(truth, said, zero_division=np.nan), sum(said)),
        ("recall", metrics.recall_score(truth, said, zero_division=np.nan), sum(truth)),
        (
            "specificity",
            metrics.recall_score(truth, said, pos_label=False, zero_division=np.nan),
            len(pairs) - sum(truth),
        ),
    ):
        rate = getattr(found, name)
        if n == 0:
            assert rate.rate is None
            assert rate.reason
        else:
            assert (rate.rate, rate.n) == (pytest.approx(expected), n)
            assert (rate.low, rate.high) == wilson(round(rate.rate * n), n)
    both, missed, wrong, left = found.counts
    assert [[left, wrong], [missed, both]] == metrics.confusion_matrix(truth, said, labels=[False, True]).tolist()


def test_a_judge_without_labels_is_told():
    with pytest.raises(SurgeryError, match="found 1 for 0"):
        judge_errors("j", ["refused"], [])


# Corrected rates

shares = st.floats(0, 1)


@given(shares, shares, shares)
def test_rogan_gladen_undoes_what_the_judges_errors_did(true, sensitivity, specificity):
    measured = true * sensitivity + (1 - true) * (1 - specificity)
    found = rogan_gladen(measured, sensitivity, specificity)
    if sensitivity + specificity <= 1:
        assert found.value is None
        assert "can't tell" in found.reason
    elif sensitivity + specificity > 1.001:
        assert found.value == pytest.approx(true, abs=1e-9)
    else:
        assert 0 <= found.value <= 1


@given(st.lists(st.booleans(), min_size=1, max_size=40), st.integers(1, 40), st.integers(0, 40), st.integers(0, 40))
@settings(max_examples=40, deadline=None)
def test_a_corrected_rate_is_inside_of_its_interval(outcomes, both, missed, wrong):
    found = corrected_rate(outcomes, [at // 2 for at in range(len(outcomes))], confusion(both, missed, wrong, 40))
    assert (found.n, found.requests) == (len(outcomes), -(-len(outcomes) // 2))
    if found.rate is None:
        assert found.reason
    else:
        assert 0 <= found.low <= found.rate <= found.high <= 1


@pytest.mark.parametrize("refused", [0, 3, 50, 100])
def test_a_perfect_judge_with_many_labels_changes_nothing(refused):
    outcomes = [at < refused for at in range(100)]
    found = corrected_rate(outcomes, list(range(100)), confusion(100_000, 0, 0, 100_000))
    low, high = wilson(refused, 100)
    assert found.rate == pytest.approx(refused / 100, abs=1e-12)
    assert (found.low, found.high) == (pytest.approx(low, abs=0.02), pytest.approx(high, abs=0.02))


@pytest.mark.parametrize("counts", [(64, 0, 0, 64), (56, 8, 4, 60), (48, 16, 16, 48)])
@pytest.mark.parametrize("grouped", [1, 5])
def test_the_interval_widens_as_labels_shrink(counts, grouped):
    outcomes = [at % 10 < 4 for at in range(200)]
    requests = [at // grouped for at in range(200)]
    widths = []
    for part in (1, 2, 4):
        found = corrected_rate(outcomes, requests, confusion(*(count // part for count in counts)))
        widths.append(found.high - found.low)
    assert widths == sorted(widths)
    assert widths[-1] > 1.1 * widths[0]


def test_a_rate_below_the_judges_false_alarms_is_0_and_not_certain():
    found = corrected_rate([False] * 112, list(range(112)), confusion(50, 0, 20, 130))
    assert (found.rate, found.low) == (0, 0)
    assert found.high == pytest.approx(wilson(0, 112)[1])
    found = corrected_rate([True] * 112, list(range(112)), confusion(30, 20, 0, 150))
    assert (found.rate, found.high) == (1, 1)
    assert found.low == pytest.approx(wilson(112, 112)[0])


def test_a_rate_that_cannot_be_corrected_says_why():
    assert corrected_rate([], [], confusion(9, 1, 1, 9)).reason == "no prompt of this kind"
    assert "people call no completion refused" in corrected_rate([True], ["r"], confusion(0, 0, 1, 9)).reason
    assert "people call every completion refused" in corrected_rate([True], ["r"], confusion(9, 1, 0, 0)).reason
    assert "can't tell refusals" in corrected_rate([True], ["r"], confusion(1, 9, 5, 5)).reason


@pytest.mark.parametrize(("true", "per_request", "runs"), [(0.1, 1, 300), (0.5, 1, 300), (0.5, 4, 60)])
def test_the_interval_covers_the_true_rate(true, per_request, runs):
    """95% nominal: it may miss as often as an interval of 95% would in all but one case of 2,000."""
    generator = np.random.default_rng(7)
    sensitivity, specificity, requests = 0.9, 0.95, 100
    covered = 0
    for _ in range(runs):
        refused = np.repeat(generator.random(requests) < true, per_request)
        outcomes = generator.random(len(refused)) < np.where(refused, sensitivity, 1 - specificity)
        both, left = generator.binomial(60, sensitivity), generator.binomial(60, specificity)
        found = corrected_rate(
            outcomes.tolist(),
            np.repeat(np.arange(requests), per_request).tolist(),
            confusion(both, 60 - both, 60 - left, left),
        )
        covered += found.low <= true <= found.high
    assert covered >= binom.ppf(1 / 2000, runs, 0.95)


# The result


def test_judges_against_labels_are_a_table(tmp_path):
    labels = [
        HumanLabel(text, label, line=at)
        for at, (text, label) in enumerate([("no", "refused"), ("yes", "complied")] * 20)
    ]
    right = CallableJudge(lambda completions, prompts: [text == "no" for text in completions], "right")  # noqa: ARG005
    always = CallableJudge(lambda completions, prompts: [True] * len(completions), "always")  # noqa: ARG005
    result = against_labels(labels, [right, always], "labels.csv")
    assert [(row.judge, row.accuracy.rate, row.recall.rate) for row in result.records] == [
        ("right", 1.0, 1.0),
        ("always", 0.5, 1.0),
    ]
    assert result.records[0].corrected.rate == 0.5
    assert result.records[1].corrected.rate is None
    assert result.agreement[0].judges == ("right", "always")
    assert len(result.agreement[0].differing) == 20
    result.save(tmp_path / "agreement.json")
    assert AgreementResult.load(tmp_path / "agreement.json") == result
    frame = result.to_frame("pandas")
    assert list(frame["judge"]) == ["right", "always"]
    assert set(AgreementResult.shown) <= set(frame.columns)


def test_corrected_on_the_labelled_completions_themselves_is_what_people_say():
    labels = [HumanLabel("no" if at % 3 else "yes", "refused" if at < 25 else "complied") for at in range(40)]
    judge = CallableJudge(lambda completions, prompts: [text == "no" for text in completions], "j")  # noqa: ARG005
    (row,) = against_labels(labels, [judge], "x").records
    if row.corrected.rate is not None:
        assert row.corrected.rate == pytest.approx(25 / 40)


def test_two_judges_of_one_name_are_told():
    judge = CallableJudge(lambda completions, prompts: completions, "j")  # noqa: ARG005
    with pytest.raises(SurgeryError, match="different names, found j, j"):
        against_labels([HumanLabel("a", "refused")], [judge, judge], "x")


# Labels and a case's completions


@pytest.mark.parametrize(
    ("label", "belongs"),
    [
        (HumanLabel("answer", "refused", role="base", id="p1"), True),
        (HumanLabel(" answer\n", "refused"), True),
        (HumanLabel("answer", "refused", prompt="ask"), True),
        (HumanLabel("answer", "refused", prompt="ask", role="base"), True),
        (HumanLabel("answer", "refused", prompt="another"), False),
        (HumanLabel("answer", "refused", role="adapted"), False),
        (HumanLabel("another", "refused"), False),
        (HumanLabel("another", "refused", role="base", id="p9"), False),
    ],
)
def test_a_label_belongs_to_a_completion_by_id_or_by_text(label, belongs):
    records = [record(at, a="refused") for at in range(3)]
    known = HumanLabel("answer", "complied")
    assert labels_of(records, [known, label], "l.csv") == ([known, label] if belongs else [known])


def test_labels_of_other_completions_are_told():
    records = [record(at, a="refused") for at in range(3)]
    with pytest.raises(SurgeryError, match=r"l\.csv: none of its 1 labelled completions is one of these 3"):
        labels_of(records, [HumanLabel("another", "refused")], "l.csv")
    with pytest.raises(SurgeryError, match=r"l\.csv, line 7: completion p1 of base reads otherwise by now"):
        labels_of(records, [HumanLabel("another", "refused", role="base", id="p1", line=7)], "l.csv")
