"""README.ja.md says what README.md says: the same sections, commands, tables and numbers."""

import re
from collections import Counter
from pathlib import Path

import pytest

HOUSE = Path(__file__).parent.parent
TEXTS = {name: (HOUSE / name).read_text(encoding="utf-8") for name in ("README.md", "README.ja.md")}
ENGLISH, JAPANESE = TEXTS.values()
FENCE = re.compile(r"^```[^\n]*\n.*?^```", re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"[-+−]?\d*\.?\d+")


def sections(text: str) -> list[str]:
    """The text before the first heading, and each section, without fenced blocks."""
    return re.split(r"^## ", FENCE.sub("", text), flags=re.MULTILINE)


def tables(text: str) -> list[list[Counter[str]]]:
    """The numbers of every row of every table; those in code are no numbers."""
    plain = re.sub(r"`[^`]*`|\]\([^)]*\)", "", FENCE.sub("", text))
    return [
        [Counter(NUMBER.findall(row)) for row in found.splitlines()]
        for found in re.findall(r"(?:^\|.*\n)+", plain, re.M)
    ]


def test_both_have_the_same_blocks() -> None:
    assert FENCE.findall(JAPANESE) == FENCE.findall(ENGLISH)


def test_both_have_the_same_sections_with_as_many_items() -> None:
    ours, theirs = sections(ENGLISH), sections(JAPANESE)
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert len(re.findall(r"^- ", one, re.MULTILINE)) == len(re.findall(r"^- ", other, re.MULTILINE)), one[:40]


def test_their_tables_have_the_same_numbers() -> None:
    assert tables(JAPANESE) == tables(ENGLISH)


@pytest.mark.parametrize("at", range(len(sections(ENGLISH))))
def test_a_section_names_the_same_code_and_figures(at: int) -> None:
    """What a change of one text alone breaks: names in code, numbers with a point, and pages elsewhere."""
    for pattern in (r"`[^`]+`", r"\d*\.\d+", r"https?:[^)\s]+"):
        ours, theirs = (Counter(re.sub(r"\s+", " ", each) for each in re.findall(pattern, sections(text)[at]))
                        for text in (ENGLISH, JAPANESE))  # fmt: skip
        assert ours == theirs, sections(ENGLISH)[at].splitlines()[0]


def test_links_lead_somewhere_and_the_two_name_each_other() -> None:
    titles = re.findall(r"^#+ (.*)$", JAPANESE, re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
    assert set(re.findall(r"\]\(#([^)]*)\)", JAPANESE)) <= anchors
    for file in re.findall(r"\]\((?!#|http)([^)]*)\)", JAPANESE):
        assert (HOUSE / file).is_file()
    assert "(README.ja.md)" in ENGLISH.split("\n## ")[0]
    assert "(README.md)" in JAPANESE.split("\n## ")[0]


def test_no_line_ends_within_a_paragraph() -> None:
    """A line end between two Japanese letters is shown as a space."""
    assert not re.findall(r"[\u3040-\u30ff\u4e00-\u9fff、。]\n[\u3040-\u30ff\u4e00-\u9fff]", FENCE.sub("", JAPANESE))
