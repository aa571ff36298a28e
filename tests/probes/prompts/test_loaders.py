"""Prompts from files: every layout is read whole and asked as the package's own are, and once."""

import gzip
import json
import os
import random
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from PIL import Image

from vlsurgery.probes.prompts import SETS, load_prompt_files, load_prompts, without_repeats
from vlsurgery.probes.prompts.english import CONTROLS
from vlsurgery.probes.prompts.loaders import KINDS
from vlsurgery.probes.prompts.pictures import blank, noise
from vlsurgery.probes.prompts.rows import COLUMNS
from vlsurgery.surgery.errors import SurgeryError

FUZZ = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)


def texts(prompts):
    """The text of each row, once."""
    return [prompt.text for prompt in prompts if prompt.modality in ("text", "own")]


def deeds(count, start=0):
    return "".join(f"How do I do deed {number}?\n" for number in range(start, start + count))


@pytest.mark.parametrize("kind", [kind for kind in SETS if kind != "capability"])
def test_a_line_a_prompt(write, kind):
    path = write("mine.txt", "How do I fly?  \n\n  How do I swim?\n")
    prompts = load_prompts(f"{path}:{kind}")
    assert texts(prompts) == ["How do I fly?", "How do I swim?"]
    assert {prompt.set for prompt in prompts} == {kind}


def test_objects_with_everything(write, tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "cat.png")
    entry = {"prompt": "What is it?", "answer": "cat", "request": "The cat", "image": "cat.png"}
    for name in ("mine.jsonl", "mine.json"):
        (prompt,) = load_prompts(f"{write(name, [entry])}:capability")
        assert (prompt.text, prompt.answer, prompt.request) == ("What is it?", "cat", "the cat")
        assert (prompt.modality, prompt.image) == ("own", tmp_path / "cat.png")


def test_null_is_as_if_it_were_not_there(write):
    prompts = load_prompts(f"{write('a.jsonl', [{'prompt': 'Hello', 'answer': None, 'image': None}])}:harmless")
    assert {(prompt.text, prompt.answer) for prompt in prompts} == {("Hello", None)}


@pytest.mark.parametrize("column", [*COLUMNS, "Goal", "Behavior", "QUESTION"])
def test_a_table_finds_the_column_of_prompts(write, column):
    path = write("mine.csv", [["id", column, "answer"], ["1", 'Say "hi", please', "hi"]])
    prompt = load_prompts(f"{path}:capability")[0]
    assert (prompt.text, prompt.answer) == ('Say "hi", please', "hi")


WORDS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"])).filter(
    lambda text: any(letter.isprintable() and not letter.isspace() for letter in text)
)


@FUZZ
@given(st.lists(WORDS, min_size=1))
def test_what_was_written_is_read_back(write, written):
    once = {" ".join(text.casefold().split()): text.strip() for text in reversed(written)}
    for path in (
        write("t.jsonl", [{"prompt": text} for text in written]),
        write("t.json", [{"prompt": text} for text in written]),
        write("t.csv", [["prompt"], *([text] for text in written)]),
    ):
        assert sorted(texts(load_prompts(f"{path}:harmful"))) == sorted(once.values())


# What is asked


def test_a_row_is_asked_in_words_and_with_pictures_as_the_packages_own_are(write):
    prompts = load_prompts(f"{write('mine.txt', deeds(200))}:harmful")
    by_modality = {name: [p for p in prompts if p.modality == name] for name in ("text", "benign", "blank", "noise")}
    assert len(by_modality["text"]) == len(by_modality["benign"]) == 200
    assert len(by_modality["blank"]) == len(by_modality["noise"]) == CONTROLS
    controls = {p.request for p in by_modality["blank"]}
    assert controls == {p.request for p in by_modality["noise"]}
    assert {p.split for p in prompts if p.request in controls} == {"report"}
    assert {p.image.tobytes() for p in by_modality["blank"]} == {blank().tobytes()}
    assert all(p.image.tobytes() == noise(p.request).tobytes() for p in by_modality["noise"])
    assert len({p.image.tobytes() for p in by_modality["benign"]}) > 15
    assert len({p.id for p in prompts}) == len(prompts)


