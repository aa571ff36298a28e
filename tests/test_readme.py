"""The README is a contract: its commands exist, with their options, every command is in it, and its merges run."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
import yaml
from safetensors.torch import save_file
from typer.testing import CliRunner

from vlsurgery.cli.main import app
from vlsurgery.surgery.merge.recipe import Recipe
from vlsurgery.surgery.methods import METHODS, Method, Parameter

README = Path(__file__).parent.parent / "README.md"
PROGRAM = typer.main.get_command(app)
COMMANDS = {
    name: PROGRAM.resolve_command(typer.Context(PROGRAM), [name])[1]  # type: ignore[attr-defined]
    for name in PROGRAM.commands  # type: ignore[attr-defined]
}
MERGING = "Merging by a method of the field"
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


def section(title: str) -> str:
    found = re.search(
        rf"^## {re.escape(title)}\n(.*?)^## ", README.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )
    assert found, title
    return found[1]


def blocks(language: str) -> list[str]:
    """The fenced blocks of the section on merging that are in one language; "" is the command line."""
    fences = re.findall(r"^```([^\n]*)\n(.*?)^```", section(MERGING), re.DOTALL | re.MULTILINE)
    return [block for named, block in fences if named == language]


def merges() -> list[str]:
    """What the section types, line by line."""
    return [line for block in blocks("") for line in block.splitlines()]


def default_of(parameter: Parameter) -> str:
    return str(parameter.default).lower() if parameter.is_switch else f"{parameter.default:g}"


def row_of(name: str, method: Method) -> str:
    """What the README says of a method."""
    called = " ".join([name, *(slot.upper() for slot in method.named_inputs)])
    told = ", ".join(f"{word} {default_of(parameter)}" for word, parameter in method.parameters.items())
    return f"| {called} | `{method.formula}` | {told or '–'} | {method.source} |"


def test_the_table_of_methods_is_that_of_the_package() -> None:
    lines = [line for line in section(MERGING).splitlines() if line.startswith("| ")]
    assert lines[1:] == [row_of(name, method) for name, method in METHODS.items()]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that holds the checkpoints that the README's merges name."""
    monkeypatch.chdir(tmp_path)
    config = {"model_type": "llama", "hidden_size": 8, "num_hidden_layers": 3, "vocab_size": 12}
    shapes = {"model.embed_tokens.weight": (12, 8), "model.norm.weight": (8,), "lm_head.weight": (12, 8)}
    for layer in range(3):
        stem = f"model.layers.{layer}"
        shapes |= {f"{stem}.self_attn.{part}_proj.weight": (8, 8) for part in "qkvo"}
        shapes |= {f"{stem}.mlp.{part}_proj.weight": (8, 8) for part in ("gate", "up", "down")}
        shapes |= {f"{stem}.{norm}_layernorm.weight": (8,) for norm in ("input", "post_attention")}
    torch.manual_seed(0)
    for name in ("llama", "llama-raw", "llava", "llava-safe"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(config))
        save_file({key: torch.randn(shape) for key, shape in shapes.items()}, tmp_path / name / "model.safetensors")
    return tmp_path


def run(line: str) -> None:
    done = CliRunner().invoke(app, shlex.split(line, comments=True)[1:])
    assert done.exit_code == 0, (line, done.stderr, done.exception)


def test_the_merges_run_one_after_the_other(here: Path) -> None:
    assert merges()
    for line in merges():
        run(line)
    assert (here / "merged" / "model.safetensors").read_bytes() == (here / "again" / "model.safetensors").read_bytes()
    assert (here / "between" / "recipe.yaml").is_file()
    assert not (here / "mean").exists()


def test_the_recipes_lines_fit_the_recipe_that_was_written(here: Path) -> None:
    run(merges()[0])
    (lines,) = blocks("yaml")
    order: dict[str, Any] = yaml.safe_load((here / "merged" / "recipe.yaml").read_text())
    (here / "edited.yaml").write_text(yaml.safe_dump({**order, **yaml.safe_load(lines)}))
    run("vlsurgery merge --recipe edited.yaml -o edited")
    assert Recipe.load(here / "edited" / "recipe.yaml").parameters["head"]["density"] == {
        "llava": 0.9,
        "llava-safe": 0.3,
    }
    assert (here / "merged" / "model.safetensors").read_bytes() != (here / "edited" / "model.safetensors").read_bytes()


def test_a_method_of_ones_own_merges(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The README's ten lines make a method that recipes know."""
    monkeypatch.setitem(METHODS, "median", METHODS["linear"])  # so that what the lines add is taken out again
    (lines,) = blocks("python")
    exec(lines, {})
    paths = " ".join(str(here / name) for name in ("llama", "llava", "llava-safe"))
    run(f"vlsurgery merge --method median {paths} -o middle --quiet")
    run("vlsurgery merge --recipe middle/recipe.yaml -o once-more")
    models = {str(number): torch.full((4,), float(number)) for number in range(3)}
    assert torch.equal(METHODS["median"].merge(models), models["1"])
