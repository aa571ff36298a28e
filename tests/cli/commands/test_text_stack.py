"""`--text-stack`: said once where a case is opened, and remembered; said on the line by commands without a case."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from typer.testing import Result

Run = Callable[..., Result]
CHOSEN = ("--text-stack", "thinker.model.layers")
UP = "model.layers.0.mlp.up_proj.weight"


@pytest.fixture
def two(trio: dict[str, Path], tmp_path: Path) -> Path:
    """The adapted model's weights as `talker`, and the safety-tuned one's as `thinker`, in one checkpoint."""
    whole = {}
    for name, role in {"talker": "adapted", "thinker": "safety"}.items():
        whole |= {f"{name}.{key}": value for key, value in load_file(trio[role] / "model.safetensors").items()}
    folder = tmp_path / "two"
    folder.mkdir()
    (folder / "config.json").write_bytes((trio["base"] / "config.json").read_bytes())
    save_file(whole, folder / "model.safetensors")
    return folder


def test_a_case_remembers_it(run: Run, trio: dict[str, Path], two: Path) -> None:
    refused = run("diff", trio["base"], two)
    assert refused.exit_code == 2
    assert "--text-stack talker.model.layers or --text-stack thinker.model.layers" in refused.stderr
    assert run("diff", trio["base"], two, *CHOSEN).exit_code == 0
    held = json.loads(Path("case/case.json").read_text())["checkpoints"]
    assert held["adapted"]["text_stack"] == CHOSEN[1]
    assert "text_stack" not in held["base"]
    measured = Path("case/diff.json").read_bytes()
    again = run("diff", trio["base"], two)
    assert again.exit_code == 0
    assert "nothing changed" in again.stderr
    assert Path("case/diff.json").read_bytes() == measured
    assert run("probe", "--plan").exit_code == 0
    assert "goes with checkpoints" in run("probe", *CHOSEN).stderr


def test_another_choice_is_another_case(run: Run, trio: dict[str, Path], two: Path) -> None:
    assert run("diff", trio["base"], two, *CHOSEN).exit_code == 0
    other = run("diff", trio["base"], two, "--text-stack", "talker.model.layers")
    assert other.exit_code == 2
    assert "text stack thinker.model.layers" in other.stderr
    measured = Path("case/diff.json").read_bytes()
    assert run("diff", trio["base"], two, "--text-stack", "talker.model.layers", "--new").exit_code == 0
    assert Path("case/diff.json").read_bytes() != measured


def test_commands_without_a_case_take_it(run: Run, trio: dict[str, Path], two: Path) -> None:
    assert run("anatomy", two).exit_code == 2
    shown = run("anatomy", trio["base"], two, *CHOSEN)
    assert shown.exit_code == 0
    typo = run("anatomy", two, "--text-stack", "thinker.layers")
    assert typo.exit_code == 2
    assert "no checkpoint has layers of that name" in typo.stderr
    assert run("evaluate", two, *CHOSEN, "--plan").exit_code == 0
    mine = ("merge", "--method", "slerp", two, "--base", trio["base"], "--weight", "0", "-o", "out")
    assert run(*mine).exit_code == 2
    assert run(*mine, *CHOSEN).exit_code == 0
    merged = load_file("out/model.safetensors")
    assert merged[f"thinker.{UP}"].equal(load_file(trio["base"] / "model.safetensors")[UP])
    assert merged[f"talker.{UP}"].equal(load_file(trio["adapted"] / "model.safetensors")[UP])
    assert "text_stack: thinker.model.layers" in Path("out/recipe.yaml").read_text()
    assert run("merge", "--recipe", "out/recipe.yaml", "-o", "again").exit_code == 0
    assert Path("again/model.safetensors").read_bytes() == Path("out/model.safetensors").read_bytes()
