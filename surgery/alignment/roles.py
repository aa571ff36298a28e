"""Which role of a case plays which part."""

from collections.abc import Iterable


def safety_role(roles: Iterable[str]) -> str | None:
    """The role whose delta counts as safety tuning: `safety`, or else the first of `safety:NAME`."""
    named = [role for role in roles if role == "safety" or role.startswith("safety:")]
    return min(named, key=lambda role: role != "safety", default=None)
