"""How library code reports progress and notices to its caller, who decides what is shown."""

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


# Takes a line for the user to read.
Notify = Callable[[str], None]


def no_notify(line: str) -> None:
    """The `Notify` that drops its line: the default in a library."""
