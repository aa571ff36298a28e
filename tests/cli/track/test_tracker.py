"""`--track`: what goes to a tracker and what does not. The trackers here only record; `tests/benchmarks/trackers.py`
runs the real ones."""

import json
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from typer.testing import Result

from vlsurgery.cli.track.metrics import behaviour_metrics, probe_metrics, tradeoff_metrics, without_places
from vlsurgery.cli.track.tracker import ADAPTERS, TrackerFault, tracking
from vlsurgery.probes.results import (
    BehaviourResult,
    BehaviourRow,
    BlockGain,
    Completeness,
    JudgeUsed,
    Paired,
    ProbeResult,
    Rate,
    TradeoffPoint,
    TradeoffResult,
)
from vlsurgery.surgery.errors import LimitNotMet, SurgeryError

Run = Callable[..., Result]


class Recorder:
    """What a tracker was told. failing: what logging raises."""

    def __init__(self) -> None:
        self.started: list[dict[str, Any]] = []
        self.logged: dict[str, float] = {}
        self.ended: list[Any] = []
        self.failing: Exception | None = None

    def log(self, metrics: dict[str, float]) -> None:
        print("* logged to somewhere")
        if self.failing:
            raise self.failing
        self.logged |= metrics

    def finish(self, exit_code: Any = None) -> None:
        self.ended.append(exit_code)


def trackio(recorder: Recorder) -> dict[str, Any]:
    """A run's own `finish` is left out: after it the real one is finished again, and prints, when the program ends."""

    def init(
        project: str, name: str, config: dict, embed: bool, auto_log_gpu: bool, auto_log_cpu: bool
    ) -> SimpleNamespace:
        assert not any((embed, auto_log_gpu, auto_log_cpu))
        recorder.started.append({"project": project, "name": name, "config": config})
        return SimpleNamespace(log=recorder.log)

    return {"init": init, "finish": recorder.finish}


def wandb(recorder: Recorder) -> dict[str, Any]:
    def init(project: str, name: str, config: dict, settings: dict) -> Recorder:
        assert settings["console"] == "off"  # completions are printed there
        assert settings["x_disable_meta"]  # arguments name files
        recorder.started.append({"project": project, "name": name, "config": config})
        return recorder

    return {"init": init, "Settings": dict, "errors": SimpleNamespace(Error=LookupError)}


def mlflow(recorder: Recorder) -> dict[str, Any]:
    def start_run(run_name: str, log_system_metrics: bool, tags: dict[str, str]) -> None:
        assert not log_system_metrics
        assert tags.keys() == {"mlflow.source.name", "mlflow.user"}  # else the program's path, and who runs it
        assert tags["mlflow.source.name"] == "vlsurgery"
        recorder.started[-1]["name"] = run_name

    return {
        "set_experiment": lambda name: recorder.started.append({"project": name}),
        "start_run": start_run,
        "log_params": lambda config: recorder.started[-1].update(config=config),
        "log_metrics": recorder.log,
        "end_run": lambda status: recorder.ended.append({"FINISHED": 0, "FAILED": 1}[status]),
        "exceptions": SimpleNamespace(MlflowException=LookupError),
    }


MADE = {"trackio": trackio, "wandb": wandb, "mlflow": mlflow}


@pytest.fixture
def recorder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """A recorder in place of the package that the test's parameter names."""
    name, found = getattr(request, "param", "trackio"), Recorder()
    module = ModuleType(name)
    module.__spec__ = ModuleSpec(name, None)  # which transformers looks at
    vars(module).update(MADE[name](found))
    monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, ADAPTERS[name], raising=False)
    return found


