"""Sizes as people write and read them."""

import re
from typing import Final

from vlsurgery.surgery.errors import SurgeryError

UNITS: Final = {
    "": 1,
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}
SIZE: Final = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([a-z]*)\s*", re.IGNORECASE)


def parse_bytes(text: str) -> int:
    """The number of bytes in "20GiB", "800MB", "1.5 gb" or "4096".

    Raises SurgeryError for anything else, and for a size of 0.
    """
    found = SIZE.fullmatch(text)
    unit = None if found is None else UNITS.get(found[2].lower())
    if found is None or unit is None or (nbytes := int(float(found[1]) * unit)) <= 0:
        raise SurgeryError(f"{text!r} is no size. Write a number with its unit, as 20GiB or 800MB.")
    return nbytes


def in_words(nbytes: int) -> str:
    """A size as people read it: "13.48 GB", "0.3 MB", "512 bytes"."""
    if nbytes < 100_000:
        return f"{nbytes} bytes"
    return f"{nbytes / 1e9:.2f} GB" if nbytes >= 1e9 else f"{nbytes / 1e6:.1f} MB"
