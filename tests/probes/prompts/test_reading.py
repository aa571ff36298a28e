"""Files of every encoding and line end are read alike, and a line is never split where none ends."""

import codecs
import csv
import io
import json

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from vlsurgery.probes.prompts.reading import json_entries, json_lines, lines, read_text, table
from vlsurgery.surgery.errors import SurgeryError

FUZZ = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"))
ENCODINGS = {
    "utf-8": b"",
    "utf-8-sig": b"",
    "utf-16-le": codecs.BOM_UTF16_LE,
    "utf-16-be": codecs.BOM_UTF16_BE,
    "utf-32-le": codecs.BOM_UTF32_LE,
    "utf-32-be": codecs.BOM_UTF32_BE,
}


@pytest.mark.parametrize("encoding", ENCODINGS)
@FUZZ
@given(text=TEXT)
def test_an_encoding_is_known_by_its_mark(write, encoding, text):
    text = text.lstrip("\ufeff")
    path = write("a.txt", ENCODINGS[encoding] + text.encode(encoding))
    assert read_text(path) == text


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_end_as_files_do_and_nowhere_else(write, end):
    inner = "one\u2028line\x0cwith\x1c\x85\u2029all\x0b"
    assert list(lines(write("a.txt", end.join([inner, "", "two"])))) == [(1, inner), (3, "two")]


@FUZZ
@given(
    rows=st.lists(st.lists(TEXT.filter(lambda text: "\r" not in text), min_size=2, max_size=2), max_size=5),
    delimiter=st.sampled_from(",;\t"),
    end=st.sampled_from(["\n", "\r\n"]),
)
def test_a_table_is_what_the_csv_module_wrote(write, rows, delimiter, end):
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, delimiter=delimiter, lineterminator=end)
    writer.writerow(["id", "Prompt"])
    expected = []
    for row in rows:
        expected.append((1 + buffer.getvalue().count("\n"), [cell.strip() for cell in row]))
        writer.writerow(row)
    found = table(write("a.csv", buffer.getvalue().encode()), ["prompt"])
    assert [(line, list(cells.values())) for line, cells in found] == expected


def test_lines_of_a_table_are_those_of_the_file(write):
    path = write("a.csv", b'prompt\r\n"one\r\nmore"\r\n\r\nthree\r\n')
    assert list(table(path, ["prompt"])) == [(2, {"prompt": "one\r\nmore"}), (5, {"prompt": "three"})]


def test_a_tab_separated_file_keeps_commas_and_semicolons(write):
    path = write("a.tsv", "prompt\tanswer\nyes, no; maybe\tx\n")
    assert list(table(path, ["prompt"])) == [(2, {"prompt": "yes, no; maybe", "answer": "x"})]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@FUZZ
@given(st.lists(VALUES) | st.dictionaries(st.text(), VALUES), st.sampled_from([None, 1]), st.booleans())
def test_entries_are_those_of_the_json_module_each_at_its_line(write, value, indent, escaped):
    text = json.dumps(value, indent=indent, ensure_ascii=escaped)
    if any("\ud800" <= letter <= "\udfff" for letter in text) or "\0" in text:
        return
    found = list(json_entries(write("a.json", text)))
    named = value.items() if isinstance(value, dict) else ((str(at), each) for at, each in enumerate(value))
    assert [(key, each) for _, key, each in found] == list(named)
    for line, key, each in found:
        start = json.dumps(each, indent=indent, ensure_ascii=escaped).split("\n")[0]
        at = text.split("\n")[line - 1]
        assert start in at
        assert isinstance(value, list) or json.dumps(key, ensure_ascii=escaped) in at


def test_json_lines_are_numbered_as_the_file(write):
    assert list(json_lines(write("a.jsonl", '1\r\n\n{"a": "\u2028"}'))) == [(1, 1), (3, {"a": "\u2028"})]


@pytest.mark.parametrize(
    ("content", "line", "byte"),
    [
        (b"fine\nna\xefve\n", 2, 8),
        (b"a\r\nb\rc\n\xff", 4, 8),
        (codecs.BOM_UTF16_LE + "a\nb".encode("utf-16-le") + b"\x00\xd8", 2, 9),
        (b"\xed\xa0\x80", 1, 1),
    ],
)
def test_another_encoding_is_named_with_its_place_and_how_to_convert_it(write, content, line, byte):
    with pytest.raises(SurgeryError, match=rf"a\.txt, line {line}: not UTF-.*byte {byte} .*iconv -f"):
        read_text(write("a.txt", content))
