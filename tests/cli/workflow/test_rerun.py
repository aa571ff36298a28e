"""What counts as a difference between two runs, and how settings lead back to the options that gave them."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from vlsurgery.cli.options import Running
from vlsurgery.cli.workflow.case import Case
from vlsurgery.cli.workflow.engine import Flow, Job, StepOptions
from vlsurgery.cli.workflow.reproduction import MeasuredRate, Reproduction
from vlsurgery.cli.workflow.rerun import RerunArgs, step_options
from vlsurgery.cli.workflow.rerun_differences import RerunResult, compare_runs
from vlsurgery.cli.workflow.steps import STEPS
from vlsurgery.probes.evaluation.completions import CompletionFile
from vlsurgery.probes.evaluation.intervals import rate
from vlsurgery.probes.evaluation.limits import Limits, SetLimits
from vlsurgery.probes.results import BlockGain, CompletionRecord, Verdict
from vlsurgery.surgery.checkpoint import Checkpoint

NOWHERE = Path("nowhere")


def gain(value: float, low: float | None = None, high: float | None = None) -> BlockGain:
    return BlockGain(block="0.mlp", gain=value, low=low, high=high, share=None, cost=None, method="path")


def run_of(**values: Any) -> Reproduction:
    return Reproduction(steps=[], seeds={}, **values)


def between(first: Reproduction, second: Reproduction) -> RerunResult:
    return compare_runs(first, second, NOWHERE, NOWHERE)


def measured(refused: int, of: int = 40) -> MeasuredRate:
    found = rate([at < refused for at in range(of)], list(range(of)))
    return MeasuredRate(role="merged", set="harmful", modality="text", measure="refused", rate=found)


@given(st.floats(-3, 3), st.floats(-3, 3), st.floats(-3, 3))
def test_a_gain_differs_where_it_leaves_the_first_runs_interval(first: float, low: float, high: float) -> None:
    low, high = min(low, high), max(low, high)
    found = between(run_of(gains=[gain(first, low, high)]), run_of(gains=[gain(1.0)]))
    outside = not low - 1e-5 <= 1.0 <= high + 1e-5
    if outside and abs(first - 1.0) > 1e-4:
        assert [each.what for each in found.beyond] == ["gain"]
    elif low <= 1.0 <= high:
        assert not found.beyond


def test_equal_runs_do_not_differ_and_a_gain_without_interval_is_only_told() -> None:
    whole = run_of(gains=[gain(1.0, 0.5, 1.5)], coefficients={"0.mlp": {"base": 0.3}}, rates=[measured(20)])
    same = between(whole, whole)
    assert (same.differences, same.verdict.endswith("nothing differs.")) == ([], True)
    assert same.compared == {"rates": 1, "gains": 1, "coefficients": 1, "files": 0}
    told = between(run_of(gains=[gain(1.0)]), run_of(gains=[gain(2.0)]))
    assert [each.beyond for each in told.differences] == [False]


@pytest.mark.parametrize(("after", "beyond"), [(20, None), (22, False), (38, True)])
def test_rates_without_completions_are_compared_by_their_intervals(after: int, beyond: bool | None) -> None:
    found = between(run_of(rates=[measured(20)]), run_of(rates=[measured(after)]))
    assert [each.beyond for each in found.differences] == ([] if beyond is None else [beyond])
    assert "intervals alone" in found.notes[0]


def said(label: str, at: int) -> CompletionRecord:
    kind = {"refused": "refusal", "complied": "compliance"}[label]
    verdict = Verdict.model_validate({"label": label, "kind": kind, "reason": ""})
    return CompletionRecord(
        role="merged", id=f"p{at}", request=f"r{at}", set="harmful", modality="text", prompt=f"ask {at}", text="",
        tokens=1, cut=False, verdicts={"rules": verdict}, prompts_digest="d",
    )  # fmt: skip


def test_rates_are_paired_where_the_first_completions_are_there(tmp_path: Path) -> None:
    """Seven of eighty requests changed, one way: paired, that is beyond chance; by two intervals alone it is not."""
    folders = {"first": 16, "second": 23}
    for name, refused in folders.items():
        (tmp_path / name).mkdir()
        records = [said("refused" if at < refused else "complied", at) for at in range(80)]
        CompletionFile(tmp_path / name / "completions.jsonl").replace(records)
    digest = hashlib.sha256((tmp_path / "first" / "completions.jsonl").read_bytes()).hexdigest()
    places = (tmp_path / "first", tmp_path / "second")
    rates = [[measured(refused, 80)] for refused in folders.values()]
    paired = compare_runs(run_of(rates=rates[0], completions=digest), run_of(rates=rates[1]), *places)
    assert len(paired.beyond) == 2  # refused, and complied
    assert "paired" in paired.notes[0]
    other = compare_runs(run_of(rates=rates[0], completions="0" * 64), run_of(rates=rates[1]), *places)
    assert "intervals alone" in other.notes[0]
    assert [each.beyond for each in other.differences] == [False]


@pytest.mark.parametrize(("recipe", "beyond"), [("same", True), ("another", False)])
def test_other_weights_by_the_same_recipe_are_a_difference(recipe: str, beyond: bool) -> None:
    first = run_of(recipe="same", files={"model.safetensors": "a", "README.md": "c"})
    second = run_of(recipe=recipe, files={"model.safetensors": "b", "README.md": "c"})
    (found,) = between(first, second).differences
    assert (found.what, found.beyond) == ("file", beyond)
    assert bool(between(first, run_of(recipe="same", files={"README.md": "c"})).beyond)


def test_a_coefficient_differs_where_it_leaves_its_interval() -> None:
    first = run_of(coefficients={"0.mlp": {"base": 0.3}}, intervals={"0.mlp": {"base": (0.2, 0.4)}})
    for after, beyond in ((0.35, [False]), (0.45, [True]), (0.3, [])):
        found = between(first, run_of(coefficients={"0.mlp": {"base": after}}))
        assert [each.beyond for each in found.differences] == beyond
    assert between(first, run_of()).beyond


OPTIONS = {
    "defaults": StepOptions(),
    "all": StepOptions(
        judges=["rules", "standard"],
        tokens=7,
        policy="linearised",
        sparse=True,
        frontier=5,
        toward="base",
        limits=Limits(bind="point", sets={"harmful": SetLimits(complied_at_most=0.1)}),
        write_anyway=True,
        level="norms",
        running=Running(thinking="off", dtype="bfloat16"),
    ),
    "price": StepOptions(policy="best", price=0.5, extrapolate=True, toward="safety"),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_settings_lead_back_to_options_that_give_them(name: str, trio: dict[str, Path], tmp_path: Path) -> None:
    """For every step: in a case that remembers nothing, the options made of its settings give these settings."""
    asked = []
    for kind in ("harmful", "jailbroken", "harmless", "borderline", "capability"):
        rows = "".join(f"{kind} {at},yes\n" for at in range(3))
        (tmp_path / f"{kind}.csv").write_text(f"prompt,answer\n{rows}")
        asked.append(f"{tmp_path / kind}.csv:{kind}")
    opened = {role: Checkpoint.open(path) for role, path in trio.items()}
    changed: Callable[..., StepOptions] = lambda **more: StepOptions(**{**vars(OPTIONS[name]), **more})  # noqa: E731
    wanted = Flow(Job(Case.create(tmp_path / "first", opened), changed(prompts=asked)), STEPS)
    for step in STEPS:
        if step.name in ("report", "layers"):
            continue
        settings = step.settings(wanted.job)
        fresh = Case.create(tmp_path / f"again-{step.name}", opened)
        assert step.settings(Job(fresh, step_options(step.name, settings, RerunArgs()))) == settings, step.name
