"""The training steps of checkpoints, read from their names."""

import re
from collections.abc import Sequence
from typing import Final

# A word that training programs put before a step in a directory's or a revision's name.
STEP: Final = re.compile(
    r"(?:^|[^a-z])(?:global_?step|steps?|checkpoint|ckpt|iterations?|iter|updates?|epochs?)[-_=]?(\d+)", re.IGNORECASE
)


def step_in(ref: str) -> int | None:
    """The step that a reference names ("run/step-20", "checkpoint-500", "org/name@step1000"), the last of several; None
    where it names none."""
    found = STEP.findall(ref)
    return int(found[-1]) if found else None


def in_order(refs: Sequence[str]) -> list[str]:
    """References that differ in the number of their step alone, by that number: a shell lists checkpoint-1000 before
    checkpoint-200. Any others as they were given."""
    forms = {STEP.sub(lambda found: found[0].rstrip("0123456789"), ref) for ref in refs}
    if len(forms) > 1 or any(len(STEP.findall(ref)) != 1 for ref in refs):
        return list(refs)
    return sorted(refs, key=lambda ref: step_in(ref) or 0)


def steps_of(refs: Sequence[str]) -> tuple[list[int], list[str]]:
    """A step for every checkpoint in this order, and what to know of them.

    Where not every name has a step, they are numbered 0, 1, 2, ...; steps that do not rise are taken as they are, and
    a note says so.
    """
    named = [step_in(ref) for ref in refs]
    steps = [step for step in named if step is not None]
    if len(steps) < len(named):
        unnamed = refs[named.index(None)]
        return list(range(len(refs))), [
            f"checkpoints are numbered in the order given, because {unnamed} names no step (as step-20 does)"
        ]
    for before, after, ref in zip(steps, steps[1:], refs[1:], strict=False):
        if after <= before:
            return steps, [
                f"steps do not rise: {ref} is step {after}, and the one before it step {before}. Checkpoints are taken "
                "in the order given; give them in the order of training"
            ]
    return steps, []
