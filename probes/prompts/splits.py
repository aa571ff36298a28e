"""The split of a request, settled by the request and a seed alone: the same in every file and on every machine."""

import hashlib
from typing import Literal

Split = Literal["fit", "select", "report"]
SHARES: dict[Split, float] = {"fit": 0.3, "select": 0.2, "report": 0.5}


def split_of(request: str, seed: int) -> Split:
    """The split of a request: the same in every file and on every machine, whatever stands around it."""
    unit = seeded_unit(request, seed)
    if unit < SHARES["fit"]:
        return "fit"
    return "select" if unit < SHARES["fit"] + SHARES["select"] else "report"


def seeded_unit(request: str, seed: int) -> float:
    """A number in [0, 1) that looks random and is settled by the request and the seed alone."""
    digest = hashlib.sha256(f"{seed}\n{request}".encode()).digest()
    return int.from_bytes(digest[:6]) / 2**48
