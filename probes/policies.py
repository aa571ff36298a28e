"""The names of policies and of what a merge moves toward. Light: the program's help imports it."""

from collections.abc import Collection
from typing import Literal

from vlsurgery.surgery.alignment.roles import safety_roles

Policy = Literal["best", "linearised", "fit", "attribution", "weights", "uniform"]
Toward = Literal["base", "safety", "both"]


def toward_roles(roles: Collection[str], toward: Toward) -> tuple[str, ...]:
    """The roles among `roles` to merge toward; empty where there is none."""
    base = ("base",) if toward != "safety" and "base" in roles else ()
    return base if toward == "base" else (*base, *safety_roles(roles))


def toward_of(sources: Collection[str]) -> Toward:
    """What was chosen, from the roles that merges went toward."""
    if "base" not in sources:
        return "safety"
    return "both" if len(sources) > 1 else "base"