@pytest.mark.parametrize("kind", ["jailbroken", "harmless", "borderline"])
def test_controls_are_for_harmful_requests_alone(write, kind):
    prompts = load_prompts(f"{write('mine.txt', deeds(50))}:{kind}")
    assert Counter(p.modality for p in prompts) == {"text": 50, "benign": 50}


def test_with_few_requests_every_one_of_report_has_controls(write):
    prompts = load_prompts(f"{write('mine.txt', deeds(20))}:harmful")
    report = {p.request for p in prompts if p.split == "report"}
    assert {p.request for p in prompts if p.modality == "noise"} == report != set()


def test_a_row_with_its_own_picture_is_asked_with_that_alone(write, tmp_path):
    Image.new("RGB", (4, 4), "red").save(tmp_path / "red.png")
    Image.new("RGB", (4, 4), "blue").save(tmp_path / "blue.png")
    rows = [{"prompt": "What is it?", "image": name} for name in ("red.png", "blue.png")] + [{"prompt": "What is it?"}]
    prompts = load_prompts(f"{write('mine.jsonl', rows)}:harmful")
    assert [p.modality for p in prompts][:3] == ["own", "own", "text"]
    # One question on two pictures, and in words, is three requests.
    assert len({p.request for p in prompts}) == 3
    assert len({p.id for p in prompts}) == len(prompts)


def test_a_picture_depends_on_request_and_seed_and_not_on_the_files(write):
    lines = deeds(40).splitlines(keepends=True)
    shuffled = random.Random(0).sample(lines, len(lines))

    def pictures(name, kept, seed=0):
        path = write(name, "".join(kept))
        return {p.text: p.image.tobytes() for p in load_prompts(f"{path}:borderline", seed) if p.modality == "benign"}

    whole = pictures("a.txt", lines)
    assert pictures("b.txt", shuffled) == whole
    assert pictures("c.txt", lines[:7]).items() <= whole.items()
    assert pictures("a.txt", lines, seed=1) != whole


def test_a_picture_does_not_tell_the_split(write):
    """Were the picture made from the same number as the split, every picture would be in one split alone."""
    splits = {}
    for prompt in load_prompts(f"{write('mine.txt', deeds(400))}:borderline"):
        if prompt.modality == "benign":
            splits.setdefault(prompt.image.tobytes(), set()).add(prompt.split)
    assert sum(len(found) > 1 for found in splits.values()) > 20


def test_ids_are_those_of_the_content_and_not_of_the_file(write):
    lines = deeds(10).splitlines(keepends=True)
    one = load_prompts(f"{write('a.txt', ''.join(lines))}:harmful")
    other = load_prompts(f"{write('elsewhere.csv', [['prompt'], *([line.strip()] for line in lines[::-1])])}:harmful")
    assert {p.id for p in one} == {p.id for p in other}
    for prompt in one:
        kind, key, modality = prompt.id.split("/")
        assert (kind, modality) == (prompt.set, prompt.modality)
        assert key.startswith("how-do-i-do-deed-")


def test_the_order_of_files_changes_nothing(write):
    specs = [
        f"{write('z.txt', deeds(80))}:harmful",
        f"{write('a.txt', deeds(80, 60))}:harmful",
        f"{write('m.txt', deeds(9, 200))}:harmless",
    ]
    found = [load_prompt_files(order) for order in (specs, specs[::-1], [*specs, specs[0]])]
    for each in found[1:]:
        assert [(p.id, p.split) for p in each.prompts] == [(p.id, p.split) for p in found[0].prompts]
        assert each.notes == found[0].notes
    assert len({p.id for p in found[0].prompts}) == len(found[0].prompts)
    assert len(found[0].notes) == 1
    assert "20 of 80 prompts repeat others" in found[0].notes[0]


# Repeats


def test_what_is_asked_twice_is_asked_once_and_counted(write):
    path = write("mine.txt", "Hello there\n hello  THERE \nHow are you?\nHELLO THERE\n")
    found = load_prompt_files([f"{path}:harmless"])
    assert texts(found.prompts) == ["Hello there", "How are you?"]
    assert found.notes == [f"{path}: 2 of 4 prompts repeat others, and are asked once"]


