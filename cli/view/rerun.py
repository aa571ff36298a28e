"""What differs between two runs of a case, line by line."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vlsurgery.cli.workflow.rerun_differences import RerunResult


def rerun_lines(result: "RerunResult") -> Iterator[str]:
    """What differs beyond intervals first, then what is not the same, and last the verdict."""
    for beyond, mark in ((True, "DIFFERS"), (False, "not the same")):
        yield from (f"{mark}  {each.what}: {each.words}" for each in result.differences if each.beyond is beyond)
    yield from result.notes
    yield result.verdict


def plan_lines(commands: Iterable[str], case: Path) -> Iterator[str]:
    """The steps that would be run again, as commands."""
    yield f"Would run again in {case}:"
    yield from dict.fromkeys(f"  {command}" for command in commands)
    yield "Nothing was run."
