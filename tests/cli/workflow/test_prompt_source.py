"""Which prompts a case is asked, when files take the place of the package's own."""

from collections import defaultdict
from pathlib import Path

import pytest

from vlsurgery.cli.workflow.case import Case
from vlsurgery.cli.workflow.prompt_source import SEED, PromptSource, prompt_source_of
from vlsurgery.probes.prompts import english_prompts
from vlsurgery.surgery.checkpoint import Checkpoint

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
    assert [p.text for p in source.prompts if p.set == "borderline"] == ["a question"]
    others = [p.id for p in OWN if p.set != "borderline"]
    assert [p.id for p in source.prompts if p.set != "borderline"] == others
    assert source.notes == []


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


@pytest.mark.parametrize(
    ("files", "advice"),
    [
        ({"harmful": "a deed"}, "FILE:harmless"),
        ({"harmless": "a deed"}, "FILE:harmful"),
        ({"harmful": "a deed", "harmless": "a good deed"}, None),
        ({"jailbroken": "a deed"}, None),
    ],
)
def test_a_contrast_of_two_sources_is_said(case: Case, files: dict[str, str], advice: str | None) -> None:
    notes = given(case, **files).notes
    assert [note.rpartition(" ")[2] for note in notes] == ([advice] if advice else [])
    assert all("tell topic and style apart" in note for note in notes)
