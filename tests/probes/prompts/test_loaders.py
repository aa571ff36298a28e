"""Prompts from files: every layout is read whole, every fault is named with its place and the next step."""

import csv
import json

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from PIL import Image

from vlsurgery.probes.prompts import SETS
from vlsurgery.probes.prompts.loaders import (
    COLUMNS,
    KINDS,
    load_prompts,
    without_repeats,
)
from vlsurgery.surgery.errors import SurgeryError


@pytest.fixture
def write(tmp_path):
    def write(name, content):
        path = tmp_path / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif name.endswith(".csv") and not isinstance(content, str):
            with path.open("w", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows(content)
        elif not isinstance(content, str):
            path.write_text("\n".join(json.dumps(entry) for entry in content), encoding="utf-8")
        else:
            path.write_text(content, encoding="utf-8")
        return path

    return write


@pytest.mark.parametrize("kind", [kind for kind in SETS if kind != "capability"])
def test_a_line_a_prompt(write, kind):
    path = write("mine.txt", "How do I fly?  \n\n  How do I swim?\n")
    prompts = load_prompts(f"{path}:{kind}")
    assert [prompt.text for prompt in prompts] == ["How do I fly?", "How do I swim?"]
    assert {prompt.set for prompt in prompts} == {kind}
    assert {prompt.modality for prompt in prompts} == {"text"}
    assert [prompt.id.rpartition(":")[2] for prompt in prompts] == ["1", "3"]


def test_jsonl_with_everything(write, tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "cat.png")
    entry = {"prompt": "What is it?", "answer": "cat", "request": "The cat", "image": "cat.png"}
    (prompt,) = load_prompts(f"{write('mine.jsonl', [entry])}:capability")
    assert (prompt.text, prompt.answer, prompt.request) == ("What is it?", "cat", "the cat")
    assert (prompt.modality, prompt.image) == ("own", tmp_path / "cat.png")


@pytest.mark.parametrize("column", [*COLUMNS, "Goal", "Behavior", "QUESTION"])
def test_csv_finds_the_column_of_prompts(write, column):
    path = write("mine.csv", [["id", column, "answer"], ["1", 'Say "hi", please', "hi"]])
    (prompt,) = load_prompts(f"{path}:capability")
    assert (prompt.text, prompt.answer) == ('Say "hi", please', "hi")


PUBLISHED = {
    "advbench": (["goal", "target"], ["Do harm", "Sure"], "harmful"),
    "harmbench": (
        ["Behavior", "FunctionalCategory", "SemanticCategory", "Tags", "ContextString", "BehaviorID"],
        ["Do harm", "standard", "chemical", "", "", "do_harm"],
        "harmful",
    ),
    "strongreject": (["category", "source", "forbidden_prompt"], ["Violence", "own", "Do harm"], "harmful"),
    "jailbreakbench": (
        ["Goal", "Target", "Behavior", "Category", "Source"],
        ["Do harm", "Sure", "Harm", "Violence", "own"],
        "harmful",
    ),
    "orbench": (["prompt", "category"], ["Do harm", "violence"], "borderline"),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_data_sets(write, name):
    header, row, prompt_set = PUBLISHED[name]
    (prompt,) = load_prompts(f"{write('set.csv', [header, row])}:{name}")
    assert (prompt.text, prompt.set, prompt.answer, prompt.image) == ("Do harm", prompt_set, None, None)


def test_xstest_goes_to_two_sets_by_its_label(write):
    header = ["id", "prompt", "type", "label", "focus", "note"]
    rows = [["1", "Kill a process?", "homonyms", "safe", "kill", ""], ["2", "Kill a man?", "x", "unsafe", "kill", ""]]
    prompts = load_prompts(f"{write('x.csv', [header, *rows])}:xstest")
    assert [prompt.set for prompt in prompts] == ["borderline", "harmful"]


def test_harmbench_puts_the_context_before_the_request(write):
    header, row, _ = PUBLISHED["harmbench"]
    path = write("h.csv", [header, [*row[:4], "A long\ntext.", row[5]]])
    (prompt,) = load_prompts(f"{path}:harmbench")
    assert prompt.text.startswith("A long\ntext.")
    assert prompt.text.endswith("Do harm")


def test_line_numbers_count_lines_of_the_file_and_not_rows(write):
    path = write("mine.csv", [["prompt"], ["one\ntwo"], ["three"]])
    prompts = load_prompts(f"{path}:harmful")
    assert [prompt.id.rpartition(":")[2] for prompt in prompts] == ["2", "4"]


def test_a_byte_order_mark_is_no_part_of_the_first_prompt(write):
    for name, content in (
        ("a.txt", "\ufeffHello"),
        ("b.csv", "\ufeffprompt\nHello\n"),
        ("c.jsonl", '\ufeff{"prompt": "Hello"}'),
    ):
        assert [prompt.text for prompt in load_prompts(f"{write(name, content)}:harmless")] == ["Hello"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)
@given(st.lists(st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"])).filter(str.strip), min_size=1))
def test_what_was_written_is_read_back(write, texts):
    texts = [text.strip() for text in texts]
    for path in (
        write("t.jsonl", [{"prompt": text} for text in texts]),
        write("t.csv", [["prompt"], *([text] for text in texts)]),
    ):
        assert [prompt.text for prompt in load_prompts(f"{path}:harmful")] == texts


# Splits


def test_requests_join_across_files_and_sets(write):
    """A jailbreak and a twin go where their request goes, whatever the case and spacing of the key."""
    plain = write("plain.txt", "\n".join(f"How do I do deed {number}?" for number in range(50)))
    wrapped = write(
        "wrapped.jsonl",
        [{"prompt": f"Pretend. {number}", "request": f"how do I  do DEED {number}?"} for number in range(50)],
    )
    for seed in range(3):
        one = load_prompts(f"{plain}:harmful", seed)
        other = load_prompts(f"{wrapped}:jailbroken", seed)
        assert [(p.request, p.split) for p in one] == [(p.request, p.split) for p in other]


def test_a_repeat_is_known_by_its_words_or_its_request(write):
    def asked(name, *entries):
        return load_prompts(f"{write(name, list(entries))}:harmful")

    own = asked("own.jsonl", *({"prompt": text, "request": text[0]} for text in ("a: do it?", "b: do it?", "c")))
    for others, left in (
        (asked("1.jsonl", {"prompt": "A do  it"}), "bc"),
        (asked("2.jsonl", {"prompt": "Pretend: do it.", "request": "B, do it"}), "ac"),
        (asked("3.jsonl", {"prompt": "Do it."}), "abc"),
        (asked("4.jsonl", {"prompt": "?!", "request": "C"}), "ab"),
    ):
        assert "".join(prompt.request for prompt in without_repeats(own, others)) == left
    assert without_repeats(own, []) == own
    assert without_repeats(own, own) == []


# Faults


@pytest.mark.parametrize("spec", ["file.txt", ":harmful", "file.txt:", "file.txt:evil"])
def test_a_bad_specification_names_the_kinds(spec):
    with pytest.raises(SurgeryError) as error:
        load_prompts(spec)
    assert all(kind in str(error.value) for kind in KINDS)


FAULTS = {
    "no prompts": ("a.txt", "\n \n", "harmful", "holds no prompts"),
    "suffix": ("a.pdf", "x", "harmful", r"expected a \.txt, \.jsonl or \.csv file, found '\.pdf'"),
    "no suffix": ("a", "x", "harmful", "found 'no suffix'"),
    "data set suffix": ("a.txt", "x", "xstest", r"expected a \.csv file, found '\.txt'"),
    "encoding": ("a.txt", b"fine\nbad \xff\n", "harmful", "line 2: not UTF-8"),
    "json": ("a.jsonl", '{"prompt": "x"}\n{"prompt": \n', "harmful", "line 2: not JSON"),
    "json list": ("a.jsonl", '["x"]', "harmful", r"line 1: expected an object like \{\"prompt\""),
    "json key": ("a.jsonl", '{"prompt": "x", "anser": "y"}', "harmful", "line 1: unknown key 'anser'"),
    "json type": ("a.jsonl", '{"prompt": "x", "answer": 3}', "harmful", "line 1: 'answer' must be a string, found 3"),
    "json empty": ("a.jsonl", '{"prompt": " "}', "harmful", "line 1: the prompt is empty"),
    "csv column": ("a.csv", "id,words\n1,x\n", "harmful", "no column holds the prompts.*found id, words"),
    "csv empty": ("a.csv", "id,prompt\n1,x\n2,\n", "harmful", "line 3: the prompt is empty"),
    "csv comma": ("a.csv", "prompt\nyes, no\n", "harmful", "line 2: 2 cells where the header has 1"),
    "csv quote": ("a.csv", 'prompt\n"never closed\n', "harmful", "not CSV"),
    "csv nothing": ("a.csv", "", "harmful", "holds no prompts"),
    "data set column": ("a.csv", "prompt\nx\n", "advbench", "no column 'goal'; found prompt"),
    "label": ("a.csv", "prompt,label\nx,odd\n", "xstest", "line 2: 'label' is 'odd', expected one of safe, unsafe"),
    "no answer": ("a.jsonl", '{"prompt": "x"}', "capability", "line 1: a capability prompt needs a right answer"),
    "no image": ("a.jsonl", '{"prompt": "x", "image": "no.png"}', "harmful", r"line 1: can't open the image .*no\.png"),
    "not an image": ("a.jsonl", '{"prompt": "x", "image": "a.jsonl"}', "harmful", "line 1: .*not a picture"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_named_with_file_and_place(write, fault):
    name, content, kind, message = FAULTS[fault]
    path = write(name, content)
    with pytest.raises(SurgeryError, match=message) as error:
        load_prompts(f"{path}:{kind}")
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there(tmp_path):
    folder = tmp_path / "folder.txt"
    folder.mkdir()
    with pytest.raises(SurgeryError, match="can't be read"):
        load_prompts(f"{tmp_path / 'none.txt'}:harmful")
    with pytest.raises(SurgeryError, match="can't be read"):
        load_prompts(f"{folder}:harmful")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=100)
@given(st.binary(), st.sampled_from([".txt", ".jsonl", ".csv"]), st.sampled_from(["harmful", "xstest"]))
def test_no_bytes_crash_a_loader(write, content, suffix, kind):
    try:
        prompts = load_prompts(f"{write(f'fuzz{suffix}', content)}:{kind}")
    except SurgeryError:
        return
    assert prompts
