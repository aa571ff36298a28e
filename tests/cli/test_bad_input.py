"""Every command meets every bad input with one line, exit code 2, and nothing half-written."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from vlsurgery.cli.workflow.case import Case
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.merge.recipe import Recipe

Run = Callable[..., Result]


def missing(folder: Path) -> str:
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    return "no such directory"


def without_weights(folder: Path) -> str:
    (folder / "model.safetensors").unlink()
    return "safetensors"


def truncated(folder: Path) -> str:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    return "model.safetensors"


def pickled(folder: Path) -> str:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    return "pickle"


FAULTS = (missing, without_weights, truncated, pickled)


def refused(shown: Result, *words: str) -> None:
    """One line that names the fault, and exit code 2."""
    assert shown.exit_code == 2, (shown.stdout, shown.stderr, shown.exception)
    assert shown.stdout == ""
    lines = shown.stderr.splitlines()
    assert lines[-1].startswith("error: ")
    assert not any(line.startswith("error: ") for line in lines[:-1])
    assert "Traceback" not in shown.stderr
    for word in words:
        assert word in lines[-1]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("role", ["base", "adapted", "safety"])
@pytest.mark.parametrize("command", ["diff", "probe"])
def test_a_bad_checkpoint_opens_no_case(
    run: Run, trio: dict[str, Path], command: str, role: str, fault: Callable[[Path], str]
) -> None:
    word = fault(trio[role])
    refused(run(command, *trio.values()), word, str(trio[role]))
    refused(run(command, *trio.values(), "--plan"), word, str(trio[role]))
    assert not Path("case").exists()


@pytest.mark.parametrize(
    ("command", "fault"),
    [
        *((command, fault) for command in ("probe", "merge", "evaluate") for fault in FAULTS),
        # A report is written where the checkpoints are absent, but not where they are damaged.
        ("report", truncated),
        ("report", pickled),
    ],
)
def test_a_checkpoint_that_went_bad_stops_every_step(
    run: Run, trio: dict[str, Path], command: str, fault: Callable[[Path], str]
) -> None:
    assert run("diff", *trio.values()).exit_code == 0
    before = sorted(os.listdir("case"))
    word = fault(trio["adapted"])
    refused(run(command, *(["--auto"] if command == "merge" else [])), word, str(trio["adapted"]))
    assert sorted(os.listdir("case")) == before


@pytest.mark.parametrize("fault", FAULTS)
def test_anatomy_of_a_bad_checkpoint(run: Run, trio: dict[str, Path], fault: Callable[[Path], str]) -> None:
    word = fault(trio["base"])
    refused(run("anatomy", trio["base"]), word, str(trio["base"]))
    refused(run("anatomy", trio["base"], "--json"), word)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_recipe_of_a_bad_checkpoint_writes_nothing(
    run: Run, trio: dict[str, Path], fault: Callable[[Path], str]
) -> None:
    recipe_of(trio).save(Path("recipe.yaml"))
    word = fault(trio["base"])
    refused(run("merge", "--recipe", "recipe.yaml", "-o", "out"), word)
    assert os.listdir(".") == ["recipe.yaml"]


@pytest.mark.parametrize("command", ["diff", "probe"])
def test_checkpoints_that_share_nothing_open_no_case(
    run: Run, trio: dict[str, Path], stranger: Path, command: str
) -> None:
    refused(run(command, trio["base"], stranger))
    assert not Path("case").exists()


def test_a_recipe_of_checkpoints_that_share_nothing(run: Run, trio: dict[str, Path], stranger: Path) -> None:
    recipe_of({"base": stranger, "adapted": trio["adapted"]}).save(Path("recipe.yaml"))
    refused(run("merge", "--recipe", "recipe.yaml", "-o", "out"))
    assert os.listdir(".") == ["recipe.yaml"]


@pytest.mark.parametrize("command", [("probe",), ("merge", "--auto"), ("evaluate",), ("report",)])
def test_without_a_case_every_command_names_the_one_that_opens_it(run: Run, command: tuple[str, ...]) -> None:
    refused(run(*command), "vlsurgery diff BASE ADAPTED")
    refused(run(*command, "--plan"), "vlsurgery diff BASE ADAPTED")
    assert os.listdir(".") == []


@pytest.mark.parametrize("command", ["diff", "probe", "demo"])
def test_a_case_that_cannot_be_made(run: Run, trio: dict[str, Path], command: str) -> None:
    """Below a file there can be no folder, not even for root."""
    Path("file").write_text("")
    refused(run(command, *([] if command == "demo" else trio.values()), "--case", "file/case"), "file/case")
    assert os.listdir(".") == ["file"]


@pytest.mark.parametrize(
    "command",
    [("report", "-o", "file/report.html"), ("merge", "--auto", "-o", "file/merged"), ("merge", "--auto", "-o", "full")],
)
def test_a_target_that_cannot_be_written_in_a_case(run: Run, trio: dict[str, Path], command: tuple[str, ...]) -> None:
    """Known before anything is probed: the merge's own target is looked at first."""
    assert run("diff", *trio.values()).exit_code == 0
    Path("file").write_text("")
    Path("full").mkdir()
    Path("full/precious").write_text("")
    before = sorted(os.listdir("case"))
    refused(run(*command), command[-1])
    assert sorted(os.listdir("case")) == before
    assert os.listdir("full") == ["precious"]


