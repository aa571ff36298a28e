"""`vlsurgery claims` on cases that are there, what it refuses, and what `demo` says where it has no weights."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import Result

from vlsurgery.cli.workflow import claims as workflow
from vlsurgery.cli.workflow.case import Case
from vlsurgery.cli.workflow.engine import Flow, Job, StepOptions
from vlsurgery.cli.workflow.specimens import REAL_TOKENS, Trained
from vlsurgery.cli.workflow.steps import STEPS
from vlsurgery.probes.evaluation.completions import CompletionFile
from vlsurgery.probes.results import ClaimsResult, CompletionRecord, LayerGains, LayersResult

Run = Callable[..., Result]


@pytest.fixture
def measured(evaluate_by_hand: Callable[..., object], monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """A function that makes a case whose steps count as done, so that no model runs."""

    def make(name: str) -> Path:
        evaluate_by_hand(case=name)
        case = Case.open(name)
        requests = [f"r{at}" for at in range(40)]
        rows = [LayerGains(layer=at, gains=[3.0 * at] * 40) for at in range(2)]
        case.save(LayersResult(records=rows, prompts=requests, requests=requests), {})
        return case.folder

    def brought(session: object, options: object, *goals: str, named: object = None) -> Flow:
        assert named is None
        assert "layers" in goals
        assert "diff" not in goals
        return Flow(Job(Case.open(session.case), options), STEPS)

    monkeypatch.setattr(workflow, "perform", brought)
    return make


def test_cases_of_ones_own_are_measured_together(run: Run, measured: Callable[[str], Path]) -> None:
    for name in ("one", "two"):
        measured(name)
    shown = run("claims", "one", "two")
    assert shown.exit_code == 0, shown.stderr
    result = ClaimsResult.load(Path("claims/claims.json"))
    assert result.cases == ["one", "two"]
    verdicts = {claim.key: claim.verdict for claim in result.records}
    assert (verdicts["C1"], verdicts["C2"], verdicts["C5"]) == ("holds", "holds", "can't tell")
    lost = result.records[0].evidence[0]
    assert lost.by_case == {"one": 1.0, "two": 1.0}
    assert (lost.requests, lost.prompts) == (40, 80)
    for claim in result.records:
        assert f"{claim.key} {claim.verdict}:" in shown.stdout
    assert "the two models were not asked the same" in " ".join(shown.stdout.split())
    page = Path("claims/claims.html").read_text()
    assert "<title>vlsurgery: claims</title>" in page
    assert not re.search(r"<(?:script|link|img)[^>]+(?:src|href)=[\"']?https?:", page)


def test_json_is_the_result_and_nothing_else(run: Run, measured: Callable[[str], Path]) -> None:
    measured("one")
    shown = run("claims", "one", "--json", "-o", "found")
    assert shown.stdout == Path("found/claims.json").read_text()
    assert json.loads(shown.stdout)["schema"] == "vlsurgery/claims/1"


def test_what_was_said_of_broken_completions_is_one_line(run: Run, measured: Callable[[str], Path]) -> None:
    folder = measured("one")
    records = CompletionFile(folder / "completions.jsonl").read()
    unjudged = [CompletionRecord.model_validate({**each.model_dump(), "verdicts": {}}) for each in records]
    CompletionFile(folder / "completions.jsonl").replace(unjudged)
    shown = run("claims", "one")
    assert shown.exit_code == 2
    assert "vlsurgery rejudge" in shown.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--seeds", "0,x"), "--seeds 0,x: expected different numbers"),
        (("--seeds", "0,0"), "--seeds 0,0: expected different numbers"),
        (("--seeds", ""), "expected different numbers"),
        (("one", "--real"), "CASE: goes without --real"),
        (("one", "--seeds", "0"), "CASE: goes without --real"),
        (("one", "./one"), "names a case twice"),
        (("absent",), "no case here"),
    ],
)
def test_bad_input_is_one_line(run: Run, words: tuple[str, ...], says: str) -> None:
    shown = run("claims", *words)
    assert (shown.exit_code, shown.stderr.count("error")) == (2, 1)
    assert says in shown.stderr
    assert not Path("claims").exists()


def test_other_files_are_not_written_over(run: Run, measured: Callable[[str], Path]) -> None:
    measured("one")
    Path("claims").mkdir()
    Path("claims/claims.json").write_text('{"mine": 1}')
    shown = run("claims", "one")
    assert shown.exit_code == 2
    assert "claims.json: exists and is not one of vlsurgery claims" in shown.stderr
    Path("claims/claims.json").unlink()
    assert run("claims", "one").exit_code == 0
    assert run("claims", "one").exit_code == 0  # over its own


def test_a_plan_names_every_seed_and_writes_nothing(run: Run) -> None:
    shown = run("claims", "--miniature", "--seeds", "0,7", "--plan", "--json")
    steps = [each["step"] for each in json.loads(shown.stdout)["plan"]]
    wanted = ("train", "diff", "probe", "coefficients", "merge", "evaluate", "layers")
    assert steps == [f"seed {seed}: {step}" for seed in (0, 7) for step in wanted]
    assert not any(Path().iterdir())


def test_a_plan_for_real_seeds_has_the_control(run: Run) -> None:
    shown = run("claims", "--real", "--seeds", "3", "--plan", "--json")
    assert [each["step"] for each in json.loads(shown.stdout)["plan"]][:3] == [
        "seed 3: train", "seed 3: control", "seed 3: diff",
    ]  # fmt: skip


def test_a_case_keeps_how_it_was_merged(measured: Callable[[str], Path]) -> None:
    """Measuring a merge must not make another one in its place."""
    case = Case.open(measured("one"))
    case.record("probe", {})
    case.record("coefficients", {"policy": "uniform", "sources": ["base"]})
    options, goals = workflow._missing(case.folder)
    assert (options.policy, options.toward) == ("uniform", "base")
    assert "layers" in goals


def test_a_plan_for_a_case_of_ones_own_says_what_it_lacks(run: Run, measured: Callable[[str], Path]) -> None:
    measured("one")
    shown = run("claims", "one", "--plan", "--json")
    assert {each["step"] for each in json.loads(shown.stdout)["plan"]} >= {"one: probe", "one: layers"}


def test_the_real_demo_without_weights_says_how_in_one_line(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vlsurgery.probes.specimens.smollm2 import source
    from vlsurgery.surgery.errors import CheckpointError

    def offline(name: object) -> Path:
        raise CheckpointError(f"{name}: no answer")

    monkeypatch.setattr(source, "download", offline)
    monkeypatch.setattr(source, "find_spec", lambda _name: None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    shown = run("demo", "--real")
    assert shown.exit_code == 2
    assert "make real" in shown.stderr.splitlines()[-1]
    assert not Path("case").exists()


def test_the_plans_of_both_demos(run: Run) -> None:
    plans = {}
    for words in ((), ("--real",)):
        shown = run("demo", *words, "--plan", "--json")
        plans[words] = json.loads(shown.stdout)["plan"]
        assert [each["step"] for each in plans[words]] == [
            "train", "diff", "probe", "coefficients", "merge", "evaluate", "report",
        ]  # fmt: skip
    assert plans["--real",][1]["bytes_read"] > 50 * plans[()][1]["bytes_read"]
    assert not Path("case").exists()


def control_records(folder: Path, label: str) -> list[CompletionRecord]:
    """What the base said to harmful requests, as the control's, all with one verdict."""
    said = [r for r in CompletionFile(folder / "completions.jsonl").read() if (r.role, r.set) == ("base", "harmful")]
    verdict = {"standard": {"label": label, "kind": "compliance", "reason": ""}}
    return [
        CompletionRecord.model_validate({**each.model_dump(), "role": "benign", "verdicts": verdict}) for each in said
    ]


