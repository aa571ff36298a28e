"""Text of models, prompts and file names made safe to print."""

import unicodedata

KEPT = "\n\t\u200c\u200d"  # line ends, tabs, and the joiners of emoji and of some scripts


def visible(text: str) -> str:
    """The text with every control and formatting character (escape sequences, bells, text direction) as an escape
    such as \\x1b or \\u202e; line ends, tabs and joiners stay."""
    if text.isprintable():
        return text
    return "".join(letter if letter in KEPT else _escaped(letter) for letter in text)


def _escaped(letter: str) -> str:
    # Categories: Cc control, Cf format, Cs lone surrogate, Zl and Zp line and paragraph separators.
    if unicodedata.category(letter) not in ("Cc", "Cf", "Cs", "Zl", "Zp"):
        return letter
    return letter.encode("unicode_escape").decode("ascii")
