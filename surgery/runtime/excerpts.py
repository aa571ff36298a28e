"""Values from elsewhere in a message: as much as fits a line, whatever their size."""

from reprlib import Repr
from typing import Final

MAX_BITS: Final = 256


class _Excerpt(Repr):
    """Spells no more of a value than it shows: of a large integer its length, which Python refuses to spell."""

    def repr_int(self, value: int, level: int) -> str:  # noqa: ARG002
        bits = value.bit_length()
        return repr(value) if bits <= MAX_BITS else f"an integer of {bits} bits"


def excerpt(value: object, length: int = 80) -> str:
    """The beginning of a value's repr, at most `length` characters; the rest of it is never built."""
    spelling = _Excerpt()
    spelling.maxlevel, spelling.maxstring, spelling.maxother = 3, length, length
    spelling.maxdict = spelling.maxlist = spelling.maxtuple = spelling.maxset = 6
    text = spelling.repr(value)
    return text if len(text) <= length else f"{text[: length - 1]}…"
