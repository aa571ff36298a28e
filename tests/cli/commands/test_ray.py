"""`--ray`: what the plan says, what is refused, and that results are those without it. The cluster is this process."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from vlsurgery.cli.main import with_local_cluster
from vlsurgery.surgery.runtime import ray_cluster as clusters

Run = Callable[..., Result]


def ties(trio: dict[str, Path]) -> list[object]:
    return ["merge", "--method", "ties", trio["adapted"], trio["safety"], "--base", trio["base"], "--density", 0.5]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_merge_and_a_diff_are_those_without_it(run: Run, trio: dict[str, Path], addresses: list[str]) -> None:
    for out, more in (("alone", []), ("divided", ["--ray", "local:2"])):
        assert run(*ties(trio), "-o", out, *more).exit_code == 0
        named = [trio[role] for role in ("base", "adapted", "safety")]
        shown = run("diff", *named, "--level", "norms", "--case", f"case-{out}", *more)
        assert shown.exit_code == 0, shown.stderr
    assert contents(Path("alone")) == contents(Path("divided"))
    one, other = (json.loads(Path(f"case-{out}", "diff.json").read_text()) for out in ("alone", "divided"))
    assert one.pop("created")
    assert other.pop("created")
    assert one == other
    assert addresses == ["local:2"] * 2


def test_a_plan_says_tasks_bytes_and_time_and_starts_nothing(
    run: Run, trio: dict[str, Path], addresses: list[str]
) -> None:
    shown = run(*ties(trio), "-o", "out", "--plan", "--json", "--ray", "local:3")
    (step,) = json.loads(shown.stdout)["plan"]
    divided = step["ray"]
    assert (divided["tasks"], divided["workers"]) == (1, 1)
    assert divided["worker_bytes"] == pytest.approx(step["bytes_read"] + step["bytes_written"], rel=0.01)
    assert 0 < divided["seconds"] < 600
    named = [trio[role] for role in ("base", "adapted", "safety")]
    shown = run("diff", *named, "--plan", "--json", "--ray", "local:3")
    (step,) = json.loads(shown.stdout)["plan"]
    assert step["ray"]["workers"] == 3
    assert step["ray"]["tasks"] > 3
    assert step["bytes_read"] / 3 <= step["ray"]["worker_bytes"] < step["bytes_read"]
    assert "tasks for 3 workers" in run("diff", *named, "--plan", "--ray", "local:3").stdout
    assert not addresses
    assert not list(Path().iterdir())


def test_a_plan_counts_the_merges_of_a_choice(run: Run, trio: dict[str, Path]) -> None:
    assert run("diff", *(trio[role] for role in ("base", "adapted", "safety")), "--level", "norms").exit_code == 0
    shown = run("merge", "--auto", "--frontier", "--points", 5, "--plan", "--json", "--ray", "local:3")
    steps = {step["step"]: step for step in json.loads(shown.stdout)["plan"]}
    choice, divided = steps["coefficients"], steps["coefficients"]["ray"]
    merges = round(15 + 2.6 * 8) + 4 + 5  # the grid of two sources, starts by gains, other prices
    assert merges + choice["gradient"] / 32 <= divided["tasks"] < merges + choice["gradient"]
    assert (divided["workers"], divided["worker_bytes"]) == (3, choice["bytes_read"])
    assert divided["seconds"] > 0
    assert steps["probe"]["ray"]["workers"] == 3
    assert not Path("case/tradeoff.json").exists()


def test_a_plan_counts_the_tasks_of_a_probe(run: Run, trio: dict[str, Path]) -> None:
    assert run("diff", *(trio[role] for role in ("base", "adapted", "safety")), "--level", "norms").exit_code == 0
    planned = []
    for workers in (1, 2, 40):
        (step,) = json.loads(run("probe", "--plan", "--json", "--ray", f"local:{workers}").stdout)["plan"]
        planned.append(step["ray"])
        assert (step["ray"]["workers"], step["ray"]["worker_bytes"]) == (workers, step["bytes_read"])
        # Directions of 4 models in 3 kinds of prompts, layers in 5; completions and passes by batches.
        assert step["completions"] / 64 + 12 + 15 < step["ray"]["tasks"] < step["completions"] + step["gradient"]
    assert planned[0]["tasks"] < planned[1]["tasks"] < planned[2]["tasks"]  # whoever is free takes the next few prompts
    assert 0 < planned[2]["seconds"] < planned[0]["seconds"]


def test_without_it_a_plan_says_nothing_of_it(run: Run, trio: dict[str, Path]) -> None:
    (step,) = json.loads(run(*ties(trio), "-o", "out", "--plan", "--json").stdout)["plan"]
    assert step["ray"] is None


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["-o", "out", "--ray", "nowhere"], "--ray nowhere: expected local, local:N"),
        (["-o", "out", "--ray", "127.0.0.1:1"], "--ray 127.0.0.1:1: "),
        (["-o", "out", "--ray", "local"], "vlsurgery[ray]"),
        (["--to-mergekit", "order.yaml", "--ray", "local"], "leave -o, --verify and --ray out"),
    ],
)
def test_faults_are_one_line_and_write_nothing(
    run: Run, trio: dict[str, Path], monkeypatch: pytest.MonkeyPatch, more: list[str], said: str
) -> None:
    if "local" in more:
        monkeypatch.setattr(clusters, "find_spec", lambda _: None)
    shown = run(*ties(trio), *more)
    assert shown.exit_code == 2
    assert said in shown.stderr
    assert len(shown.stderr.splitlines()) == 1
    assert not list(Path().iterdir())


@pytest.mark.parametrize(
    ("words", "whole"),
    [
        (["merge", "A", "--ray"], ["merge", "A", "--ray", "local"]),
        (["merge", "--ray", "-o", "out"], ["merge", "--ray", "local", "-o", "out"]),
        (["merge", "--ray", "auto", "A"], ["merge", "--ray", "auto", "A"]),
        (["merge", "--ray=auto", "A"], ["merge", "--ray=auto", "A"]),
        (["diff", "--ray", "--", "A", "--ray"], ["diff", "--ray", "local", "--", "A", "--ray"]),
        (["diff", "--", "A", "--ray"], ["diff", "--", "A", "--ray"]),
    ],
)
def test_no_address_is_a_cluster_on_this_machine(words: list[str], whole: list[str]) -> None:
    assert with_local_cluster(words) == whole


def test_a_merge_without_an_address(run: Run, trio: dict[str, Path], addresses: list[str]) -> None:
    assert run(*ties(trio), "--ray", "-o", "out").exit_code == 0
    assert addresses == ["local"]
