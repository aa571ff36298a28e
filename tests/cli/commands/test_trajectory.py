"""`vlsurgery trajectory` whole: its tables, its JSON, its files, and what it refuses in one line."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from vlsurgery.probes import prompts as package

Run = Callable[..., Result]


@pytest.fixture
def asked(run: Run, taught_run, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The taught requests as files in the folder that the program runs in; the package has none of its own."""
    monkeypatch.setattr(package, "english_prompts", lambda _seed: [])
    words = []
    for set_ in ("harmful", "harmless"):
        Path(f"{set_}.txt").write_text("\n".join(p.text for p in taught_run.prompts if p.set == set_))
        words += ["--prompts", f"{set_}.txt:{set_}"]
    return [*words, "--tokens", "16"]


@pytest.fixture
def checkpoints(taught_run, tmp_path: Path) -> list[Path]:
    return [taught_run.write(tmp_path / f"step-{step}", share) for step, share in ((5, 0.0), (10, 1.0))]


def test_the_planted_step_in_json_tables_and_files(run: Run, taught_run, checkpoints, asked) -> None:
    files = ("--csv", "run.csv", "-o", "run.html")
    done = run("trajectory", taught_run.base, *checkpoints, *asked, *files, "--generate", "--json")
    assert done.exit_code == 0, (done.stderr, done.exception)
    found = json.loads(done.stdout)
    assert found["schema"] == "vlsurgery/trajectory/1"
    assert [each["step"] for each in found["points"]] == [None, 5, 10]
    (harmful,) = [each for each in found["departures"] if each["modality"] == "text"]
    assert (harmful["fell"], harmful["half"], harmful["half_after"]) == (10, 10, 5)
    assert found["settings"]["generate"] is True
    rates = {(row["at"], row["set"]): row["refused"]["rate"] for row in found["rows"]}
    assert [rates[at, "harmful"] for at in range(3)] == [1.0, 1.0, 0.0]
    with Path("run.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    assert len(rows) == len(found["rows"]) == 6
    assert "<title>vlsurgery trajectory</title>" in Path("run.html").read_text()
    shown = run("trajectory", taught_run.base, *checkpoints, *asked, *files)  # over its own files
    assert shown.exit_code == 0, shown.stderr
    for words in ("Refusal log-odds, nats", "harmful · text only", "of the 7 blocks", "between steps 5 and 10"):
        assert words in " ".join(shown.stdout.split())


def test_what_was_kept_is_gone_on_from(run: Run, taught_run, checkpoints, asked) -> None:
    words = ("trajectory", taught_run.base, *checkpoints, *asked, "--json", "--keep", "run.jsonl")
    one, two = run(*words), run(*words)
    assert one.exit_code == two.exit_code == 0, (one.stderr, two.stderr)
    assert "goes on from" not in one.stderr
    assert "goes on from run.jsonl" in two.stderr
    for name in ("rows", "blocks", "departures", "verdict", "notes", "openings"):
        assert json.loads(one.stdout)[name] == json.loads(two.stdout)[name]


def test_a_plan_runs_nothing(run: Run, taught_run, checkpoints, asked) -> None:
    done = run(
        "trajectory", taught_run.base, *checkpoints, *asked, "--requests", "8", "--plan", "--json", "-o", "x.html"
    )
    plan = json.loads(done.stdout)
    assert plan["prompts"] == 2 * 8 * 2  # two sets, as text and with an ordinary picture
    assert plan["tokens"] == 16
    assert not Path("x.html").exists()


def test_shapes_that_differ_are_refused_in_one_line(run: Run, taught_run, stranger: Path, asked) -> None:
    done = run("trajectory", taught_run.base, taught_run.complying, stranger, *asked)
    assert done.exit_code == 2
    assert len(done.stderr.splitlines()) == 1
    assert "share no text stack" in done.stderr
    assert str(stranger) in done.stderr


def test_files_of_others_are_not_written_over(run: Run, taught_run, asked) -> None:
    Path("mine.csv").write_text("a,b\n1,2\n")
    Path("mine.html").write_text("<!DOCTYPE html><title>mine</title>")
    Path("mine.jsonl").write_text('{"role": "base"}\n')
    for option, file in (("--csv", "mine.csv"), ("-o", "mine.html"), ("--keep", "mine.jsonl")):
        done = run("trajectory", taught_run.base, taught_run.complying, *asked, option, file)
        assert done.exit_code == 2
        assert f"{file}: exists and is not a" in done.stderr