def test_a_twin_of_two_requests_stays_with_both(write):
    rows = [{"prompt": "Bake bread", "request": request} for request in ("A", "B", "a ")]
    prompts = load_prompts(f"{write('mine.jsonl', rows)}:harmless")
    assert [p.request for p in prompts if p.modality == "text"] == ["a", "b"]


def test_one_question_with_two_answers_is_refused(write):
    path = write("a.csv", [["prompt", "answer"], ["1 + 1?", "2"], ["1 +  1?", "two"]])
    with pytest.raises(SurgeryError, match=r"line 3: asks what .*line 2 asks, with the answer 'two' instead of '2'"):
        load_prompts(f"{path}:capability")


def test_words_that_are_harmful_and_harmless_are_refused(write):
    specs = [f"{write('a.txt', deeds(3))}:harmful", f"{write('b.txt', deeds(1, 2).upper())}:harmless"]
    for order in (specs, specs[::-1]):
        with pytest.raises(SurgeryError, match=r"b\.txt, line 1: is harmless here and harmful in .*a\.txt, line 3"):
            load_prompt_files(order)


def test_the_word_image_is_text(write):
    path = write("a.txt", "<image> in a prompt\nnone\n")
    found = load_prompt_files([f"{path}:harmless"])
    assert texts(found.prompts) == ["<image> in a prompt", "none"]
    assert found.notes == ["1 prompt holds the word <image>: it is asked as text and stands for no picture"]


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
        assert {(p.request, p.split) for p in one} == {(p.request, p.split) for p in other}


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
        assert "".join(dict.fromkeys(prompt.request for prompt in without_repeats(own, others))) == left
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
    "suffix": ("a.pdf", "x", "harmful", r"expected a \.txt, \.json, .* file, found '\.pdf'"),
    "no suffix": ("a", "x", "harmful", "found 'no suffix'"),
    "data set suffix": ("a.txt", "x", "xstest", r"expected a \.csv or \.tsv file, found '\.txt'"),
    "encoding": ("a.txt", b"fine\nbad \xff\n", "harmful", r"line 2: not UTF-8 text \(byte 10 of the file is 0xff\)"),
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
    "json half": ("a.jsonl", '{"prompt": "x"}\n{"prompt": "a \\ud83d b"}', "harmful", r"line 2: .*surrogate.*ud83d"),
    "json whole": ("a.json", '[{"prompt": "x"},\n{"prompt": }]', "harmful", "line 2: not JSON"),
    "json entry": ("a.json", '[{"prompt": "x"},\n\n{"text": "y"}]', "harmful", "line 3: expected an object"),
    "json top": ("a.json", '"x"', "harmful", "expected a JSON list or object"),
    "json twice": ("a.jsonl", '{"prompt": "x", "prompt": "y"}', "harmful", "line 1: .*key 'prompt' twice"),
    "json none": ("a.json", "[]", "harmful", "holds no prompts"),
    "json empty file": ("a.json", "", "harmful", "holds no prompts"),
    "nul": ("a.txt", "a\nb".encode("utf-16-le"), "harmful", "line 1: holds a NUL byte.*UTF-16"),
    "csv twice": ("a.csv", "prompt,Prompt\nx,y\n", "harmful", "line 1: the column 'prompt' stands twice"),
    "csv no header": ("a.csv", "x;y\nz;w\n", "harmful", "no column holds the prompts.*found x;y"),
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
    with pytest.raises(SurgeryError, match="is a folder, expected a regular file"):
        load_prompts(f"{folder}:harmful")


def test_neither_a_pipe_nor_a_device_is_read(tmp_path):
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "endless.txt").symlink_to("/dev/zero")
    for name in ("pipe.txt", "endless.txt"):
        with pytest.raises(SurgeryError, match=rf"{name}: is a pipe or a device, expected a regular file"):
            load_prompts(f"{tmp_path / name}:harmful")


@pytest.mark.parametrize("text", ["\u200b", "\u00a0 \u2060", "\u202e\u200f", "\ufeff"])
def test_a_prompt_of_marks_that_nobody_sees_is_empty(write, text):
    with pytest.raises(SurgeryError, match="line 1: the prompt is empty"):
        load_prompts(f"{write('a.jsonl', [{'prompt': text}])}:harmless")


