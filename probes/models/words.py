"""A user's text in which names of special tokens stay words."""

from typing import Any

_KINDS = ("image", "video", "audio")
# Where configs tell the ids behind which a model puts pictures, films and sounds; Aya's are not its template's token.
PLACEHOLDER_IDS = tuple(f"{kind}_token_{end}" for kind in _KINDS for end in ("id", "index"))
# What processors replace in a text, or set around a picture.
_MARKS = ("boi_token", "eoi_token", "image_break_token", "image_end_token", "fake_image_token", "vision_start_token")


def placeholders(processor: Any | None) -> list[str]:
    """The tokens that stand for a picture, a film or a sound in a prompt."""
    found = (getattr(processor, f"{kind}_token", None) for kind in _KINDS)
    names = (getattr(token, "content", token) for token in found)  # an AddedToken, or its name
    return [name for name in names if isinstance(name, str) and name]


def as_words(text: str, tokenizer: Any, processor: Any | None) -> str:
    """The text with a space in every word that would be read as a special token ("< |im_end|>", "< image>").

    So a user's words can't end their own turn, nor stand for a picture. What people are shown is not changed by it.
    """
    special = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    own = {str(mark) for mark in (getattr(processor, name, None) for name in _MARKS) if mark}
    marks = {token for token in special | own if len(token) > 1 and not token[0].isalnum() and not token.isspace()}
    for token in sorted(marks.union(placeholders(processor)), key=lambda token: (-len(token), token)):
        text = text.replace(token, f"{token[0]} {token[1:]}")
    return text