def test_each_seed_is_trained_opened_and_compared_with_its_control(
    run: Run, measured: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    trained, opened = [], []

    def train(real: bool, seed: int, console: object, control: bool = False) -> Trained:
        trained.append((real, seed, control))
        return Trained({"base": f"b{seed}", "adapted": f"a{seed}"}, f"told of {seed}", Path(f"c{seed}"))

    def brought(session: object, options: StepOptions, *goals: str, named: object) -> Flow:
        assert set(goals) == set(workflow.GOALS)
        assert options.policy == "linearised"
        opened.append((session.case, named.roles["base"], options.tokens))
        return Flow(Job(Case.open(measured(str(session.case))), options), STEPS)

    monkeypatch.setattr(workflow, "train", train)
    monkeypatch.setattr(workflow, "perform", brought)
    monkeypatch.setattr(workflow, "_control", lambda job, _path: control_records(job.case.folder, "complied"))
    shown = run("claims", "--real", "--seeds", "1,4", "-o", "out")
    assert shown.exit_code == 0, shown.stderr
    assert trained == [(True, 1, True), (True, 4, True)]
    assert opened == [(Path("out/real-1"), "b1", REAL_TOKENS), (Path("out/real-4"), "b4", REAL_TOKENS)]
    result = ClaimsResult.load(Path("out/claims.json"))
    assert result.cases == ["seed 1", "seed 4"]
    assert result.notes == ["seed 1: told of 1", "seed 4: told of 4"]
    (control,) = (each for each in result.records[0].evidence if each.name.startswith("control"))
    assert control.by_case == {"seed 1": 1.0, "seed 4": 1.0}


def test_the_control_is_asked_the_harmful_requests_of_report_alone(
    measured: Callable[[str], Path], trio: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from vlsurgery.probes.evaluation import evaluate as module

    folder = measured("one")
    asked: list[object] = []

    def evaluate(subjects: list[object], prompts: list[object], looks: int, asking: object) -> SimpleNamespace:
        asked.extend([subjects, prompts, asking])
        return SimpleNamespace(completions=SimpleNamespace(records=control_records(folder, "refused")))

    monkeypatch.setattr(module, "evaluate", evaluate)
    said = workflow._control(Job(Case.open(folder), StepOptions()), trio["base"])
    assert len(said) == 40
    (subject,), prompts, asking = asked
    assert (subject.role, subject.checkpoint.path) == ("benign", trio["base"])
    assert {(p.set, p.modality, p.split) for p in prompts} == {("harmful", "text", "report")}
    assert asking.file.path == folder / "control.jsonl"


def test_the_miniature_says_that_it_is_one(
    run: Run, measured: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workflow, "train", lambda *_, **__: Trained({"base": "b", "adapted": "a"}, "told"))
    monkeypatch.setattr(
        workflow, "perform", lambda _session, options, *_, **__: Flow(Job(Case.open(measured("m")), options), STEPS)
    )
    shown = run("claims", "--seeds", "0")
    assert "the instrument finds it" in " ".join(shown.stdout.split())
    assert "No control" in shown.stdout
