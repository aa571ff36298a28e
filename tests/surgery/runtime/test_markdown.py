"""Names and notes stand in Markdown as they are."""

import html
import re

import pytest
from hypothesis import given, strategies as st

from vlsurgery.surgery.runtime.markdown import code, plain

HOSTILE = [
    "<script>alert(1)</script>",
    "a`<img src=x onerror=alert(1)>`b",
    "``` <b>",
    "a | b | c",
    "[click](javascript:alert(1))",
    "![x](https://example.org/x.png)",
    "https://example.org and www.example.org and a@example.org",
    "&lt;b&gt;",
    "\\<b>",
    "\\`<b>`",
    "line\n\n# heading\n<hr>",
    "\x1b[31m red \u202e back",
    "# heading",
    "~~gone~~ **bold** _slanted_",
]


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("spell", [plain, code])
def test_nothing_in_it_is_markup(text: str, spell: object) -> None:
    shown = spell(text)  # type: ignore[operator]
    bare = shown.removeprefix("<code>").removesuffix("</code>") if shown.startswith("<code>") else shown
    inner = bare[1:-1] if bare.startswith("`") else bare
    assert not re.search(r"[<>`|\\\n\x1b\u202e]", inner)
    assert inner == bare[1:-1] or not re.search(r"[\[\]*]|://", inner)


@given(st.text(st.characters(categories=["L", "N", "P", "S", "Zs"]), max_size=40))
def test_a_reader_sees_the_text(text: str) -> None:
    line = " ".join(text.split())
    assert html.unescape(plain(text)) == html.unescape(plain(line))
    if "&" not in line:
        assert html.unescape(plain(text)) == line


def test_ordinary_names_stay_as_they_are() -> None:
    assert code("models/llava-1.5_7b") == "`models/llava-1.5_7b`"
    assert plain("text.3.mlp.gate: self_attn of model-2 is left out.") == (
        "text.3.mlp.gate: self_attn of model-2 is left out."
    )