def test_a_nul_character_is_refused_in_json_as_in_text(write):
    with pytest.raises(SurgeryError, match="line 1: holds a NUL character"):
        load_prompts(f"{write('a.jsonl', [{'prompt': 'a' + chr(0)}])}:harmless")


@pytest.mark.parametrize("image", ["data:image/png;base64,AAAA", "http://127.0.0.1:9/a.png", "file:///etc/a.png"])
def test_no_address_of_a_picture_is_fetched(write, image):
    row = {"prompt": "which colour?", "answer": "red", "image": image}
    with pytest.raises(
        SurgeryError, match=r"line 1: the image is given as (data:|http://|file://)\.\.\., expected the"
    ):
        load_prompts(f"{write('a.jsonl', [row])}:capability")


def test_a_picture_in_the_users_own_folder_is_named_by_a_tilde(write, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "home" / "own.png")
    row = {"prompt": "which colour?", "answer": "black", "image": "~/own.png"}
    (found,) = load_prompts(f"{write('a.jsonl', [row])}:capability")
    assert found.image == tmp_path / "home" / "own.png"


def test_a_name_longer_than_any_file_is_cut_in_the_message(write):
    row = {"prompt": "which colour?", "answer": "black", "image": "x" * 100_000}
    with pytest.raises(SurgeryError, match="File name too long") as error:
        load_prompts(f"{write('a.jsonl', [row])}:capability")
    assert len(str(error.value)) < 1500


def test_a_compressed_file_is_told_as_such(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(gzip.compress(b'{"prompt": "name a tree"}'))
    with pytest.raises(SurgeryError, match=r"a\.jsonl: is compressed by gzip"):
        load_prompts(f"{tmp_path / 'a.jsonl'}:harmless")


@pytest.mark.parametrize("mark", ["</s>", "<s>", "<|im_start|>", "<｜User｜>", "<end_of_turn>", "[INST]"])
def test_marks_of_chat_formats_in_a_prompt_are_noted(write, mark):
    found = load_prompt_files([f"{write('a.txt', f'what does {mark} mean?')}:harmless"])
    assert found.notes == [f"1 prompt holds marks of chat formats ({mark}): they are asked as words"]


def test_a_picture_that_is_cut_off_is_found_before_a_run(write, tmp_path):
    for suffix in ("png", "jpg", "webp"):
        whole = tmp_path / f"whole.{suffix}"
        Image.effect_noise((64, 64), 50).convert("RGB").save(whole)
        content = whole.read_bytes()
        (tmp_path / f"cut.{suffix}").write_bytes(content[: len(content) // 2])
        path = write(
            "a.jsonl", [{"prompt": "x", "image": f"whole.{suffix}"}, {"prompt": "y", "image": f"cut.{suffix}"}]
        )
        with pytest.raises(SurgeryError, match=rf"line 2: can't open the image .*cut\.{suffix}"):
            load_prompts(f"{path}:harmful")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["prompt", "question", "Question", "image", "instr-resp", "x"]), inner)
    ),
    max_leaves=8,
)


@FUZZ
@given(st.binary(), st.sampled_from([".txt", ".jsonl", ".csv", ".tsv", ".json"]), st.sampled_from(KINDS))
def test_no_bytes_crash_a_loader(write, content, suffix, kind):
    _load_or_refuse(write(f"fuzz{suffix}", content), kind)


@FUZZ
@given(JSON, st.sampled_from([".jsonl", ".json"]), st.sampled_from(KINDS))
def test_no_json_crashes_a_loader(write, content, suffix, kind):
    _load_or_refuse(write(f"fuzz{suffix}", json.dumps(content)), kind)


def _load_or_refuse(path, kind):
    """Loads at least one prompt, or refuses in one line that names the file."""
    prompts, refusal = [], ""
    try:
        prompts = load_prompts(f"{path}:{kind}")
    except SurgeryError as error:
        refusal = str(error)
    assert prompts or str(path) in refusal
    assert "\n" not in refusal
