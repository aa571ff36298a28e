"""A case can be copied, moved and read without its checkpoints; weights that were changed in secret are found."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from typer.testing import Result

from vlsurgery.cli.workflow.case import Case
from vlsurgery.cli.workflow.engine import Flow, Job, Settings, StepOptions
from vlsurgery.cli.workflow.fingerprint import MAX_WHOLE_BYTES, fingerprint, is_unchanged
from vlsurgery.cli.workflow.steps import STEPS
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.checkpoint.headers import read_header
from vlsurgery.surgery.checkpoint.identity import BLOCK_BYTES, spaced_blocks
from vlsurgery.surgery.errors import CheckpointError
from vlsurgery.surgery.merge.recipe import Recipe

Run = Callable[..., Result]
Change = Callable[[Path], None]
ROLES = ("base", "adapted", "safety")


@pytest.fixture
def project(tmp_path: Path, trio: dict[str, Path], run: Run) -> Path:
    """A folder with three checkpoints, and beside them a case with a diff, and a merge by a given recipe."""
    root = tmp_path / "project"
    for role, folder in trio.items():
        shutil.move(folder, root / role)
    shown = run("diff", *(root / role for role in ROLES), "--level", "norms", "--case", root / "case", "--quiet")
    assert shown.exit_code == 0, shown.stderr
    flow_of(root / "case").bring("diff", "merge", "report")
    return root


def trained(model: Path) -> None:
    """Move every weight a little."""
    weights = load_file(model / "model.safetensors")
    save_file({name: tensor * 1.001 for name, tensor in weights.items()}, model / "model.safetensors", {"format": "pt"})


def flow_of(case: Path) -> Flow:
    """The steps of a case that need no model: the coefficients are given."""

    def give(job: Job, settings: Settings) -> None:
        Recipe.of(job.checkpoints, {"default": {"base": 0.5}}).save(job.case.path("recipe.yaml"))

    table = {step.name: step for step in STEPS}
    given = replace(
        table["coefficients"],
        needs=("diff",),
        settings=lambda _: {},
        run=give,
        files=lambda case, _: [case.path("recipe.yaml")],
    )
    job = Job(Case.open(case), StepOptions(prompts=()))
    return Flow(job, [table["diff"], given, table["merge"], replace(table["report"], uses=())])


def pending(case: Path) -> list[str]:
    return [each.step.name for each in flow_of(case).pending("diff", "merge", "report")]


def test_a_case_and_its_checkpoints_are_copied_or_moved_and_all_stays_current(tmp_path: Path, project: Path) -> None:
    assert pending(project / "case") == []
    shutil.copytree(project, tmp_path / "copy", copy_function=shutil.copy)  # Every file has another time.
    assert pending(tmp_path / "copy" / "case") == []
    held = Case.open(tmp_path / "copy" / "case").checkpoints
    assert {role: held[role].path for role in held} == {role: tmp_path / "copy" / role for role in ROLES}
    os.rename(project, tmp_path / "moved")
    assert pending(tmp_path / "moved" / "case") == []
    assert pending(tmp_path / "copy" / "case") == []


def test_a_case_alone_is_copied_and_finds_its_checkpoints_where_they_were(tmp_path: Path, project: Path) -> None:
    copy = tmp_path / "far" / "away" / "case"
    shutil.copytree(project / "case", copy)
    assert pending(copy) == []
    shutil.copytree(project / "adapted", tmp_path / "far" / "away" / "adapted")
    trained(tmp_path / "far" / "away" / "adapted")  # It lies beside the copy, and is another one.
    held = Case.open(copy).checkpoints
    assert held["adapted"].path == project / "adapted"
    assert pending(copy) == []


def test_a_copy_whose_weights_were_trained_further_is_no_longer_current(tmp_path: Path, project: Path) -> None:
    shutil.copytree(project, tmp_path / "copy")
    trained(tmp_path / "copy" / "adapted")
    shutil.rmtree(project)
    assert pending(tmp_path / "copy" / "case")[0] == "diff"


@pytest.mark.parametrize("kept", [(), ("*.json",)], ids=["all is gone", "the weights are gone"])
def test_a_report_needs_no_checkpoints(project: Path, run: Run, kept: tuple[str, ...]) -> None:
    for role in ROLES:
        if not kept:
            shutil.rmtree(project / role)
        for file in (project / role).glob("*.safetensors"):
            file.unlink()
    assert pending(project / "case") == []
    for more in (["--plan"], ["-o", project / "again.html"], ["-o", project / "again.html"]):
        shown = run("report", "--case", project / "case", *more)
        assert shown.exit_code == 0, shown.stderr
    assert "norms" in json.loads((project / "case" / "diff.json").read_text())["settings"]["level"]
    assert (project / "again.html").stat().st_size > 1000


def test_what_needs_absent_checkpoints_says_which_and_how_to_point_to_them(
    tmp_path: Path, project: Path, run: Run
) -> None:
    for role in ROLES:
        (tmp_path / "store").mkdir(exist_ok=True)
        os.rename(project / role, tmp_path / "store" / f"my-{role}")
    shown = run("probe", "--case", project / "case")
    assert shown.exit_code == 2
    assert f"base: {project / 'base'}: no such directory" in shown.stderr
    assert f"vlsurgery diff BASE ADAPTED SAFETY --case {project / 'case'}" in shown.stderr
    moved = [tmp_path / "store" / f"my-{role}" for role in ROLES]
    shown = run("diff", *moved, "--level", "norms", "--case", project / "case")
    assert "nothing changed since it was done" in shown.stderr
    assert pending(project / "case") == []
    assert Case.open(project / "case").refs["base"].path == str(moved[0])
    swapped = run("diff", moved[1], moved[0], moved[2], "--case", project / "case")
    assert swapped.exit_code == 2
    assert "--new" in swapped.stderr


def test_a_case_of_an_earlier_version_goes_on_while_nothing_is_touched(tmp_path: Path, project: Path) -> None:
    from vlsurgery.cli.workflow.fingerprint import _stamp

    file = project / "case" / "case.json"
    content = json.loads(file.read_text())
    stamps = {role: Checkpoint.open(project / role).stamp for role in ROLES}
    left = {"diff": "diff.json", "coefficients": "recipe.yaml", "merge": "merged", "report": "report.html"}
    del content["beside"]
    for role, ref in content["checkpoints"].items():
        ref["identity"] = stamps[role]
        del ref["contents"]
    for name, step in content["steps"].items():
        step["identities"] = stamps
        step["left"] = _stamp([project / "case" / left[name]])
        del step["contents"]
    file.write_text(json.dumps(content))
    assert pending(project / "case") == []
    shutil.copytree(project, tmp_path / "copy", copy_function=shutil.copy)
    shutil.rmtree(project)
    assert pending(tmp_path / "copy" / "case")[0] == "diff", "times were all that it knew"


def test_a_long_file_that_a_step_wrote_is_known_by_a_block_of_every_tensor(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    tensors = {"big": torch.zeros(5_000, 4_000), "norm": torch.zeros(64), "last": torch.zeros(1)}
    save_file(tensors, file)
    assert file.stat().st_size > MAX_WHOLE_BYTES
    found = fingerprint([tmp_path])
    assert is_unchanged(found, [tmp_path])
    entry = read_header(file).entries[[each.name for each in read_header(file).entries].index("norm")]
    with file.open("r+b") as stream:
        stream.seek(entry.offset)
        stream.write(bytes([1]))
    assert not is_unchanged(found, [tmp_path])
    with file.open("r+b") as stream:
        stream.seek(entry.offset)
        stream.write(bytes([0]))
    assert is_unchanged(found, [tmp_path])
    with file.open("r+b") as stream:
        stream.write(b"\xff" * 8)
    assert not is_unchanged(found, [tmp_path])


@pytest.fixture
def long(tmp_path: Path, trio: dict[str, Path], run: Run) -> Path:
    """A project of two checkpoints of 13 MB, of which samples are read."""
    root = tmp_path / "long"
    for role in ("base", "adapted"):
        shutil.copytree(trio[role], root / role)
        config = json.loads((root / role / "config.json").read_text())
        (root / role / "config.json").write_text(json.dumps({**config, "vocab_size": 200_000}))
        weights: dict[str, Tensor] = load_file(root / role / "model.safetensors")
        weights["model.embed_tokens.weight"] = torch.randn(200_000, 16)
        save_file(weights, root / role / "model.safetensors", {"format": "pt"})
    shown = run("diff", root / "base", root / "adapted", "--level", "norms", "--case", root / "case", "--quiet")
    assert shown.exit_code == 0, shown.stderr
    return root


@pytest.fixture
def changed_in_secret(flip: Callable[[Path, int], None]) -> Change:
    """A function that flips a bit in the middle of a tensor, where no sample is read, and keeps the time of change."""

    def change(model: Path) -> None:
        checkpoint = Checkpoint.open(model)
        identity = checkpoint.identity
        entry = checkpoint["model.embed_tokens.weight"].entry
        file, middle = model / "model.safetensors", entry.offset + entry.nbytes // 3
        sampled = set(spaced_blocks(checkpoint.shards[file.name].size))
        places = range(middle, entry.offset + entry.nbytes)
        flip(file, next(place for place in places if place // BLOCK_BYTES not in sampled))
        assert Checkpoint.open(model).identity == identity

    return change


def test_a_bit_changed_in_secret_is_found_before_a_merge_and_by_verify(
    changed_in_secret: Change, long: Path, run: Run
) -> None:
    assert run("anatomy", long / "base", "--verify", "--case", long / "case").exit_code == 0
    flow = flow_of(long / "case")
    flow.bring("coefficients")
    assert Recipe.load(long / "case" / "recipe.yaml").checkpoints["base"].contents
    changed_in_secret(long / "base")

    fault = r"base \(.*base\): model\.safetensors: not the bytes that were measured.*vlsurgery diff"
    with pytest.raises(CheckpointError, match=fault):
        flow_of(long / "case").bring("merge")
    assert not (long / "case" / "merged").exists()
    assert not (long / "case" / "merged.partial").exists()
    with pytest.raises(CheckpointError, match=fault):
        Case.open(long / "case").verify()
    for arguments in (
        ("merge", "--recipe", long / "case" / "recipe.yaml", "-o", long / "out"),
        ("probe", "--case", long / "case"),
        ("merge", "--auto", "--case", long / "case"),
        ("merge", "--auto", "--verify", "--case", long / "case"),
    ):
        shown = run(*arguments)
        assert shown.exit_code == 2
        assert "not the bytes that were measured" in shown.stderr
    shown = run("anatomy", long / "base", "--verify", "--case", long / "case")
    assert shown.exit_code == 2
    assert "model.safetensors (other bytes than were written)" in shown.stderr
    assert run("anatomy", long / "adapted", "--verify", "--case", long / "case").exit_code == 0


def test_weights_that_were_trained_further_are_measured_again_without_being_named(
    changed_in_secret: Change, long: Path
) -> None:
    """Their identity tells, so that there is nothing secret about it."""
    trained(long / "base")
    case = Case.open(long / "case")
    case.check_silent_changes()
    assert pending(long / "case")[0] == "diff"
    assert case.verify() == list(case.checkpoints)
    changed_in_secret(long / "base")
    with pytest.raises(CheckpointError, match="not the bytes"):
        Case.open(long / "case").check_silent_changes()


def test_what_was_changed_in_secret_is_measured_again_when_it_is_named(
    changed_in_secret: Change, long: Path, run: Run
) -> None:
    flow_of(long / "case").bring("coefficients")
    changed_in_secret(long / "base")
    shown = run("diff", long / "base", long / "adapted", "--level", "norms", "--case", long / "case")
    assert "of other settings or checkpoints: running it again" in shown.stderr
    assert pending(long / "case")[0] == "coefficients"
    Case.open(long / "case").verify()


def test_a_recipe_works_where_its_checkpoints_were_copied_to(tmp_path: Path, project: Path, run: Run) -> None:
    recipe = tmp_path / "recipe.yaml"
    shutil.copytree(project, tmp_path / "copy", copy_function=shutil.copy)
    shutil.copy(project / "case" / "recipe.yaml", recipe)
    shutil.rmtree(project)
    shown = run("merge", "--recipe", recipe, "-o", tmp_path / "out")
    assert shown.exit_code == 2
    assert f"checkpoints.base: {project / 'base'}: no such directory" in shown.stderr
    assert "put its path there into the recipe" in shown.stderr
    recipe.write_text(recipe.read_text().replace(str(project), str(tmp_path / "copy")))
    shown = run("merge", "--recipe", recipe, "-o", tmp_path / "out")
    assert shown.exit_code == 0, shown.stderr
    merged = tmp_path / "copy" / "case" / "merged" / "model.safetensors"
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == merged.read_bytes()
    recipe.write_text(recipe.read_text().replace("/copy/base", "/copy/safety"))
    shown = run("merge", "--recipe", recipe, "-o", tmp_path / "other")
    assert shown.exit_code == 2
    assert "changed since the recipe was made, or is another checkpoint" in shown.stderr
    assert Checkpoint.open(tmp_path / "copy" / "safety").identity in shown.stderr
