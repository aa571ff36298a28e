"""Commands that run no model, on tiny checkpoints; plans of those that do."""

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from vlsurgery.cli.workflow.case import Case
from vlsurgery.cli.workflow.estimates import PROGRAM_BYTES
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.merge.recipe import Recipe

Run = Callable[..., Result]


def files(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.fixture
def opened(run: Run, trio: dict[str, Path]) -> Path:
    """A case on the trio with its diff done."""
    assert run("diff", trio["base"], trio["adapted"], trio["safety"]).exit_code == 0
    return Path("case")


def test_diff_opens_the_case_and_shows_every_layer(run: Run, trio: dict[str, Path]) -> None:
    shown = run("diff", trio["base"], trio["adapted"], trio["safety"])
    assert shown.exit_code == 0
    result = json.loads(Path("case/diff.json").read_text())
    for block in result["blocks"]:
        assert f"{block['metrics']['vl']['relative']:#.3g}" in shown.stdout
    assert "not where safety went" in " ".join(shown.stdout.split())
    assert set(Case.open("case").checkpoints) == {"base", "adapted", "safety"}


def test_diff_prints_the_very_result_that_it_saves(run: Run, trio: dict[str, Path]) -> None:
    shown = run("diff", trio["base"], trio["adapted"], "--json")
    assert shown.stdout == Path("case/diff.json").read_text()


def test_diff_is_done_once(run: Run, trio: dict[str, Path], opened: Path) -> None:
    before = files(opened)
    again = run("diff", trio["base"], trio["adapted"], trio["safety"])
    assert "nothing changed" in again.stderr
    assert files(opened).keys() == before.keys()
    assert files(opened)["diff.json"] == before["diff.json"]


@pytest.mark.usefixtures("opened")
def test_diff_into_another_case_needs_new(run: Run, trio: dict[str, Path]) -> None:
    refused = run("diff", trio["base"], trio["safety"])
    assert refused.exit_code == 2
    assert "--new" in refused.stderr
    assert run("diff", trio["base"], trio["safety"], "--plan").exit_code == 2
    assert run("diff", trio["base"], trio["safety"], "--new").exit_code == 0
    assert Path("case-1/diff.json").exists()
    assert set(Case.open("case").checkpoints) == {"base", "adapted"}


def test_the_long_table_has_a_line_per_pair(run: Run, trio: dict[str, Path]) -> None:
    assert run("diff", trio["base"], trio["adapted"], "--csv", "table.csv").exit_code == 0
    rows = list(csv.DictReader(Path("table.csv").read_text().splitlines()))
    pairs = json.loads(Path("case/diff.json").read_text())["pairs"]
    assert [row["component"] for row in rows] == [pair["component"] for pair in pairs]
    assert [float(row["vl.relative"]) for row in rows] == [pair["metrics"]["vl"]["relative"] for pair in pairs]


def test_the_long_table_has_a_column_per_number_and_lists_as_json(run: Run, trio: dict[str, Path]) -> None:
    assert run("diff", *trio.values(), "--csv", "table.csv").exit_code == 0
    rows = list(csv.DictReader(Path("table.csv").read_text().splitlines()))
    pairs = json.loads(Path("case/diff.json").read_text())["pairs"]
    both = [(row, pair["metrics"]) for row, pair in zip(rows, pairs, strict=True) if pair["component"] == "attn.q"]
    assert both
    for row, metrics in both:
        assert float(row["between.cosine_null.mean"]) == metrics["between"]["cosine_null"]["mean"]
        assert float(row["vl.energy.8"]) == metrics["vl"]["energy"]["8"]
        assert json.loads(row["vl.singular_values"]) == metrics["vl"]["singular_values"]
    assert not any(key in row for row in rows for key in ("vl", "safety", "between"))


def test_norms_alone_do_not_wait_for_torch(run: Run, trio: dict[str, Path]) -> None:
    """Its import takes longer than the sums of a small model."""
    arguments = ["diff", *map(str, trio.values()), "--level", "norms"]
    script = (
        f"import sys; from vlsurgery.cli.main import app; app({arguments}, standalone_mode=False); "
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.stdout.splitlines()[-1:], done.returncode) == (["False"], 0), done.stderr


def test_norms_are_redone_when_full_is_asked_and_full_serves_norms(run: Run, trio: dict[str, Path]) -> None:
    command = ("diff", *trio.values())

    def level() -> object:
        return json.loads(Path("case/diff.json").read_text())["settings"]["level"]

    norms = run(*command, "--level", "norms")
    assert "takes about" not in norms.stderr
    assert level() == "norms"
    assert "Shape of the deltas" not in norms.stdout
    assert "nothing changed" in run(*command, "--level", "norms").stderr
    # Other commands take the diff as it is.
    assert "nothing changed" not in run("report").stderr
    assert level() == "norms"
    full = run(*command)
    assert "other settings" in full.stderr
    assert "finds the spectrum of every matrix" in full.stderr
    assert level() == "full"
    assert "Shape of the deltas" in full.stdout
    assert "nothing changed" in run(*command, "--level", "norms").stderr
    assert level() == "full"


def test_the_plan_of_a_diff_counts_the_bytes_that_it_reads(run: Run, trio: dict[str, Path]) -> None:
    (step,) = json.loads(run("diff", *trio.values(), "--plan", "--json").stdout)["plan"]
    stored = sum(tensor.nbytes for path in trio.values() for tensor in Checkpoint.open(path).values())
    assert (step["bytes_read"], step["bytes_written"], step["prompts"]) == (stored, 0, 0)


def test_quiet_keeps_notices_to_itself(run: Run, trio: dict[str, Path]) -> None:
    shown = run("diff", trio["base"], trio["adapted"], "--quiet")
    assert shown.stderr == ""
    assert "layer" in shown.stdout


def test_anatomy_counts_every_parameter(run: Run, trio: dict[str, Path]) -> None:
    shown = run("anatomy", trio["base"])
    total = sum(tensor.numel for tensor in Checkpoint.open(trio["base"]).values())
    assert f"{total:,}" in shown.stdout
    assert "attn.q" in shown.stdout
    assert "0-1" in shown.stdout


def test_a_report_of_a_diff_alone_names_what_is_missing(run: Run, opened: Path) -> None:
    shown = run("report")
    assert shown.exit_code == 0
    assert shown.stdout.strip() == str(opened / "report.html")
    assert "vlsurgery evaluate" in (opened / "report.html").read_text()


def test_a_report_goes_where_it_is_told(run: Run, opened: Path) -> None:
    assert run("report", "-o", "elsewhere.html", "--cdn").exit_code == 0
    assert Path("elsewhere.html").stat().st_size < 2e6
    assert not (opened / "report.html").exists()


def test_merge_by_recipe_needs_no_case(run: Run, trio: dict[str, Path]) -> None:
    checkpoints = {role: Checkpoint.open(trio[role]) for role in ("base", "adapted")}
    Recipe.of(checkpoints, {"default": {"base": 1.0}}).save(Path("recipe.yaml"))
    planned = run("merge", "--recipe", "recipe.yaml", "-o", "merged", "--plan")
    assert planned.exit_code == 0
    assert not Path("merged").exists()
    shown = run("merge", "--recipe", "recipe.yaml", "-o", "merged", "--json")
    assert shown.exit_code == 0, shown.stderr
    assert json.loads(shown.stdout)["path"] == "merged"
    merged = Checkpoint.open("merged")
    assert all(merged[name].load().equal(checkpoints["base"][name].load()) for name in merged)
    assert not Path("case").exists()


@pytest.mark.parametrize(
    ("arguments", "steps"),
    [
        (("probe",), ["probe"]),
        (("merge", "--auto"), ["probe", "coefficients", "merge", "evaluate", "report"]),
        (("evaluate",), ["evaluate"]),
        (("report",), ["report"]),
    ],
)
def test_a_plan_names_the_steps_and_writes_nothing(
    run: Run, opened: Path, arguments: tuple[str, ...], steps: list[str]
) -> None:
    before = files(opened.parent)
    plan = json.loads(run(*arguments, "--plan", "--json").stdout)["plan"]
    assert [step["step"] for step in plan] == steps
    assert all(step["memory"] > 0 and (step["bytes_read"] > 0) == (step["step"] != "report") for step in plan)
    asks = {step["step"] for step in plan if step["prompts"] > 0}
    assert asks == set(steps) & {"probe", "coefficients", "evaluate"}
    shown = run(*arguments, "--plan")
    assert shown.exit_code == 0
    assert all(step in shown.stdout for step in steps)
    assert files(opened.parent) == before


@pytest.mark.usefixtures("opened")
def test_a_plan_counts_the_model_in_the_dtype_that_it_runs_in(run: Run, trio: dict[str, Path]) -> None:
    def beside_the_program(dtype: str) -> float:
        plan = json.loads(run("probe", "--dtype", dtype, "--plan", "--json").stdout)["plan"]
        return next(step["memory"] for step in plan if step["step"] == "probe") - PROGRAM_BYTES

    weights = 4 * sum(tensor.numel for tensor in Checkpoint.open(trio["adapted"]).values())
    assert beside_the_program("float32") >= weights
    assert beside_the_program("float32") == 2 * beside_the_program("bfloat16")
    assert "Memory is the peak of the process" in " ".join(run("probe", "--plan").stdout.split())


def test_the_plan_of_a_case_that_is_not_there_makes_none(run: Run, trio: dict[str, Path]) -> None:
    plan = json.loads(run("diff", trio["base"], trio["adapted"], "--plan", "--json").stdout)["plan"]
    assert [(step["step"], step["writes"]) for step in plan] == [("diff", ["diff.json"])]
    assert run("probe", trio["base"], trio["adapted"], "--plan").exit_code == 0
    assert not Path("case").exists()


def test_the_plan_of_the_demo_trains_nothing(run: Run) -> None:
    plan = json.loads(run("demo", "--plan", "--json").stdout)["plan"]
    assert [step["step"] for step in plan] == ["train", "diff", "probe", "coefficients", "merge", "evaluate", "report"]
    assert not Path("case").exists()


@pytest.mark.usefixtures("opened")
def test_nothing_to_do_is_a_plan_too(run: Run, trio: dict[str, Path]) -> None:
    shown = run("diff", trio["base"], trio["adapted"], trio["safety"], "--plan")
    assert "Nothing to do" in shown.stdout
