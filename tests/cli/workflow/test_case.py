"""A case knows its checkpoints, and which steps still hold."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import pytest
from torch import Tensor

from vlsurgery.cli.workflow.case import Case
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.errors import CheckpointError, SurgeryError, TargetError
from vlsurgery.surgery.results import Result

Write = Callable[..., Path]
Llama = Callable[..., dict[str, Tensor]]


class Finding(Result):
    kind: ClassVar[str] = "finding"
    value: int


@pytest.fixture
def models(tmp_path: Path, write: Write, llama: Llama) -> dict[str, str]:
    return {role: str(write(tmp_path / role, llama(seed))) for seed, role in enumerate(("base", "adapted"))}


def create(folder: str | Path, models: dict[str, str], new: bool = False) -> Case:
    return Case.create(folder, {role: Checkpoint.open(path) for role, path in models.items()}, new)


def retrain(model: str) -> None:
    """Change the last byte of the weights."""
    file = Path(model) / "model.safetensors"
    written = file.read_bytes()
    file.write_bytes(written[:-1] + bytes([written[-1] ^ 1]))


def test_a_case_remembers_its_checkpoints(tmp_path: Path, models: dict[str, str]) -> None:
    create(tmp_path / "case", models)
    case = Case.open(tmp_path / "case")
    assert {role: checkpoint.path for role, checkpoint in case.checkpoints.items()} == {
        role: Path(path) for role, path in models.items()
    }
    content = json.loads((tmp_path / "case" / "case.json").read_text())
    assert content["schema"] == "vlsurgery/case/1"
    assert content["checkpoints"]["base"] == {
        "path": models["base"],
        "identity": Checkpoint.open(models["base"]).identity,
    }


def test_paths_outlive_a_change_of_directory(
    tmp_path: Path, models: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    create("case", {"base": "base", "adapted": "./adapted"})
    create("case", models)
    monkeypatch.chdir("/")
    assert set(Case.open(tmp_path / "case").checkpoints) == {"base", "adapted"}


def test_no_case_says_how_to_open_one(tmp_path: Path) -> None:
    with pytest.raises(SurgeryError, match="vlsurgery diff BASE ADAPTED"):
        Case.open(tmp_path / "case")


def test_another_set_of_checkpoints_is_refused_unless_the_old_case_is_moved_aside(
    tmp_path: Path, models: dict[str, str]
) -> None:
    folder = tmp_path / "case"
    create(folder, models).record("diff", {})
    swapped = {"base": models["adapted"], "adapted": models["base"]}
    for other in (swapped, {**models, "safety": models["base"]}):
        with pytest.raises(TargetError, match="--new"):
            create(folder, other)
    assert Case.open(folder).is_current("diff", {})
    assert not create(folder, swapped, new=True).is_current("diff", {})
    assert Case.open(tmp_path / "case-1").is_current("diff", {})
    create(folder, models, new=True)
    assert (tmp_path / "case-2").is_dir()
    create(folder, models, new=True)
    assert not (tmp_path / "case-3").exists()


def test_a_folder_that_is_not_a_case_is_left_alone(tmp_path: Path, models: dict[str, str]) -> None:
    (tmp_path / "case").mkdir()
    create(tmp_path / "case", models)
    with pytest.raises(TargetError, match="not a case"):
        create(models["base"], models)
    (tmp_path / "file").write_text("x")
    with pytest.raises(TargetError, match="not a case"):
        create(tmp_path / "file", models, new=True)
    with pytest.raises(TargetError, match="can't be written"):
        create(tmp_path / "file" / "case", models)
    with pytest.raises(CheckpointError):
        create(tmp_path / "new", {**models, "base": str(tmp_path / "nowhere")})
    assert not (tmp_path / "new").exists()


def test_a_step_holds_while_settings_and_files_do(tmp_path: Path, models: dict[str, str]) -> None:
    case = create(tmp_path / "case", models)
    assert not case.is_current("diff", {})
    case.record("diff", {"level": "norms", "sets": ("a", "b")})
    for again in (case, Case.open(tmp_path / "case"), create(tmp_path / "case", models)):
        assert again.is_current("diff", {"sets": ["a", "b"], "level": "norms"})
        assert not again.is_current("diff", {"level": "full"})
    weights = Path(models["adapted"]) / "model.safetensors"
    os.utime(weights, ns=(0, 0))
    assert Case.open(tmp_path / "case").is_current("diff", {"sets": ["a", "b"], "level": "norms"})
    retrain(models["adapted"])
    assert not Case.open(tmp_path / "case").is_current("diff", {"sets": ["a", "b"], "level": "norms"})


def test_a_step_falls_when_one_before_it_is_done_again(tmp_path: Path, models: dict[str, str]) -> None:
    case = create(tmp_path / "case", models)
    case.record("merge", {})
    assert not case.is_current("merge", {}, ["probe"])
    case.record("probe", {})
    assert not case.is_current("merge", {}, ["probe"])
    case.record("merge", {})
    assert case.is_current("merge", {}, ["probe"])
    case.record("probe", {})
    assert not case.is_current("merge", {}, ["probe"])
    assert case.is_current("merge", {})


def test_results_are_found_by_their_kind(tmp_path: Path, models: dict[str, str]) -> None:
    case = create(tmp_path / "case", models)
    assert case.result(Finding) is None
    finding = Finding(value=3, checkpoints=case.refs)
    finding.save(case.path("finding.json"))
    assert case.result(Finding) == finding
    case.path("finding.json").write_text("{")
    with pytest.raises(SurgeryError, match=r"finding\.json"):
        case.result(Finding)


def test_looks_are_counted(tmp_path: Path, models: dict[str, str]) -> None:
    case = create(tmp_path / "case", models)
    assert [case.log_look({"roles": ["merged"], "n": n}) for n in range(3)] == [1, 2, 3]
    lines = [json.loads(line) for line in case.path("history.jsonl").read_text().splitlines()]
    assert [line["n"] for line in lines] == [0, 1, 2]
    assert all(line["time"] for line in lines)


@pytest.mark.parametrize("content", ["{}", "", "[]", '{"schema": "vlsurgery/diff/1"}', '{"colour": "red"}'])
def test_a_damaged_case_is_named(tmp_path: Path, models: dict[str, str], content: str) -> None:
    create(tmp_path / "case", models)
    (tmp_path / "case" / "case.json").write_text(content)
    with pytest.raises(SurgeryError, match=r"case\.json"):
        Case.open(tmp_path / "case")
