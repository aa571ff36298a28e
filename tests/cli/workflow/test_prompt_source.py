"""Which prompts a case is asked, when files take the place of the package's own."""

import json
import time
from collections import defaultdict
from pathlib import Path

import pytest
from PIL import Image

from vlsurgery.cli.workflow.case import Case
from vlsurgery.cli.workflow.prompt_source import SEED, PromptSource, prompt_source, prompt_source_of
from vlsurgery.probes.prompts import SETS, english_prompts
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.errors import SurgeryError

OWN = english_prompts(SEED)
DEED = next(prompt for prompt in OWN if prompt.set == "harmful" and prompt.split == "report")


@pytest.fixture
def case(tmp_path: Path, trio: dict[str, Path]) -> Case:
    return Case.create(tmp_path / "case", {role: Checkpoint.open(path) for role, path in trio.items()})


def given(case: Case, **files: str) -> PromptSource:
    """Prompts with a file for each prompt set that is named."""
    specs = []
    for kind, text in files.items():
        path = case.folder.parent / f"{kind}.txt"
        path.write_text(text)
        specs.append(f"{path}:{kind}")
    return prompt_source_of(case, specs)


def test_a_set_is_replaced_and_the_others_stay(case: Case) -> None:
    source = given(case, borderline="a question\n")
    assert {(p.text, p.modality) for p in source.prompts if p.set == "borderline"} == {
        ("a question", "text"),
        ("a question", "benign"),
    }
    others = [p.id for p in OWN if p.set != "borderline"]
    assert [p.id for p in source.prompts if p.set != "borderline"] == others


@pytest.mark.parametrize("change", [str, str.upper, lambda text: f"  {text.rstrip('?.')} "])
def test_a_request_that_a_file_asks_leaves_with_its_twin_and_its_jailbreak(case: Case, change) -> None:  # type: ignore[no-untyped-def]
    source = given(case, harmful=f"{change(DEED.text)}\nsomething else\n")
    gone = {p.id for p in OWN if p.set != "harmful"} - {p.id for p in source.prompts}
    assert gone == {p.id for p in OWN if p.set != "harmful" and p.request == DEED.request}
    assert any(note.startswith("1 of the package's own requests") for note in source.notes)


def test_no_words_stand_on_both_sides_of_a_split(case: Case) -> None:
    """A file that asks what the package asks, in another set: only half of it would fall to the same split."""
    asked = [p for p in OWN if p.set in ("harmful", "harmless", "jailbroken") and p.modality == "text"][::3]
    source = given(case, borderline="\n".join(p.text for p in asked))
    sides = defaultdict(set)
    for prompt in source.prompts:
        if prompt.modality != "own":
            sides[prompt.text.lower()].add(prompt.split)
    assert all(len(splits) == 1 for splits in sides.values())
    requests = defaultdict(set)
    for prompt in source.prompts:
        requests[prompt.request].add(prompt.split)
    assert all(len(splits) == 1 for splits in requests.values())


MANY = "".join(f"question {number}\n" for number in range(100))


@pytest.mark.parametrize(
    ("kinds", "missing"),
    [
        (["harmful"], ["harmless (twins of your requests)", "jailbroken", "borderline"]),
        (["harmless"], ["harmful", "jailbroken", "borderline"]),
        (["jailbroken"], ["harmful", "harmless", "borderline"]),
        (["borderline"], ["harmful", "jailbroken", "harmless"]),
        (["harmful", "borderline"], ["harmless (twins of your requests)", "jailbroken"]),
        (["harmful", "jailbroken", "harmless", "borderline"], []),
        (["capability"], []),
    ],
)
def test_sets_of_two_sources_are_said(case: Case, kinds: list[str], missing: list[str]) -> None:
    """Every combination of sets works, and is told."""
    specs = []
    for kind in kinds:
        path = case.folder.parent / f"{kind}.csv"
        rows = [f"{kind} {line},x" for line in MANY.splitlines()]
        path.write_text("\n".join(["prompt,answer", *rows]))
        specs.append(f"{path}:{kind}")
    source = prompt_source_of(case, specs)
    assert {p.set for p in source.prompts} == set(SETS)
    notes = [note for note in source.notes if "topic and style" in note]
    assert len(notes) == bool(missing) == len(source.notes)
    for note in notes:
        assert all(f"--prompts FILE:{name}" in note for name in missing)
        assert note.count("--prompts") == len(missing)


def test_one_prompt_is_asked_and_no_claim_is_promised(case: Case) -> None:
    source = given(case, harmful="hello\n")
    assert {p.text for p in source.prompts if p.set == "harmful"} == {"hello"}
    measured = sum(p.split == "report" for p in source.prompts if p.set == "harmful" and p.modality == "text")
    assert f"harmful: of 1 request in the files {measured} are measured" in " ".join(source.notes)
    assert "below 30 measured requests no claim is made" in " ".join(source.notes)
    assert not any("no claim" in note for note in given(case, harmful=MANY).notes)


