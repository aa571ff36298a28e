"""Notices and progress on standard error, results on standard output, and each alone where that is asked for."""

import json
import sys

import pytest
from rich.table import Table
from rich.text import Text

from vlsurgery.cli.console import Console


class Terminal:
    """Standard error as a terminal, for one test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setenv("COLUMNS", "100")


def wide_table() -> Table:
    table = Table(*[f"column {i}" for i in range(30)])
    table.add_row(*[f"number-{i}" for i in range(30)])
    return table


def test_tables_go_to_standard_output_whole(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is cut off where there is no terminal, however wide it is."""
    Console().show(wide_table(), "a path that is " + "long" * 60)
    printed = capsys.readouterr()
    assert printed.err == ""
    assert all(f"number-{i}" in printed.out for i in range(30))
    assert "long" * 60 in printed.out


def test_json_silences_tables_and_lets_results_through(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(json=True)
    console.show(wide_table(), "text")
    console.emit('{"a": 1}')
    console.say("a notice")
    printed = capsys.readouterr()
    assert printed.out == '{"a": 1}\n'
    assert printed.err == "a notice\n"


def test_without_json_no_json(capsys: pytest.CaptureFixture[str]) -> None:
    Console().emit("{}")
    assert capsys.readouterr().out == ""


def test_quiet_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    Console(quiet=True).say("a notice")
    assert capsys.readouterr().err == ""


def test_markup_in_names_is_not_obeyed(capsys: pytest.CaptureFixture[str]) -> None:
    Console().show("[bold]folder[/bold] :smile:")
    assert capsys.readouterr().out == "[bold]folder[/bold] :smile:\n"


@pytest.mark.parametrize("terminal", [True, False])
def test_track_hands_on_everything_in_order(monkeypatch: pytest.MonkeyPatch, terminal: bool) -> None:
    if terminal:
        Terminal(monkeypatch)
    with Console() as console:
        inner = [list(console.progress(range(i), "inner")) for i in console.progress([1, 2, 3], "outer")]
        assert inner == [[0], [0, 1], [0, 1, 2]]
        assert list(console.progress((i for i in range(4)), "no length")) == [0, 1, 2, 3]


def test_bars_are_shown_on_a_terminal_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with Console() as console:
        list(console.progress(range(3), "counting"))
    assert capsys.readouterr().err == ""
    Terminal(monkeypatch)
    for console in (Console(quiet=True), Console(json=True)):
        with console:
            list(console.progress(range(3), "counting"))
    assert capsys.readouterr().err == ""
    with Console() as console:
        list(console.progress(range(3), "counting"))
        console.say("between")
    said = capsys.readouterr()
    assert "counting" in said.err
    assert "between" in said.err
    assert said.out == ""


def test_a_bar_ends_with_its_loop_even_if_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(console: Console) -> None:
        for _ in console.progress(range(3), "failing"):
            raise KeyError

    Terminal(monkeypatch)
    with Console() as console:
        with pytest.raises(KeyError):
            fail(console)
        assert list(console.progress("ab", "next")) == ["a", "b"]


HOSTILE = "name\x1b[2J\x9b31m\u202e\x07\rgone"
SHOWN = "name\\x1b[2J\\x9b31m\\u202e\\x07\\rgone"


def hostile_table() -> Table:
    table = Table(HOSTILE, title=HOSTILE)
    table.add_row(HOSTILE)
    return table


@pytest.mark.parametrize("terminal", [True, False])
def test_names_with_control_characters_are_shown_and_not_obeyed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], terminal: bool
) -> None:
    """In text, tables, titles and notices."""
    if terminal:
        Terminal(monkeypatch)
    console = Console()
    console.show(HOSTILE, Text(HOSTILE), hostile_table())
    console.say(HOSTILE)
    printed = capsys.readouterr()
    assert printed.err == f"{SHOWN}\n"
    # rich drops bells and carriage returns by itself; what is left of the rest is an escape that can be read.
    assert printed.out.count("name\\x1b[2J\\x9b31m\\u202e") == 5
    assert not {"\x1b", "\x9b", "\x07", "\r", "\u202e"} & set(printed.out)


def test_names_in_json_are_escapes_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    value = {"name": HOSTILE + "\U000e0041", "words": "naïve 日本"}
    Console(json=True).emit(json.dumps(value, ensure_ascii=False, indent=1))
    printed = capsys.readouterr().out
    assert json.loads(printed) == value
    assert not {"\x1b", "\x9b", "\x07", "\r", "\u202e", "\U000e0041"} & set(printed)
    assert "naïve 日本" in printed


def clocked(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """A clock that has gone on by `seconds` each time it is read."""
    now = iter(seconds * step for step in range(10**6))
    monkeypatch.setattr("vlsurgery.cli.console.time.monotonic", lambda: next(now))


def test_a_log_hears_of_work_that_takes_long(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clocked(monkeypatch, 30.0)
    with Console() as console:
        assert list(console.progress(range(6), "counting")) == list(range(6))
    # read once at the start, and once before each item; 60 s lie between two lines
    assert capsys.readouterr().err.splitlines() == [
        "counting: 0 of 6",
        "counting: 2 of 6, 3 min left",
        "counting: 4 of 6, 75 s left",
        "counting: 6 of 6, 4 min in all",
    ]


def test_a_log_hears_nothing_of_short_work(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    clocked(monkeypatch, 1.0)
    with Console() as console:
        assert list(console.progress(range(6), "counting")) == list(range(6))
    assert not capsys.readouterr().err


@pytest.mark.parametrize(("quiet", "json", "told"), [(True, False, False), (False, True, True), (True, True, False)])
def test_lines_of_progress_leave_standard_output_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], quiet: bool, json: bool, told: bool
) -> None:
    clocked(monkeypatch, 100.0)
    with Console(quiet=quiet, json=json) as console:
        assert list(console.progress(range(3), "counting")) == [0, 1, 2]
    captured = capsys.readouterr()
    assert not captured.out
    assert bool(captured.err) == told
