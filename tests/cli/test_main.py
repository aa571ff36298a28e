"""The program as a whole: help, what it imports, usage errors."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from vlsurgery.cli.main import app, run

COMMANDS = ("diff", "probe", "merge", "evaluate", "report", "anatomy", "convert", "demo")
OPTIONS = {
    "diff": ("BASE", "ADAPTED", "SAFETY", "--csv", "--new"),
    "probe": ("BASE", "--prompts", "--new", "--dtype", "--device", "--memory"),
    "merge": (
        "--auto",
        "--recipe",
        "--policy",
        "best|linearised|fit|attribution|weights|uniform",
        "--sparse",
        "--extrapolate",
        "--frontier",
        "--points",
        "--price",
        "--write-anyway",
        "--toward",
        "-o, --out",
        "--prompts",
    ),
    "evaluate": ("--prompts", "--dtype", "--device", "--memory"),
    "report": ("-o, --out", "--cdn"),
    "anatomy": ("CHECKPOINT",),
    "convert": ("FILE.gguf", "-o, --out", "--dtype", "--max-shard-size", "--ray"),
    "demo": ("--seed", "--new"),
}
HEAVY = ("torch", "transformers", "pydantic", "plotly", "numpy", "rich", "PIL", "yaml")


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def test_help_names_every_command() -> None:
    shown = invoke("--help")
    assert shown.exit_code == 0
    for command in COMMANDS:
        assert f"\n  {command} " in shown.stdout
    assert "..." not in shown.stdout.split("Commands:")[1], "a command's one-line help is cut off"


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_says_what_it_does_needs_and_writes_with_an_example(command: str) -> None:
    text = invoke(command, "--help").stdout
    for option in (*OPTIONS[command], "--case", "--json", "--quiet", "--plan"):
        assert option in text
    assert "Needs" in text or "needs" in text
    assert "rites" in text
    assert f"Example:\n    vlsurgery {command}" in text


def test_help_of_the_demo_tells_the_pinned_seed() -> None:
    from vlsurgery.probes.specimens.miniature import DEMO_SEED

    words = invoke("demo", "--help").stdout.replace("│", " ").split()
    assert f"[default: {DEMO_SEED}, which is pinned" in " ".join(words)


def test_help_is_light() -> None:
    """A subprocess, because this one has imported everything already."""
    code = (
        "import sys; from vlsurgery.cli.main import run; sys.argv = ['vlsurgery', '--help']\n"
        "try: run()\n"
        "except SystemExit as end: assert not end.code\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    assert "vlsurgery" in done.stdout


def test_version() -> None:
    shown = invoke("--version")
    assert shown.exit_code == 0
    assert shown.stdout.startswith("vlsurgery ")


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("nonsense",),
        ("diff",),
        ("diff", "one"),
        ("anatomy",),
        ("merge", "--policy", "luck"),
        ("demo", "--seed", "x"),
    ],
)
def test_usage_errors_exit_with_2(arguments: tuple[str, ...]) -> None:
    shown = invoke(*arguments)
    assert shown.exit_code == 2
    assert "Traceback" not in shown.stderr


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (("merge",), "one of --auto, --recipe FILE -o OUT, or --method NAME MODEL ... -o OUT"),
        (("merge", "--auto", "--recipe", "r.yaml"), "one of --auto, --recipe FILE -o OUT, or --method"),
        (("merge", "--recipe", "r.yaml"), "add -o OUT"),
        (("probe", "only-one"), "expected BASE ADAPTED [SAFETY ...], found 1"),
    ],
)
def test_contradictions_say_what_to_do(arguments: tuple[str, ...], fault: str) -> None:
    shown = invoke(*arguments)
    assert shown.exit_code == 2
    assert fault in shown.stderr
    assert shown.stderr.count("\n") == 1


def test_a_bug_shows_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what a user can mend becomes one line."""

    def broken(ref: str, *rest: object, **options: bool) -> None:
        raise ZeroDivisionError(ref)

    monkeypatch.setattr("vlsurgery.surgery.checkpoint.checkpoint.Checkpoint.open", broken)
    shown = invoke("anatomy", "anything")
    assert isinstance(shown.exception, ZeroDivisionError)
    assert shown.exit_code == 1


def test_a_full_disk_is_no_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: str, *rest: object, **options: bool) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "case/diff.json")

    monkeypatch.setattr("vlsurgery.surgery.checkpoint.checkpoint.Checkpoint.open", full)
    shown = invoke("anatomy", "anything")
    assert shown.exit_code == 2
    assert shown.stderr == "error: case/diff.json: No space left on device\n"


def test_a_reader_that_went_away_is_told_nothing(trio: dict[str, Path]) -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "vlsurgery.cli.main", "anatomy", str(trio["base"])]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


def test_json_is_all_that_goes_to_standard_output(trio: dict[str, Path], tmp_path: Path) -> None:
    case = ("--case", str(tmp_path / "case"), "--json")
    for arguments in (
        ("diff", str(trio["base"]), str(trio["adapted"]), *case),
        ("diff", str(trio["base"]), str(trio["adapted"]), "--plan", *case),
        ("anatomy", str(trio["base"]), *case),
        ("anatomy", str(trio["base"]), "--plan", *case),
        ("report", *case),
        ("report", "--plan", *case),
    ):
        shown = invoke(*arguments)
        assert shown.exit_code == 0, shown.stderr
        assert isinstance(json.loads(shown.stdout), dict)


def test_the_console_script_is_run() -> None:
    assert callable(run)
