"""A command opens each checkpoint once and aligns once; a plan writes nothing."""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import Result

from vlsurgery.cli.options import Running
from vlsurgery.cli.workflow import steps
from vlsurgery.cli.workflow.case import Case
from vlsurgery.cli.workflow.engine import Flow, Job, StepOptions
from vlsurgery.cli.workflow.steps import STEPS
from vlsurgery.probes.evaluation.subjects import Subject
from vlsurgery.probes.probe import Findings
from vlsurgery.probes.results import (
    BehaviourResult,
    JudgeUsed,
    ProbeResult,
    TargetsResult,
    TradeoffPoint,
    TradeoffResult,
)
from vlsurgery.surgery.alignment import alignment as alignments
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.errors import SurgeryError
from vlsurgery.surgery.merge.recipe import Recipe

Run = Callable[..., Result]


class Counted:
    """How often each checkpoint was opened, by the name of its directory, and how often any were aligned."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.opened: Counter[str] = Counter()
        self.aligned = 0
        whole, aligner = Checkpoint._open_whole.__func__, alignments._Aligner  # type: ignore[attr-defined]

        def open_whole(cls: type[Checkpoint], ref: str, *rest: bool) -> Checkpoint:
            self.opened[os.path.basename(ref)] += 1
            return whole(cls, ref, *rest)  # type: ignore[no-any-return]

        def counted(*arguments: Any) -> Any:
            self.aligned += 1
            return aligner(*arguments)

        monkeypatch.setattr(Checkpoint, "_open_whole", classmethod(open_whole))
        monkeypatch.setattr(alignments, "_Aligner", counted)

    def reset(self) -> None:
        self.opened.clear()
        self.aligned = 0


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counted:
    return Counted(monkeypatch)


def test_a_diff_opens_each_checkpoint_once_and_aligns_once(run: Run, trio: dict[str, Path], counted: Counted) -> None:
    once = ({"base": 1, "adapted": 1, "safety": 1}, 1)
    for more in (("--plan",), ("--level", "norms"), ("--plan",), ("--level", "full"), ()):
        counted.reset()
        assert run("diff", *trio.values(), *more).exit_code == 0
        assert (counted.opened, counted.aligned) == once, more


@pytest.mark.parametrize(
    "command", [("probe", "--plan"), ("merge", "--auto", "--plan"), ("report",), ("evaluate", "--plan")]
)
def test_a_later_command_opens_what_the_case_holds_once(
    run: Run, trio: dict[str, Path], counted: Counted, command: tuple[str, ...]
) -> None:
    assert run("diff", *trio.values(), "--level", "norms").exit_code == 0
    counted.reset()
    assert run(*command).exit_code == 0
    assert counted.opened == {"base": 1, "adapted": 1, "safety": 1}
    assert counted.aligned == (0 if command == ("report",) or "--plan" in command else 1)


@pytest.mark.parametrize("plan", [(), ("--plan",)])
def test_a_merge_without_a_case_opens_each_checkpoint_once(
    run: Run, trio: dict[str, Path], counted: Counted, plan: tuple[str, ...]
) -> None:
    Recipe.of({role: Checkpoint.open(path) for role, path in trio.items()}, {"default": {"base": 0.5}}).save(
        Path("recipe.yaml")
    )
    for order in (
        ("--recipe", "recipe.yaml"),
        ("--method", "ties", trio["adapted"], trio["safety"], "--base", trio["base"]),
    ):
        counted.reset()
        assert run("merge", *order, "-o", f"out{order[0]}", *plan).exit_code == 0
        assert (counted.opened, counted.aligned) == ({"base": 1, "adapted": 1, "safety": 1}, 1), order


NOTHING_SAID = BehaviourResult(
    rows=[], paired=[], judges=[JudgeUsed(name="x", tokens=1, description="")], looks=1, notes=[]
)


def test_a_cases_models_are_asked_by_the_cluster_that_was_named(
    tmp_path: Path, trio: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []

    @contextmanager
    def engine(address: str | None, checkpoints: list[Checkpoint], device: str | None) -> Iterator[object]:
        told.append((address, len(checkpoints), device))
        yield "workers"

    monkeypatch.setattr(steps, "engine_for_models", engine)
    monkeypatch.setattr(
        "vlsurgery.probes.evaluation.evaluate.evaluate", lambda *asked: told.append(asked[-1].engine) or NOTHING_SAID
    )
    monkeypatch.setattr("vlsurgery.probes.evaluation.subjects.graft", lambda adapted, base: Subject("graft", base))  # noqa: ARG005
    Case.create(tmp_path / "case", {role: Checkpoint.open(path) for role, path in trio.items()})
    options = StepOptions(ray="local:2", running=Running(device="cpu"))
    Flow(Job(Case.open(tmp_path / "case"), options), STEPS).bring("evaluate")
    assert told == [("local:2", 4, "cpu"), "workers"]


def test_a_probes_models_are_run_by_the_cluster_that_was_named(
    tmp_path: Path, trio: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []

    @contextmanager
    def engine(address: str | None, checkpoints: Iterable[Checkpoint], device: str | None) -> Iterator[object]:
        told.append((address, len([*checkpoints]), device))
        yield "workers"

    def found(*asked: Any) -> Findings:
        *_, engine, folder = asked
        told.append((engine, folder.relative_to(tmp_path / "case"), list(folder.iterdir())))
        (folder / "states").touch()
        raise SurgeryError("seen")

    monkeypatch.setattr(steps, "engine_for_models", engine)
    monkeypatch.setattr("vlsurgery.probes.probe.probe", found)
    case = Case.create(tmp_path / "case", {role: Checkpoint.open(path) for role, path in trio.items()})
    options = StepOptions(ray="local:2", running=Running(device="cpu"))
    with pytest.raises(SurgeryError, match="seen"):
        Flow(Job(Case.open(tmp_path / "case"), options), STEPS).bring("probe")
    assert told == [("local:2", 3, "cpu"), ("workers", Path(".probe"), [])]
    assert (case.path(".probe") / "states").exists()  # a probe that is cut short leaves what it has


def test_a_whole_case_opens_each_checkpoint_and_its_merge_once(
    tmp_path: Path, trio: dict[str, Path], counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the real steps, and nothing where they would run models."""
    lists: dict[str, Any] = {name: [] for name in ("rows", "cosines", "attribution", "transplants", "notes")}
    found = ProbeResult(**lists, selected=None, completeness=None, ceiling=None, verdict="")
    blocks = {"0.mlp": {"base": 0.5, "safety": 0.25}}
    points = [
        TradeoffPoint(
            policy=policy, parameters={"base": 0.5, "safety": 0.25}, coefficients=blocks, refusal=1.0, capability=1.0,
            objective=1.0, forward_equivalents=1, seconds=1.0, chosen=True,
        )
        for policy in ("uniform", "fit")
    ]  # fmt: skip
    chosen = TradeoffResult(points=points, policy="fit", verdict="")
    findings = Findings(found, {"x": torch.zeros(1)}, TargetsResult(rows=[]))
    monkeypatch.setattr("vlsurgery.probes.probe.probe", lambda *_: findings)
    monkeypatch.setattr("vlsurgery.probes.selection.choose", lambda *_: chosen)
    monkeypatch.setattr("vlsurgery.probes.evaluation.evaluate.evaluate", lambda *_: NOTHING_SAID)
    monkeypatch.setattr("vlsurgery.probes.evaluation.subjects.graft", lambda adapted, base: Subject("graft", base))  # noqa: ARG005
    Case.create(tmp_path / "case", {role: Checkpoint.open(path) for role, path in trio.items()})
    for aligned in (1, 0):
        counted.reset()
        Flow(Job(Case.open(tmp_path / "case"), StepOptions(level="norms")), STEPS).bring("merge", "evaluate")
        assert not (tmp_path / "case" / ".probe").exists()
        assert counted.opened == {"base": 1, "adapted": 1, "safety": 1, "merged": 1}
        assert counted.aligned == aligned
