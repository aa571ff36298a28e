"""Which role of a case plays which part."""

import itertools
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath
from typing import Final

SAFETY: Final = "safety"


def safety_roles(roles: Iterable[str]) -> tuple[str, ...]:
    """The safety-tuned ones of roles: `safety` first, then every `safety:NAME` in their order."""
    found = [role for role in roles if role == SAFETY or role.startswith(f"{SAFETY}:")]
    return tuple(sorted(found, key=lambda role: role != SAFETY))


def safety_role(roles: Iterable[str]) -> str | None:
    """The role whose delta counts as safety tuning: `safety`, or else the first of `safety:NAME`."""
    return next(iter(safety_roles(roles)), None)


def named_roles(base: str, adapted: str, safety: Sequence[str] = ()) -> dict[str, str]:
    """Role -> reference, of checkpoints in the order in which users give them.

    The first safety-tuned model is `safety`; of more, each is `safety:NAME`, NAME the last part of its reference, with
    a number where another one has that name.
    """
    found = {"base": base, "adapted": adapted}
    for number, reference in enumerate(safety, start=1):
        name = PurePosixPath(reference.rstrip("/")).name
        wanted = SAFETY if number == 1 else f"{SAFETY}:{name or number}"
        others = (f"{wanted}-{again}" for again in itertools.count(number))
        found[next(role for role in itertools.chain([wanted], others) if role not in found)] = reference
    return found
