"""Names and notes from elsewhere in Markdown: shown as they are, never obeyed."""

import re
from typing import Final

from vlsurgery.surgery.runtime.visible import visible

# What starts a tag, an entity, a link, code, emphasis, an escape, another cell, or a block.
_MARKUP: Final = re.compile(r"^[#+=-]|[<>&\[\]`*\\|~]|(?<!\w)_|_(?!\w)|(?<=:)//|(?<=www)\.|@")


def plain(text: str) -> str:
    """Text on one line, as text: no tag, link, emphasis, control or direction character is left in it."""
    return _MARKUP.sub(_entities, visible(" ".join(text.split())))


def code(text: str) -> str:
    """A name on one line, as code."""
    line = visible(" ".join(text.split()))
    if not re.search(r"[<>&`\\|]", line):
        return f"`{line}`"
    # Between backticks nothing can be escaped, and readers differ in what ends them.
    return f"<code>{plain(line)}</code>"


def _entities(match: re.Match[str]) -> str:
    return "".join(f"&#{ord(letter)};" for letter in match[0])
