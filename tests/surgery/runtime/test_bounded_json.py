"""JSON from elsewhere: its value, or one short line, without waiting and without running out of stack."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from vlsurgery.surgery.runtime.bounded_json import MAX_DEPTH, parse_json, read_json_file

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(VALUES)
def test_what_is_written_is_read(value: object) -> None:
    assert parse_json(json.dumps(value)) == value


@pytest.mark.parametrize("opening", ["[", '{"a":', '[{"a":'])
@pytest.mark.parametrize("levels", [MAX_DEPTH + 1, 5000, 200_000])
def test_nesting_is_bounded(opening: str, levels: int) -> None:
    closing = "".join({"[": "]", "{": "}"}[letter] for letter in reversed(opening) if letter in "[{")
    with pytest.raises(ValueError, match="nested deeper"):
        parse_json(opening * levels + "1" + closing * levels)


def test_as_deep_as_is_allowed() -> None:
    assert parse_json("[" * MAX_DEPTH + "]" * MAX_DEPTH)


@pytest.mark.parametrize("text", ["", "{", '"\ud800', "[1,]", "9" * 5000, b"\xff\xfe\x00", '{"a" "b"}' + "x" * 10**6])
def test_what_is_none_is_one_short_line(text: str | bytes) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 -- of any wording, as json has many
        parse_json(text)
    assert len(str(caught.value)) < 300
    assert len(str(caught.value).splitlines()) == 1


def test_what_never_ends_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path):
        with pytest.raises(OSError, match=r"egular file|directory"):
            read_json_file(path)
    with (tmp_path / "large").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(OSError, match="larger than"):
        read_json_file(tmp_path / "large")
