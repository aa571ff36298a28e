"""YAML that would take all memory or time, or make objects, is refused at once and in one line."""

import contextlib
import math
import os
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import given, strategies as st

from vlsurgery.surgery.runtime.bounded_yaml import MAX_NODES, load_yaml
from vlsurgery.surgery.runtime.excerpts import excerpt
from vlsurgery.surgery.runtime.regular_file import read_regular

BOMB = "a0: &a0 [1, 1]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 60))
ATTACKS = {
    "aliases that explode": (BOMB, "more than"),
    "merge keys that explode": (
        "m0: &m0 {a: 1}\n" + "".join(f"m{i}: &m{i} {{<<: [*m{i - 1}, *m{i - 1}]}}\n" for i in range(1, 40)),
        "more than",
    ),
    "an alias of itself": ("a: &a [1, *a]", "inside of what it names"),
    "an alias of nothing": ("a: *b", "undefined alias"),
    "nesting": ("a: " + "[" * 500 + "]" * 500, "nested deeper"),
    "nested blocks": ("".join(" " * i + "a:\n" for i in range(500)), "nested deeper"),
    "code": ("a: !!python/object/apply:os.system [echo]", "the tag"),
    "a type": ("a: !!int ''", "the tag"),
    "a time": ("a: !!timestamp x", "the tag"),
    "another's tag": ("a: !mine x", "the tag"),
    "a number of many digits": ("a: " + "9" * 5000, "4300"),
    "a long hexadecimal number": ("a: 0x" + "f" * 9000, "more than 64 bits"),
    "a number to base 60": ("a: 1" + ":59" * 3000, "more than 64 bits"),
    "a long value": ("a: " + "x" * 100_000, "more than 10000"),
    "a key twice": ("a: 1\na: 2", "occurs twice"),
    "no such day": ("a: 2001-99-99", "month"),
    "two documents": ("a: 1\n---\nb: 2", "single document"),
    "a mapping as a key": ("? {a: 1}\n: 2", "unhashable"),
    "a control character": ("a: \x00", "not allowed"),
}


@pytest.mark.parametrize("attack", ATTACKS, ids=str)
def test_attacks_are_refused_at_once(attack: str) -> None:
    text, words = ATTACKS[attack]
    began = time.perf_counter()
    with pytest.raises(ValueError, match=words) as caught:
        load_yaml(text)
    assert time.perf_counter() - began < 2
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_few_aliases_are_as_good_as_writing_it_twice() -> None:
    data, _ = load_yaml("a: &a {weight: 0.5}\nb: *a\nc: [*a, *a]\nd: !!str 3")
    half = {"weight": 0.5}
    assert data == {"a": half, "b": half, "c": [half, half], "d": "3"}


def test_what_aliases_stand_for_counts_each_time() -> None:
    row = ", ".join(["1"] * 1000)
    wanted = MAX_NODES // 1001
    load_yaml(f"a: &a [{row}]\nb: [{', '.join(['*a'] * (wanted - 3))}]")
    with pytest.raises(ValueError, match="more than"):
        load_yaml(f"a: &a [{row}]\nb: [{', '.join(['*a'] * (wanted + 1))}]")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats() | st.text(max_size=20),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
        max_leaves=10,
    )
)
def test_it_reads_what_the_library_writes(value: object) -> None:
    text = yaml.safe_dump(value)
    found, _ = load_yaml(text)
    assert repr(found) == repr(yaml.safe_load(text))


@given(st.text(st.sampled_from("ab:-[]{}&*!?|>%@`'\"#,.<0 \n\t1é\u2028"), max_size=60))
def test_noise_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(ValueError):
        load_yaml(text)


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path):
        with pytest.raises(OSError, match=r"not a regular file|directory"):
            read_regular(path, 100)
    (tmp_path / "large").write_bytes(b"x" * 101)
    with pytest.raises(OSError, match="larger than"):
        read_regular(tmp_path / "large", 100)
    (tmp_path / "link").symlink_to("fitting")
    (tmp_path / "fitting").write_bytes(b"x" * 100)
    assert read_regular(tmp_path / "link", 100) == b"x" * 100


@pytest.mark.parametrize(
    "value",
    [1, "x" * 10**6, list(range(10**5)), 16**9000, {"a": {"b": {"c": {"d": 1}}}}, True, None, math.nan, b"x" * 10**6],
    ids=lambda value: type(value).__name__,
)
def test_excerpts_are_short(value: object) -> None:
    assert 0 < len(excerpt(value, 60)) <= 60


def test_an_excerpt_of_a_bomb_is_short_and_quick() -> None:
    bomb: list[object] = [1]
    for _ in range(60):
        bomb = [bomb, bomb]
    assert len(excerpt(bomb)) <= 80


def test_short_values_are_spelt_whole() -> None:
    assert [excerpt(each) for each in ("a'b", 3, 0.5, True, None, ["a", 1])] == [
        '"a\'b"', "3", "0.5", "True", "None", "['a', 1]"
    ]  # fmt: skip