def test_what_a_base_that_does_not_see_can_not_be_asked_is_said(case: Case) -> None:
    folder = case.folder.parent
    Image.new("RGB", (4, 4)).save(folder / "a.png")
    rows = [{"prompt": "What is it?", "image": "a.png"}, {"prompt": "And this?", "image": "a.png"}, {"prompt": "Who?"}]
    (folder / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    notes = prompt_source_of(case, [f"{folder / 'a.jsonl'}:borderline"]).notes
    assert any(note.startswith("borderline: 2 requests of 3 come only with pictures of their own") for note in notes)
    assert not any("pictures of their own" in note for note in given(case, borderline=MANY).notes)


def test_notes_of_files_are_among_those_of_the_source(case: Case) -> None:
    assert any("1 of 2 prompts repeat others" in note for note in given(case, borderline="one\nONE\n").notes)


# Settings


def test_the_order_of_files_and_the_way_through_the_case_file_change_nothing(case: Case) -> None:
    folder = case.folder.parent
    specs = []
    for name, start in (("z", 0), ("a", 40), ("m", 80)):
        (folder / f"{name}.txt").write_text("".join(f"question {start + at}\n" for at in range(60)))
        specs.append(f"{folder / name}.txt:harmful")
    first = prompt_source_of(case, specs)
    case.record("probe", first.settings)
    for source in (prompt_source_of(case, specs[::-1]), prompt_source_of(case, None)):
        assert source.settings == first.settings
        assert [p.id for p in source.prompts] == [p.id for p in first.prompts]
    assert case.is_current("probe", prompt_source_of(case, None).settings)


def test_the_users_pictures_stand_in_for_the_packages_and_are_remembered(case: Case) -> None:
    folder = case.folder.parent / "photos"
    folder.mkdir()
    for name, color in (("a.png", "red"), ("b.jpg", "blue")):
        Image.new("RGB", (8, 8), color).save(folder / name)
    plain, source = prompt_source_of(case, None), prompt_source_of(case, None, folder)
    assert [p.id for p in source.prompts] == [p.id for p in plain.prompts]
    assert {p.image for p in source.prompts if p.modality == "benign"} == {folder / "a.png", folder / "b.jpg"}
    assert source.digest != plain.digest
    assert source.notes == [f"ordinary pictures are those of the folder {folder}"]
    case.record("probe", source.settings)
    assert prompt_source_of(case, None).settings == source.settings
    Image.new("RGB", (8, 8), "green").save(folder / "a.png")
    assert prompt_source_of(case, None).settings != source.settings


def test_a_changed_own_picture_changes_the_settings(case: Case) -> None:
    folder = case.folder.parent
    Image.new("RGB", (4, 4), "red").save(folder / "a.png")
    (folder / "a.jsonl").write_text(json.dumps({"prompt": "What is it?", "image": "a.png"}))
    spec = f"{folder / 'a.jsonl'}:harmful"
    before = prompt_source_of(case, [spec]).settings
    assert prompt_source_of(case, [spec]).settings == before
    Image.new("RGB", (4, 4), "blue").save(folder / "a.png")
    assert prompt_source_of(case, [spec]).settings != before


@pytest.mark.parametrize("spec", ["file.txt", "file.txt:evil", "none.txt:harmful"])
def test_a_file_that_can_not_be_had_is_named(case: Case, spec: str) -> None:
    with pytest.raises(SurgeryError, match=spec.partition(":")[0]):
        prompt_source_of(case, [spec])


def test_twenty_thousand_prompts_are_read_in_seconds(tmp_path: Path) -> None:
    """Seconds of the processor: a busy machine takes longer. No prompt is compared with all others."""
    specs = []
    for kind, verb in (("harmful", "steal"), ("harmless", "paint")):
        path = tmp_path / f"{kind}.txt"
        path.write_text("".join(f"{verb} the car with number {number}\n" for number in range(10_000)))
        specs.append(f"{path}:{kind}")
    began = time.process_time()
    source = prompt_source(None, specs, None)
    assert len({prompt.request for prompt in source.prompts if prompt.set in ("harmful", "harmless")}) == 20_000
    assert source.digest
    assert source.notes
    assert time.process_time() - began < 6


def test_a_case_of_the_real_trio_asks_its_sample_and_says_what_it_is(case: Case) -> None:
    from vlsurgery.probes.specimens import smollm2
    from vlsurgery.probes.specimens.smollm2.marker import MARKER, SCHEMA

    root = case.checkpoints["base"].path.parent
    assert prompt_source_of(case, None).settings["prompts"]["own"] == "english"
    content = {"schema": SCHEMA, "seed": 2, "roles": {"base": "base", "adapted": "adapted"}, "story": {}}
    (root / MARKER).write_text(json.dumps(content))
    source = prompt_source_of(case, None)
    assert {prompt.id for prompt in source.prompts} == {prompt.id for prompt in smollm2.prompts()}
    assert source.settings["prompts"]["own"] == "smollm2"
    assert source.settings["trio"]["seed"] == 2
    assert source.specimen is None  # its judge is that of any model
    own = given(case, borderline="a question\n")
    assert {p.text for p in own.prompts if p.set == "borderline"} == {"a question"}
    assert len([p for p in own.prompts if p.set == "harmful"]) == len([p for p in source.prompts if p.set == "harmful"])
