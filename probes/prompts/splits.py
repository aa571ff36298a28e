"""The split of a request, by a hash of the request and a seed: the same in every file and on every machine."""

import hashlib
from typing import Literal

Split = Literal["fit", "select", "report"]
SHARES: dict[Split, float] = {"fit": 0.3, "select": 0.2, "report": 0.5}


def split_of(request: str, seed: int) -> Split:
    """The split of a request, the same for every prompt that shares it."""
    unit = seeded_unit(request, seed)
    if unit < SHARES["fit"]:
        return "fit"
    return "select" if unit < SHARES["fit"] + SHARES["select"] else "report"


def seeded_unit(request: str, seed: int) -> float:
    """A pseudo-random number in [0, 1) from a hash of the request and the seed."""
    digest = hashlib.sha256(f"{seed}\n{request}".encode()).digest()
    return int.from_bytes(digest[:6]) / 2**48