def test_a_merge_never_writes_over_its_inputs(run: Run, trio: dict[str, Path]) -> None:
    assert run("diff", *trio.values()).exit_code == 0
    before = Checkpoint.open(trio["base"]).identity
    refused(run("merge", "--auto", "-o", trio["base"]), str(trio["base"]))
    assert Checkpoint.open(trio["base"]).identity == before


def test_tables_and_recipes_that_cannot_be_written(run: Run, trio: dict[str, Path]) -> None:
    Path("file").write_text("")
    refused(run("diff", *trio.values(), "--csv", "file/table.csv"), "file/table.csv", "--csv")
    recipe_of(trio).save(Path("recipe.yaml"))
    refused(run("merge", "--recipe", "recipe.yaml", "-o", "file/out"), "file/out", "-o")


@pytest.mark.parametrize("text", ["", "schema: something/else/1", "{", "schema: vlsurgery/recipe/1\nspice: 3"])
def test_a_bad_recipe_is_named(run: Run, text: str) -> None:
    Path("recipe.yaml").write_text(text)
    refused(run("merge", "--recipe", "recipe.yaml", "-o", "out"), "recipe.yaml")
    refused(run("merge", "--recipe", "absent.yaml", "-o", "out"), "absent.yaml")


@pytest.mark.parametrize("spec", ["nowhere.txt:harmful", "nonsense", "file.txt:nonsense"])
def test_prompts_that_cannot_be_read(run: Run, trio: dict[str, Path], spec: str) -> None:
    Path("file.txt").write_text("a question\n")
    assert run("diff", *trio.values()).exit_code == 0
    refused(run("probe", "--prompts", spec), spec.split(":")[0])


def test_a_case_file_that_is_damaged_is_named(run: Run, trio: dict[str, Path]) -> None:
    assert run("diff", *trio.values()).exit_code == 0
    Path("case/case.json").write_text("{")
    refused(run("report"), "case.json")


def test_toward_safety_without_one(run: Run, trio: dict[str, Path]) -> None:
    assert run("diff", trio["base"], trio["adapted"]).exit_code == 0
    refused(run("merge", "--auto", "--toward", "safety", "--plan"), "no safety checkpoint")


def recipe_of(roles: dict[str, Path]) -> Recipe:
    return Recipe.of({role: Checkpoint.open(path) for role, path in roles.items()}, {"default": {"base": 0.5}})


SLOW = """
import sys, time
from vlsurgery.surgery.checkpoint import LazyTensor
read = LazyTensor.read_into
count = 0
def slow(self, buffer, start=0):
    global count
    count += 1
    if count == 20:
        print("in the middle", flush=True)
        time.sleep(3)  # in a thread, which ends what it is at
    return read(self, buffer, start)
LazyTensor.read_into = slow
from vlsurgery.cli.main import run
run()
"""


@pytest.mark.parametrize("command", ["diff", "merge"])
def test_ctrl_c_in_the_middle(tmp_path: Path, trio: dict[str, Path], command: str) -> None:
    """A real process, a real signal, while tensors are being read."""
    recipe_of(trio).save(tmp_path / "recipe.yaml")
    arguments = {
        "diff": ["diff", *map(str, trio.values())],
        "merge": ["merge", "--recipe", "recipe.yaml", "-o", "out"],
    }
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, *arguments[command]],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    assert process.stdout.readline() == "in the middle\n"
    process.send_signal(signal.SIGINT)
    printed, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert printed == ""
    assert said.splitlines()[-1].startswith("interrupted: ")
    assert "Traceback" not in said
    assert not (tmp_path / "out").exists()
    # What a merge has finished by then stays for the same command to go on with, and nothing else does.
    assert {path.name for path in tmp_path.glob("*.partial")} <= {"out.partial"}
    assert not (tmp_path / "case" / "diff.json").exists()
    if command == "diff":
        assert Case.open(tmp_path / "case").settings_of("diff") is None
        assert json.loads((tmp_path / "case" / "case.json").read_text())["steps"] == {}


@pytest.mark.parametrize(
    ("typed", "most"),
    [
        ("merge --auto --frontier --points", 200),
        ("evaluate --tokens", 32_768),
        ("trajectory base run --generate --tokens", 32_768),
        ("demo --plan --seed", 2**63 - 1),
    ],
)
def test_a_number_that_no_run_comes_to_the_end_of_is_refused_before_it_begins(run: Run, typed: str, most: int) -> None:
    shown = run(*typed.split(), most + 1)
    assert shown.exit_code == 2
    # typer 0.19 says behind the option that no variable stands for it.
    line = shown.stderr.splitlines()[-1].replace(" (env var: 'None')", "")
    assert line.startswith(f"Error: Invalid value for '{typed.split()[-1]}': ")
    assert str(most) in line
