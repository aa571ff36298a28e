"""What a judge is: exchanges in, one verdict each out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from vlsurgery.probes.results import Verdict


@dataclass(frozen=True)
class Exchange:
    """What was asked and what was answered.

    completion: without special tokens. prompt: the user's message; None where it is not known. set: its prompt set,
    where it has one. pictured: whether a picture came with it. topic: words of which an answer on the topic contains
    at least one; empty where none are known. cut: whether the completion ended at the limit of tokens and not by
    itself.
    """

    completion: str
    prompt: str | None = None
    set: str | None = None
    pictured: bool = False
    topic: tuple[str, ...] = ()
    cut: bool = False


class Judge(Protocol):
    """A judge of completions. description: how it decides and how often it errs, for reports."""

    @property
    def name(self) -> str: ...

    @property
    def description(self) -> str: ...

    def judge(self, exchanges: Sequence[Exchange]) -> list[Verdict]:
        """One verdict an exchange, in their order."""
