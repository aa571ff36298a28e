"""Where two parts of a checkpoint look like its language model, the user chooses, once a case."""

import json
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from typer.testing import CliRunner

from vlsurgery.cli.main import app

Write = Callable[..., Path]


def run(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, [str(each) for each in arguments])
    return done.exit_code, done.output + done.stderr


def test_one_of_two_language_models_is_chosen_and_remembered(
    tmp_path: Path, write: Write, llama: Callable[..., dict[str, Tensor]]
) -> None:
    base, other = llama(1), llama(2)
    towers = {name.replace("layers", "towers"): tensor for name, tensor in llama(3).items() if ".layers." in name}
    double = {**base, **towers}
    moved = {name: tensor + 0.01 for name, tensor in other.items()}
    write(tmp_path / "base", double)
    write(tmp_path / "adapted", {**moved, **towers})
    case = tmp_path / "case"
    opening = ("diff", tmp_path / "base", tmp_path / "adapted", "--level", "norms", "--case", case)
    code, said = run(*opening)
    assert code == 2
    assert "base" in said
    assert "'model.layers' and 'model.towers'" in said
    assert "--text-stack" in said
    code, said = run(*opening, "--text-stack", "model.towers")
    assert code == 0, said
    changed = {row["block"] for row in json.loads((case / "diff.json").read_text())["pairs"] if row["tower"] == "text"}
    assert "1.mlp" in changed
    names = json.loads((case / "case.json").read_text())["checkpoints"]
    assert {ref["text_stack"] for ref in names.values()} == {"model.towers"}
    code, said = run("diff", tmp_path / "base", tmp_path / "adapted", "--level", "norms", "--case", case, "--quiet",
                     "--text-stack", "model.towers")  # fmt: skip
    assert code == 0, said


def test_anatomy_names_the_checkpoint_and_takes_the_choice(
    tmp_path: Path, write: Write, llama: Callable[..., dict[str, Tensor]]
) -> None:
    base = llama(1)
    towers = {
        name.replace("layers", "towers"): torch.ones(tensor.shape) for name, tensor in base.items() if "layers" in name
    }
    write(tmp_path / "double", {**base, **towers})
    code, said = run("anatomy", tmp_path / "double")
    assert code == 2
    assert str(tmp_path / "double") in said
    code, said = run("anatomy", tmp_path / "double", "--text-stack", "model.layers")
    assert code == 0, said