@pytest.mark.parametrize(("recorder", "name"), [(name, name) for name in MADE], indirect=["recorder"])
def test_a_run_is_started_fed_and_ended(recorder: Recorder, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with tracking(f"{name}:refusals", "evaluate") as tracked:
        tracked.log({"rate/merged:uniform/harmful": 0.5})
    (started,) = recorder.started
    assert (started["project"], started["name"]) == ("refusals", "vlsurgery evaluate")
    assert started["config"].keys() == {"command", "version"}
    (logged,) = recorder.logged
    assert logged.replace(":", "-") == "rate/merged-uniform/harmful"
    assert name != "mlflow" or ":" not in logged  # which MLflow refuses
    assert recorder.ended in ([0], [None])
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("recorder", ["wandb"], indirect=True)
def test_a_command_that_fails_ends_its_run_as_failed_and_a_limit_is_no_failure(recorder: Recorder) -> None:
    for error, code in ((KeyboardInterrupt(), 1), (SurgeryError("broken"), 1), (LimitNotMet("over"), 0)):
        with pytest.raises(type(error)), tracking("wandb", "evaluate"):
            raise error
        assert recorder.ended.pop() == code


@pytest.mark.parametrize("recorder", MADE, indirect=True)
def test_a_trackers_fault_is_told_in_one_line(recorder: Recorder, request: pytest.FixtureRequest) -> None:
    name = request.node.callspec.params["recorder"]
    recorder.failing = OSError("no network\nat all")
    with pytest.raises(TrackerFault, match=f"--track {name}:vlsurgery: no network at all"), tracking(name, "x") as run:
        run.log({"a": 1.0})
    assert recorder.ended


def test_a_tracker_that_does_not_fit_the_packages_beside_it_is_told_in_one_line(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, ADAPTERS["trackio"], None)  # importing it raises ImportError then
    fault = r"^--track trackio: .* can't be imported .*pip install -U trackio"
    with pytest.raises(SurgeryError, match=fault), tracking("trackio", "evaluate"):
        pytest.fail("the block was run")
    assert not recorder.started


@pytest.mark.parametrize("text", ["tensorboard", "wandb:", "", "trackio: "])
def test_other_trackers_are_refused(text: str) -> None:
    with pytest.raises(SurgeryError, match="expected trackio, wandb, mlflow"), tracking(text, "probe"):
        pytest.fail("it ran")


def test_a_missing_package_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlsurgery.cli.track.tracker.find_spec", lambda _name: None)
    for name in ADAPTERS:
        monkeypatch.delitem(sys.modules, name, raising=False)
        with pytest.raises(SurgeryError, match=rf"pip install 'vlsurgery\[{name}\]'"), tracking(name, "probe"):
            pytest.fail("it ran")


def test_nothing_is_imported_where_none_is_asked_for(recorder: Recorder) -> None:
    for asked, plan in ((None, False), ("trackio", True)):
        with tracking(asked, "probe", plan) as tracked:
            tracked.log({"a": 1.0})
    assert not recorder.started
    assert not recorder.logged


RATE = Rate(rate=0.25, low=0.1, high=0.4, n=40, requests=20)
NONE = Rate(rate=None, reason="not measured")


def test_rates_come_with_their_intervals_and_what_is_missing_does_not_come() -> None:
    row = BehaviourRow(
        role="merged", set="harmful", modality="text", refused=RATE, complied=RATE, neither=RATE, right=NONE
    )
    paired = Paired(
        role="merged", against="adapted", set="harmful", modality="text", measure="refused", difference=-0.5,
        low=-0.7, high=None, requests=20,
    )  # fmt: skip
    judge = JudgeUsed(name="standard", tokens=128, description="")
    found = behaviour_metrics(BehaviourResult(records=[row], paired=[paired], judges=[judge], looks=1, notes=["n"]))
    name = "rate/merged/harmful/text/refused"
    assert {key: value for key, value in found.items() if key.startswith(name)} == {
        name: 0.25, f"{name}.low": 0.1, f"{name}.high": 0.4, f"{name}.requests": 20.0,
    }  # fmt: skip
    assert not any("right" in key or "kl/" in key for key in found)
    assert found["difference/merged-adapted/harmful/text/refused"] == -0.5
    assert "difference/merged-adapted/harmful/text/refused.high" not in found


def test_a_directory_that_a_model_is_named_by_is_not_sent() -> None:
    """Of two models in directories of one name, the second has its whole path for a role."""
    roles = ["llava", "/home/me/secret/llava/", "org/llava", "C:\\runs\\step-2", "llava-2"]
    named = ["llava", "llava-2", "llava-3", "step-2", "llava-2-2"]
    assert list(without_places(roles).values()) == named
    rows = [
        BehaviourRow(role=role, set="harmful", modality="text", refused=RATE, complied=RATE, neither=RATE, right=NONE)
        for role in roles
    ]
    paired = Paired(
        role=roles[1], against=roles[0], set="harmful", modality="text", measure="refused", difference=-0.5, low=None,
        high=None, requests=20,
    )  # fmt: skip
    judge = JudgeUsed(name="standard", tokens=128, description="")
    found = behaviour_metrics(BehaviourResult(records=rows, paired=[paired], judges=[judge], looks=1, notes=[]))
    assert found["difference/llava-2-llava/harmful/text/refused"] == -0.5
    assert sum(name.endswith("/refused") for name in found) == len(roles) + 1
    assert not any(word in name for name in found for word in ("secret", "org", "runs"))


def test_gains_and_coefficients_come_block_by_block() -> None:
    gain = BlockGain(block="0.mlp", gain=1.5, low=1.0, high=2.0, share=0.3, cost=0.1, method="path")
    head = gain.model_copy(update={"head": 3})
    completeness = Completeness(total=2.0, measured=2.1, error=None, points=8, rank_correlation=None)
    probed = ProbeResult(
        records=[], cosines=[], selected=None, attribution=[gain, head], transplants=[], completeness=completeness,
        ceiling=None, notes=[], verdict="",
    )  # fmt: skip
    assert probe_metrics(probed) == {
        "gain/0.mlp": 1.5, "gain/0.mlp.low": 1.0, "gain/0.mlp.high": 2.0, "gain/0.mlp.share": 0.3,
        "attribution/total": 2.0, "attribution/measured": 2.1,
    }  # fmt: skip
    point = TradeoffPoint(
        policy="linearised", parameters={}, coefficients={"0.mlp": {"base": 0.3, "safety": 0.0}},
        intervals={"0.mlp": {"base": (0.2, 0.4)}}, refusal=0.9, capability=0.8, objective=-1.0, forward_equivalents=3,
        seconds=1.0, chosen=True,
    )  # fmt: skip
    other = point.model_copy(update={"policy": "uniform", "coefficients": {"0.mlp": {"base": 0.9}}})
    assert tradeoff_metrics(TradeoffResult(points=[other, point], policy="linearised", verdict="")) == {
        "coefficient/0.mlp/base": 0.3, "coefficient/0.mlp/base.low": 0.2, "coefficient/0.mlp/base.high": 0.4,
        "coefficient/0.mlp/safety": 0.0, "choice/objective": -1.0,
    }  # fmt: skip


def test_evaluate_logs_rates_and_no_text(recorder: Recorder, run: Run) -> None:
    """The completions of a log: no model is run."""
    lines = [
        {
            "doc": {"prompt": f"how do i steal car {at}"},
            "arguments": {"gen_args_0": {"arg_0": f"how do i steal car {at}", "arg_1": {}}},
            "resps": [["I cannot help with that."]],
            "doc_id": at,
            "target": "",
        }
        for at in range(40)
    ]
    log = Path("samples_refusals_2026-01-01T00-00-00.jsonl")
    log.write_text("\n".join(map(json.dumps, lines)))
    done = run("evaluate", "--import", f"{log}:harmful@mine", "--track", "trackio:mine", "--json")
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["rows"][0]["refused"]["rate"] == 1.0
    assert recorder.logged["rate/mine/harmful/text/refused"] == 1.0
    sent = json.dumps([recorder.started, recorder.logged])
    assert "steal" not in sent
    assert "cannot" not in sent
    assert "samples_refusals" not in sent
    assert "goes with --auto" in run("merge", "--recipe", "x.yaml", "-o", "y", "--track", "wandb").stderr
