"""Text of models is shown, never obeyed."""

import unicodedata

from hypothesis import given, strategies as st

from vlsurgery.surgery.runtime.visible import KEPT, visible


@given(st.text())
def test_no_control_or_formatting_character_is_left(text: str) -> None:
    shown = visible(text)
    assert not {unicodedata.category(letter) for letter in shown if letter not in KEPT} & {
        "Cc",
        "Cf",
        "Cs",
        "Zl",
        "Zp",
    }
    shown.encode("utf-8")


@given(st.text(st.characters(categories=["L", "N", "P", "S", "Zs"])))
def test_ordinary_text_stays(text: str) -> None:
    assert visible(text) == text


def test_escapes_can_be_read() -> None:
    assert visible("a\x1b[31mb\u202ec\r\n") == "a\\x1b[31mb\\u202ec\\r\n"
    assert visible("naïve 日本 \u200dtab\t") == "naïve 日本 \u200dtab\t"
