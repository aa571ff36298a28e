"""A pattern fits what Python's own matcher says, in a bounded number of steps."""

import contextlib
import re
import time

import pytest
from hypothesis import given, settings, strategies as st

from vlsurgery.surgery.errors import CheckpointError
from vlsurgery.surgery.runtime.patterns import check_pattern, fits

PATHS = st.lists(st.sampled_from(["a", "b", "q_proj", "1", "23", "mlp"]), min_size=1, max_size=4).map(".".join)
ATOMS = st.sampled_from(["a", "b", ".", r"\.", r"\d", r"\w", "[ab]", "[^a.]", "[0-9]", "q_proj", "mlp", "^", "$"])
PATTERNS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map("".join),
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: f"({'|'.join(parts)})"),
        st.builds("(?:{}){}".format, inner, st.sampled_from(["*", "+", "?", "{2}", "{1,2}", "{,2}", "{1,}", "*?"])),
    ),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None)
@given(pattern=PATTERNS, path=PATHS)
def test_it_is_pythons_own_answer(pattern: str, path: str) -> None:
    assert fits(pattern, path) == bool(re.fullmatch(rf"(.*\.)?({pattern})", path))


@pytest.mark.parametrize(
    ("pattern", "path", "right"),
    [
        ("q_proj", "model.layers.0.q_proj", True),
        ("q_proj", "model.layers.0.xq_proj", False),
        ("q_proj", "q_proj", True),
        ("layers.0.self_attn.q_proj", "model.layers.0.self_attn.q_proj", True),
        (r"^model\.layers\.(0|1)\..*", "model.layers.1.mlp", True),
        (r"^layers\.(0|1)\..*", "model.layers.1.mlp", False),
        (r".*layers\.[0-9]+\.mlp\.(gate|up)_proj", "a.layers.17.mlp.up_proj", True),
        (r"(?P<side>q|k)_proj$", "a.k_proj", True),
    ],
)
def test_patterns_as_adapters_have_them(pattern: str, path: str, right: bool) -> None:
    assert fits(pattern, path) is right


@pytest.mark.parametrize("pattern", ["(a+)+b", "(a|a)*b", "(.*)*x", "(.*a){25}x", ".*" * 40 + "x", "((((a*)*)*)*)*b"])
def test_patterns_that_take_years_take_no_time(pattern: str) -> None:
    began = time.perf_counter()
    with contextlib.suppress(CheckpointError):  # "takes too long" is as good an answer
        assert not fits(pattern, "a" * 200)
    assert time.perf_counter() - began < 2


@pytest.mark.parametrize(
    "pattern",
    ["(", ")", "a)", "[a", "*a", "a**", "(?=a)", "(?i)a", r"(a)\1", r"\b", "a{2,1}", "a{9999}", "(" * 90, "a" * 5000,
     "[z-a]", "\\", "a++"],
)  # fmt: skip
def test_what_it_cannot_read_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        check_pattern(pattern)


@settings(max_examples=300, deadline=None)
@given(st.text(st.sampled_from("ab.*+?(){}[]|^$\\,12-d:P<>"), max_size=30), PATHS)
def test_noise_is_read_or_refused(pattern: str, path: str) -> None:
    try:
        check_pattern(pattern)
    except ValueError:
        return
    fits(pattern, path)
