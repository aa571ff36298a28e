"""How long work tells how far it is, and what it met, without knowing who listens."""

from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar

T = TypeVar("T")


class Progress(Protocol):
    """Wraps an iterable that takes a while, so that whoever passed it can show progress.

    `label` says in a few words what is being done; `total` is the number of items where the iterable has no length.
    """

    def __call__(self, items: Iterable[T], label: str, total: int | None = None) -> Iterable[T]: ...


def no_progress(items: Iterable[T], label: str, total: int | None = None) -> Iterable[T]:  # noqa: ARG001
    """The `Progress` that shows nothing: the default in a library."""
    return items


# Takes a line that a person should read.
Notify = Callable[[str], None]


def no_notify(line: str) -> None:
    """The `Notify` that tells nobody: the default in a library."""
