"""Where independent work is done: an engine maps items to results, in this process or on the workers of a cluster."""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Protocol, TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")

# Called once by each worker, which then has open what its items need; it returns what does one item.
SetUp = Callable[[], Callable[[Item], Iterable[Made]]]
# Does items, as `Engine.map` does.
Does = Callable[[Sequence[Item]], Generator[Made, None, None]]


class Engine(Protocol):
    """Does items on workers that each set themselves up once."""

    def num_workers(self, num_items: int) -> int:
        """How many workers so many items would be divided among."""
        ...

    def map(self, set_up: SetUp[Item, Made], items: Sequence[Item]) -> Generator[Made, None, None]:
        """Yield what each item gives, as it comes: in any order, every result once.

        set_up: opens what all items need, once for each worker, and returns the function of an item. It and the items
        are sent to other processes, so they are plain data: a frozen dataclass with `__call__`, names, paths. A
        function must give the same results wherever and however often it is called: an item whose worker dies is
        done again.

        Raises what the function raises: SurgeryError and OSError as they are.
        """
        ...

    def staying(self, set_up: SetUp[Item, Made], num_items: int) -> AbstractContextManager[Does[Item, Made]]:
        """What does one list of items after another as `map` does, by workers that stay set up while the block runs.

        num_items: for how many at a time there are workers, if there can be. Who stops listening in the middle
        of a list gives no other one.
        """
        ...


@dataclass(frozen=True)
class InProcess:
    """Does items one after another in this process, in their order."""

    def num_workers(self, num_items: int) -> int:
        return min(1, num_items)

    def map(self, set_up: SetUp[Item, Made], items: Sequence[Item]) -> Generator[Made, None, None]:
        if items:
            work = set_up()
            for item in items:
                yield from work(item)

    @contextmanager
    def staying(self, set_up: SetUp[Item, Made], num_items: int) -> Iterator[Does[Item, Made]]:  # noqa: ARG002
        work = set_up()

        def do(items: Sequence[Item]) -> Generator[Made, None, None]:
            for item in items:
                yield from work(item)

        yield do
