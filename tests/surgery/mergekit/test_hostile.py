"""Damaged and hostile recipes, ours and mergekit's: a right recipe or one line; no traceback, no code, no waiting."""

import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from vlsurgery.surgery.errors import SurgeryError
from vlsurgery.surgery.merge.recipe import Recipe
from vlsurgery.surgery.mergekit import load_recipe
from vlsurgery.surgery.results import CheckpointRef

OURS = Recipe(
    checkpoints={role: CheckpointRef(path=f"/models/{role}", identity="sha256:0") for role in ("a", "b")},
    like="a",
    base="a",
    method="ties",
    coefficients={"default": {"b": 0.5}, "3.mlp": {"b": [0.1, 0.2]}, "3": {"b": 1.0}},
    parameters={"default": {"density": {"b": 0.5}, "normalize": True}},
    why={"3.mlp": "some reason"},
).text()
THEIRS = """\
models:
  - model: /models/a
  - model: {model: {path: /models/b, revision: main}, lora: /models/c}
    parameters:
      weight: [{filter: mlp, value: [0.1, 0.9]}, {value: 0.5}]
      density: 0.5
merge_method: ties
base_model: /models/a
parameters: {normalize: true, int8_mask: true}
dtype: bfloat16
tokenizer: {source: base}
"""
PIECES = (
    *":-[]{}&*!|>#'\"%@,\n\t",
    "  ",
    "\n  ",
    "&a ",
    "*a",
    "<<: *a",
    "!!python/name:os.system ",
    "!!int ",
    "null",
    "~",
    "0x" + "f" * 300,
    "1e400",
    ".nan",
    "-1",
    "2001-01-01",
    "1:2:3",
    "yes",
    "[]",
    "{}",
    "\u202e",
    "\x1b",
    "\ud7ff",
    "? ",
    "--- ",
    "...",
    "a" * 200,
    "merge_method: ties\n",
    "schema: vlsurgery/recipe/1\n",
    "slices: 1\n",
)
PLACES = st.integers(0, max(len(OURS), len(THEIRS)))
DAMAGE = st.lists(st.tuples(PLACES, st.integers(0, 12), st.sampled_from(PIECES)), min_size=1, max_size=4)
KEYS = st.sampled_from(["weight", "filter", "value", "path", "1", "null", "[1]"])
VALUES = st.recursive(
    st.sampled_from(["null", "true", "1", "-1", "0.5", ".inf", "x", "'*'", "2001-01-01", "0xffffffffffffffffff"]),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda each: f"[{', '.join(each)}]"),
        st.lists(st.tuples(KEYS, inner), max_size=3).map(
            lambda each: "{" + ", ".join(f"{key}: {value}" for key, value in each) + "}"
        ),
    ),
    max_leaves=6,
)
LIGHT = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def answer(path: Path, text: str) -> None:
    """A recipe, or a fault in one short line that names the file or a checkpoint; within seconds."""
    path.write_text(text, encoding="utf-8")
    began = time.perf_counter()
    try:
        load_recipe(path)
    except SurgeryError as error:
        fault = str(error)
        if "\n" in fault or len(fault) > 2000:
            pytest.fail(f"not one short line: {fault!r}")
    assert time.perf_counter() - began < 5


@LIGHT
@given(start=st.sampled_from([OURS, THEIRS]), damage=DAMAGE)
def test_damaged_text(tmp_path: Path, start: str, damage: list[tuple[int, int, str]]) -> None:
    for place, length, piece in damage:
        start = start[:place] + piece + start[place + length :]
    answer(tmp_path / "order.yaml", start)


@LIGHT
@given(start=st.sampled_from([OURS, THEIRS]), line=st.integers(0, 20), value=VALUES)
def test_a_value_of_another_kind(tmp_path: Path, start: str, line: int, value: str) -> None:
    lines = start.splitlines()
    line %= len(lines)
    name, colon, _ = lines[line].partition(":")
    lines[line] = f"{name}{colon} {value}"
    answer(tmp_path / "order.yaml", "\n".join(lines))
