"""The roles that a merge goes toward."""

from collections.abc import Collection

from vlsurgery.probes.policies import Toward
from vlsurgery.surgery.alignment.roles import safety_roles


def toward_roles(roles: Collection[str], toward: Toward) -> tuple[str, ...]:
    """The roles among `roles` to merge toward; empty where there is none."""
    base = ("base",) if toward != "safety" and "base" in roles else ()
    return base if toward == "base" else (*base, *safety_roles(roles))


def toward_of(sources: Collection[str]) -> Toward:
    """What was chosen, from the roles that merges went toward."""
    if "base" not in sources:
        return "safety"
    return "both" if len(sources) > 1 else "base"
