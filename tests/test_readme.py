"""The README is a contract: its commands exist, with their options, and every command is in it."""

import re
import shlex
from pathlib import Path

import pytest
import typer

from cli.main import app

README = Path(__file__).parent.parent / "README.md"
PROGRAM = typer.main.get_command(app)
COMMANDS = PROGRAM.commands  # type: ignore[attr-defined]
FENCE = re.compile(r"^```[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)


def command_lines() -> list[str]:
    """Every line of a fenced block that runs the program, without prompt, comment and continuation."""
    blocks = FENCE.findall(README.read_text(encoding="utf-8"))
    lines = [line.strip().removeprefix("$ ") for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [line for line in lines if re.match(r"vlsurgery\s", line)]


def options_of(command: str) -> set[str]:
    return {option for parameter in COMMANDS[command].params for option in (*parameter.opts, *parameter.secondary_opts)}


@pytest.mark.parametrize("line", command_lines())
def test_a_command_in_the_readme_exists_with_its_options(line: str) -> None:
    words = shlex.split(line, comments=True)[1:]
    if words[0].startswith("-"):
        assert words[0] in {option for parameter in PROGRAM.params for option in parameter.opts} | {"--help", "-h"}
        return
    assert words[0] in COMMANDS, f"there is no command {words[0]!r}"
    for word in words[1:]:
        if re.match(r"-{1,2}[a-zA-Z]", word):
            assert word.partition("=")[0] in options_of(words[0]) | {"--help", "-h"}, f"{words[0]} has no {word}"


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_has_a_line_in_the_readme(command: str) -> None:
    assert any(line.split()[1:2] == [command] for line in command_lines()), f"add a line on `vlsurgery {command}`"
