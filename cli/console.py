"""The terminal: notices and progress on standard error, results on standard output."""

import json
import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TYPE_CHECKING, Self, TypeVar

from vlsurgery.surgery.runtime.visible import visible

if TYPE_CHECKING:
    from rich.console import Console as Rich, ConsoleOptions, RenderableType, RenderResult
    from rich.progress import Progress as RichProgress
    from rich.table import Table

T = TypeVar("T")

PIPE_WIDTH = 120  # columns, where there is no terminal
FIRST_LINE = 10.0  # seconds until a log hears of work that takes long
NEXT_LINES = 60.0  # seconds between two lines of it


class Console:
    """Prints for one command; `progress` is its `Progress`. What names and texts hold is shown, never obeyed.

    quiet: no notices and no progress. json: only `emit` prints on standard output, and progress is told in lines. Bars
    are drawn on a terminal alone.
    Rich is imported when the first table or bar is drawn: its import takes longer than a short command.
    """

    def __init__(self, quiet: bool = False, json: bool = False) -> None:
        self.quiet = quiet
        self.json = json
        self._bars = not quiet and not json and sys.stderr.isatty()
        self._progress: RichProgress | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def say(self, line: str) -> None:
        """Print a notice of one line on standard error, above the bars."""
        if self.quiet:
            return
        line = visible(line)
        if self._progress is not None:
            self._progress.console.print(line, highlight=False, markup=False)
        else:
            print(line, file=sys.stderr, flush=True)

    def show(self, *renderables: "RenderableType") -> None:
        """Print tables and text on standard output. Numbers are never cut off: a table may be wider than a narrow
        terminal, and where there is no terminal, lines are as wide as the table."""
        if self.json:
            return
        from rich.console import Console as Rich
        from rich.table import Table

        rich = Rich(file=sys.stdout, highlight=False, emoji=False, markup=False)
        width = rich.width if rich.is_terminal else PIPE_WIDTH
        # Through a string: at a closed pipe, rich would end the program itself, with another exit code.
        with rich.capture() as captured:
            for each in renderables:
                rich.width = max(width, _room_for(each, rich)) if isinstance(each, Table) else width
                rich.print(_Visible(each), soft_wrap=isinstance(each, str))
                if isinstance(each, Table):
                    rich.print()
        sys.stdout.write(captured.get())

    def emit(self, text: str) -> None:
        """Print JSON where `--json` was given; in it, control and direction characters are spelt as escapes."""
        if self.json:
            for letter in sorted(letter for letter in set(text) if letter != visible(letter)):
                text = text.replace(letter, json.dumps(letter)[1:-1])
            sys.stdout.write(text if text.endswith("\n") else text + "\n")

    def progress(self, items: Iterable[T], label: str, total: int | None = None) -> Iterable[T]:
        """The items, with a bar on standard error until the last one; without a terminal, with a line now and then.
        Both may be nested."""
        if total is None and isinstance(items, Sized):
            total = len(items)
        if self.quiet:
            return items
        return self._with_bar(items, label, total) if self._bars else self._with_lines(items, label, total)

    def _with_lines(self, items: Iterable[T], label: str, total: int | None) -> Iterator[T]:
        """What is done and the time that is left, for a log. What ends before FIRST_LINE says nothing."""
        began, told, done = time.monotonic(), None, 0
        for item in items:
            now = time.monotonic()
            if now - (began if told is None else told) >= (FIRST_LINE if told is None else NEXT_LINES):
                self.say(f"{label}: {_share(done, total)}{_left(now - began, done, total)}")
                told = now
            yield item
            done += 1
        if told is not None:
            self.say(f"{label}: {_share(done, total)}, {_duration(time.monotonic() - began)} in all")

    def _with_bar(self, items: Iterable[T], label: str, total: int | None) -> Iterator[T]:
        progress = self._running_progress()
        bar = progress.add_task(visible(label), total=total)
        try:
            for item in items:
                yield item
                progress.advance(bar)
        finally:
            progress.remove_task(bar)

    def _running_progress(self) -> "RichProgress":
        if self._progress is None:
            from rich.console import Console as Rich
            from rich.progress import (
                BarColumn,
                MofNCompleteColumn,
                Progress,
                TextColumn,
                TimeElapsedColumn,
                TimeRemainingColumn,
            )

            columns = (
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=30),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
            )
            self._progress = Progress(*columns, console=Rich(stderr=True), transient=True)
            self._progress.start()
        return self._progress


def _share(done: int, total: int | None) -> str:
    return f"{done} of {total}" if total else str(done)


def _left(seconds: float, done: int, total: int | None) -> str:
    return f", {_duration(seconds / done * (total - done))} left" if total and done else ""


def _duration(seconds: float) -> str:
    """As people say it: "40 s", "3 min", "2 h 5 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


class _Visible:
    """What rich prints, with every control and direction character that did not come from rich as an escape."""

    def __init__(self, inner: "RenderableType") -> None:
        self._inner = inner

    def __rich_console__(self, console: "Rich", options: "ConsoleOptions") -> "RenderResult":
        from rich.segment import Segment

        for text, style, control in console.render(self._inner, options):
            yield Segment(text if control else visible(text), style, control)


def _room_for(table: "Table", rich: "Rich") -> int:
    """The width at which no number and no word of a table is cut; without a terminal, at which no cell wraps."""
    unbounded = rich.options.update(width=10 * PIPE_WIDTH)
    for column in table.columns:
        needs = [rich.measure(cell, options=unbounded) for cell in (column.header, *column.cells)]
        column.min_width = max(need.maximum if column.no_wrap else need.minimum for need in needs)
    measured = rich.measure(table, options=unbounded)
    return measured.minimum if rich.is_terminal else measured.maximum
