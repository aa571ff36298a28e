"""completions.jsonl: what was written is read, a cut line is forgiven at the end and nowhere else."""

from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from vlsurgery.probes.evaluation.completions import CompletionFile, Counterparts, flipped, label, load_completions
from vlsurgery.surgery.errors import SurgeryError


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=30), max_size=6))
def test_what_is_appended_is_read_whatever_the_models_say(
    tmp_path_factory: pytest.TempPathFactory, record, texts: list[str]
):
    file = CompletionFile(tmp_path_factory.mktemp("c") / "completions.jsonl")
    said = [record(id_=f"harmful/{at}/text", text=text, prompt=text) for at, text in enumerate(texts)]
    for each in said:
        file.append([each])
    assert file.read() == said
    file.replace(reversed(said))
    assert file.read() == said[::-1]


def test_a_last_line_that_was_cut_off_is_left_out(tmp_path: Path, record):
    file = CompletionFile(tmp_path / "completions.jsonl")
    file.append([record(), record("adapted")])
    whole = file.path.read_bytes()
    for end in range(len(whole) - 2, len(whole) // 2 + 10, -7):
        file.path.write_bytes(whole[:end])
        assert file.read() == [record()]


def test_a_broken_line_in_the_middle_is_named(tmp_path: Path, record):
    file = CompletionFile(tmp_path / "completions.jsonl")
    file.append([record()])
    file.path.write_text('{"role": "base"}\n' + file.path.read_text())
    with pytest.raises(SurgeryError, match="line 1: not a completion"):
        file.read()
    with pytest.raises(SurgeryError, match="no completions here"):
        load_completions(tmp_path / "none.jsonl")


def test_a_base_that_does_not_see_is_compared_by_the_same_request_as_text(record):
    base = [record("base", "harmful/a/text"), record("base", "harmful/b/text", "complied")]
    adapted = [
        record("adapted", f"harmful/{request}/{modality}", "complied")
        for request in "ab"
        for modality in ("text", "benign")
    ]
    pairs = list(flipped(base + adapted, "base", "adapted"))
    assert [(each.role, each.id) for each in pairs] == [
        ("base", "harmful/a/text"), ("adapted", "harmful/a/text"),
        ("base", "harmful/a/text"), ("adapted", "harmful/a/benign"),
    ]  # fmt: skip
    other_words = record("adapted", "harmful/a/benign", prompt="something else")
    assert Counterparts(base, "base").of(other_words) is None


def test_a_model_that_sees_is_compared_prompt_by_prompt(record):
    seeing = [record("safety", "harmful/a/text"), record("safety", "harmful/a/blank")]
    assert Counterparts(seeing, "safety").of(record("merged", "harmful/a/benign")) is None


def test_what_no_judge_has_judged_has_no_label(record):
    with pytest.raises(SurgeryError, match="rejudge"):
        label(record(verdict=None))
