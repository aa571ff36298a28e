"""A recipe becomes a file for mergekit, and mergekit's file a merge, from the command line."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from typer.testing import Result

from vlsurgery.cli.commands.merge.export import export_to_mergekit
from vlsurgery.cli.console import Console
from vlsurgery.cli.options import Session
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.errors import TargetError
from vlsurgery.surgery.merge.recipe import Recipe


def session(folder: Path, plan: bool = False) -> Session:
    return Session(folder / "case", Console(quiet=True, json=True), plan)


@pytest.fixture
def recipe(trio: dict[str, Path], tmp_path: Path) -> Path:
    roles = {role: Checkpoint.open(trio[role]) for role in ("adapted", "safety")}
    path = tmp_path / "recipe.yaml"
    Recipe.of(roles, {"everywhere": {"safety": 0.25}}).save(path)
    return path


def test_a_recipe_is_exported(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "order.yaml"
    export_to_mergekit(session(tmp_path), Recipe.load(recipe), out)
    assert json.loads(capsys.readouterr().out) == {"path": str(out)}
    assert yaml.safe_load(out.read_text())["merge_method"] == "task_arithmetic"


def test_a_plan_writes_nothing(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "order.yaml"
    export_to_mergekit(session(tmp_path, plan=True), Recipe.load(recipe), out)
    assert json.loads(capsys.readouterr().out)["plan"][0]["writes"] == [str(out)]
    assert not out.exists()


def test_an_unwritable_target_is_named(recipe: Path, tmp_path: Path) -> None:
    with pytest.raises(TargetError, match=r"below.*can't write the order"):
        export_to_mergekit(session(tmp_path), Recipe.load(recipe), recipe / "below" / "order.yaml")


def test_their_file_merges_as_ours_does(recipe: Path, tmp_path: Path, run: Callable[..., Result]) -> None:
    export_to_mergekit(session(tmp_path), Recipe.load(recipe), tmp_path / "order.yaml")
    for file, out in ((recipe, "ours"), (tmp_path / "order.yaml", "theirs")):
        result = run("merge", "--recipe", str(file), "-o", str(tmp_path / out), "--quiet")
        assert result.exit_code == 0, result.output
    ours, theirs = (Checkpoint.open(tmp_path / name) for name in ("ours", "theirs"))
    assert set(ours) == set(theirs)
    for name, tensor in ours.items():
        assert tensor.load().allclose(theirs[name].load(), rtol=1e-6, atol=1e-7)


def test_a_fault_in_their_file_is_one_line(tmp_path: Path, run: Callable[..., Result]) -> None:
    (tmp_path / "order.yaml").write_text("merge_method: passthrough\nmodels: [{model: a}]\n")
    result = run("merge", "--recipe", str(tmp_path / "order.yaml"), "-o", str(tmp_path / "out"))
    assert result.exit_code == 2
    assert "order.yaml: merge_method: 'passthrough' is not among the methods of both tools" in result.stderr
