import io
import json
import random
import re

import pytest
from rich.console import Console

from vlsurgery.cli.view.history import history_tables
from vlsurgery.cli.workflow.history import history_entry, history_rows
from vlsurgery.probes.case_results import HistoryResult
from vlsurgery.probes.evaluation.intervals import rate
from vlsurgery.probes.results import BehaviourResult, BehaviourRow, JudgeUsed, Rate
from vlsurgery.surgery.errors import SurgeryError


def share(hits, n):
    return rate([place < hits for place in range(n)], range(n))


def behaviour(refused, n=100, judge="rules", digest="abc", role="adapted"):
    row = BehaviourRow(
        role=role,
        set="harmful",
        modality="benign",
        refused=share(refused, n),
        complied=share(n - refused, n),
        neither=share(0, n),
        right=Rate(rate=None, reason="no one right answer"),
    )
    used = JudgeUsed(name=judge, tokens=128, description="")
    return BehaviourResult(records=[row], paired=[], judges=[used], prompts_digest=digest, looks=1, notes=[])


def written(tmp_path, *looks):
    """A history with one line a look: a behaviour, a dict or raw text."""
    lines = []
    for day, look in enumerate(looks, start=1):
        entry = {"step": "evaluate", "roles": ["adapted"], **history_entry(look)} if not isinstance(
            look, dict | str
        ) else look  # fmt: skip
        lines.append(entry if isinstance(entry, str) else json.dumps({"time": f"2026-01-0{day}T12:00:00", **entry}))
    file = tmp_path / "history.jsonl"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def test_an_entry_holds_what_was_measured_and_by_whom():
    entry = history_entry(behaviour(90))
    assert (entry["prompts_digest"], entry["judge"]) == ("abc", "rules")
    measures = entry["rates"]["adapted"]["harmful.benign"]
    assert measures["refused"]["rate"] == 0.9
    assert measures["refused"]["requests"] == 100
    assert set(measures) == {"refused", "complied", "neither"}  # the others were not measured


def test_every_rate_of_every_evaluation_is_a_row(tmp_path):
    found = history_rows(written(tmp_path, behaviour(90), behaviour(91)))
    assert len(found.rows()) == 6
    assert [row.rate for row in found.records if row.measure == "refused"] == [0.9, 0.91]


def test_a_change_beyond_the_interval_is_told_with_both_rates(tmp_path):
    found = history_rows(written(tmp_path, behaviour(95), behaviour(60)))
    by_measure = {change.measure: change for change in found.changes}
    assert set(by_measure) == {"refused", "complied"}
    refused = by_measure["refused"]
    assert refused.difference == pytest.approx(-0.35)
    assert refused.high < 0
    assert (refused.since, refused.line) == (1, 2)
    assert refused.words.startswith("adapted, harmful · ordinary picture, refused: 95% (")
    assert "2 of 3 rates changed" in found.verdict
    assert any("by chance" in note for note in found.notes)


def test_a_change_within_the_interval_is_none(tmp_path):
    found = history_rows(written(tmp_path, behaviour(95), behaviour(92)))
    assert not found.changes
    assert "0 of 3 rates changed" in found.verdict


@pytest.mark.parametrize(
    ("later", "words"),
    [
        (behaviour(5, judge="other"), "other judge (other, before rules): not compared"),
        (behaviour(5, digest="xyz"), "other prompts than before: not compared"),
        (behaviour(5, digest=None), "not known which prompts were asked"),
    ],
)
def test_other_prompts_or_another_judge_are_not_compared(tmp_path, later, words):
    found = history_rows(written(tmp_path, behaviour(95), later))
    assert not found.changes
    assert any(words in note for note in found.notes)
    assert words in found.looks[1].note
    assert "nothing to compare" in found.verdict


def test_an_evaluation_is_compared_with_the_latest_of_its_kind(tmp_path):
    looks = (behaviour(95), behaviour(94), behaviour(50, digest="xyz"), {"step": "probe"}, behaviour(40))
    found = history_rows(written(tmp_path, *looks))
    assert [look.compared_with for look in found.looks] == [None, 1, None, None, 2]
    assert {(change.since, change.line) for change in found.changes} == {(2, 5)}


def test_thirty_requests_are_needed_for_a_change(tmp_path):
    found = history_rows(written(tmp_path, behaviour(29, n=29), behaviour(0, n=29)))
    assert not found.changes
    assert any("3 rates of fewer than 30 requests were not compared" in note for note in found.notes)


def test_lines_of_older_versions_are_looks(tmp_path):
    old = {"step": "evaluate", "roles": ["base"], "prompts": {"kind": "english", "seed": 0}}
    found = history_rows(written(tmp_path, old, {"step": "probe", "roles": ["base"]}, "", behaviour(90)))
    assert [(look.line, look.step) for look in found.looks] == [(1, "evaluate"), (2, "probe"), (4, "evaluate")]
    assert {row.line for row in found.records} == {4}
    assert not found.notes


@pytest.mark.parametrize(
    "broken",
    [
        '{"time": "2026-01-01T12:00:00", "ro',
        "[]",
        '{"step": "evaluate"}',
        '{"time": "x", "rates": {"adapted": {"harmful.text": {"refused": {"rate": NaN}}}}}',
        '{"time": "x", "rates": {"adapted": {"harmful.text": {"refused": 0.5}}}}',
    ],
)
def test_a_broken_line_is_named(tmp_path, broken):
    file = written(tmp_path, behaviour(90), broken)
    with pytest.raises(SurgeryError, match=r"history\.jsonl, line 2: not a look") as caught:
        history_rows(file)
    assert "\n" not in str(caught.value)


def test_no_history(tmp_path):
    with pytest.raises(SurgeryError, match=r"history\.jsonl: can't be read"):
        history_rows(tmp_path / "history.jsonl")


def test_the_result_is_read_back(tmp_path):
    found = history_rows(written(tmp_path, behaviour(95), behaviour(60)))
    found.save(tmp_path / "history.json")
    assert HistoryResult.load(tmp_path / "history.json") == found


def test_the_tables_show_the_latest_evaluations_and_fit_100_columns(tmp_path):
    random.seed(1)
    found = history_rows(written(tmp_path, *[behaviour(random.randint(0, 100)) for _ in range(8)]))
    console = Console(width=100, file=io.StringIO())
    for part in history_tables(found):
        console.print(part)
    text = console.file.getvalue()
    assert "…" not in text
    assert "line 8" in text
    assert "line 3" not in text.split("looks at report prompts")[0]
    assert "8 looks at report prompts, 8 of them with rates (the last 5 are shown)." in text
    assert " ".join(found.verdict.split()) in re.sub(r"\s+", " ", text)
