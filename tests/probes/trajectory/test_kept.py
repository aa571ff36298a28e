"""A measurement that is killed goes on from what it kept: nothing is asked again, and the result is the same."""

import json
from pathlib import Path
from typing import Any

import pytest

from vlsurgery.probes.specimens.miniature import FormJudge
from vlsurgery.probes.trajectory import interview
from vlsurgery.probes.trajectory.base_completions import Answering
from vlsurgery.probes.trajectory.interview import LaterModel, TrajectorySettings
from vlsurgery.probes.trajectory.kept import KeptRun
from vlsurgery.probes.trajectory.run import trajectory
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.errors import SurgeryError, TargetError

BATCH = 40  # so that the 68 taught prompts take two


@pytest.fixture
def run(taught_run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A function that measures two checkpoints, keeping what they give in a file, and returns the result without its
    time of day. tokens: of a completion. only: of the checkpoints, so many."""
    monkeypatch.setattr(interview, "BATCH", BATCH)
    opened = [Checkpoint.open(taught_run.write(tmp_path / f"step-{at}", share)) for at, share in ((1, 0.02), (2, 1.0))]

    def measured(path: Path | None, tokens: int = 16, generate: bool = True, only: int = 2) -> dict[str, Any]:
        how = TrajectorySettings(Answering(FormJudge(), tokens), generate, kept=KeptRun(path))
        found = trajectory(Checkpoint.open(taught_run.base), opened[:only], taught_run.prompts, how)
        return found.model_dump(exclude={"created"})

    return measured


def keys(path: Path) -> list[str]:
    return [json.loads(line)["key"] for line in path.read_text().splitlines()]


def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the checkpoints whose models are loaded from now on."""
    found: list[str] = []
    load = LaterModel.chat.func
    chat = type(LaterModel.__dict__["chat"])(lambda model: found.append(Path(model.checkpoint.ref).name) or load(model))
    chat.__set_name__(LaterModel, "chat")
    monkeypatch.setattr(LaterModel, "chat", chat)
    return found


def test_killed_anywhere_it_goes_on_to_the_same_result_and_asks_nothing_again(run, tmp_path: Path, monkeypatch) -> None:
    whole = run(tmp_path / "whole.jsonl")
    expected = keys(tmp_path / "whole.jsonl")
    assert len(expected) == len(set(expected)) == 11  # 3 models' two batches and log-odds, 2 checkpoints' blocks
    assert whole == run(None)
    file = tmp_path / "kept.jsonl"
    append = KeptRun.value

    def killed(self, kind, of, make):
        before = len(self)
        found = append(self, kind, of, make)
        if len(keys(file)) > before and not allowed.pop():
            raise KeyboardInterrupt
        return found

    monkeypatch.setattr(KeptRun, "value", killed)
    for _ in expected[:-1]:
        allowed = [False]  # one more value, and then the kill
        with pytest.raises(KeyboardInterrupt):
            run(file)
    allowed = [True]
    assert run(file) == whole
    assert keys(file) == expected


def test_what_is_whole_loads_no_model(run, tmp_path: Path, monkeypatch) -> None:
    file = tmp_path / "kept.jsonl"
    one = run(file, only=1)
    names = loads(monkeypatch)
    assert run(file, only=1) == one
    assert names == []
    run(file)
    assert names == ["step-2"]


def test_other_settings_are_asked_again_and_those_that_change_nothing_are_not(run, tmp_path: Path, monkeypatch) -> None:
    file = tmp_path / "kept.jsonl"
    run(file, generate=False)
    names = loads(monkeypatch)
    assert run(file) == run(None)
    assert names[:2] == ["step-1", "step-2"]  # to be asked for completions; the base was asked already
    names.clear()
    assert run(file, tokens=4) == run(None, tokens=4)
    assert names[0] == "base"


def test_a_line_that_was_cut_off_is_measured_again_and_one_that_was_changed_is_refused(run, tmp_path: Path) -> None:
    file = tmp_path / "kept.jsonl"
    whole = run(file)
    text = file.read_text()
    file.write_text(text[:-30])
    assert run(file) == whole
    assert file.read_text() == text
    lines = text.splitlines()
    for wrong in (lines[0].replace('"finished": true', '"finished": false', 1), '{"role": "base"}', "no json"):
        file.write_text("\n".join([lines[1], wrong, *lines[2:]]) + "\n")
        with pytest.raises(SurgeryError, match=r"kept.jsonl, line 2: .*Remove the file") as fault:
            run(file)
        assert "\n" not in str(fault.value)
    with pytest.raises(TargetError, match=r"nowhere.*can't be written"):
        run(tmp_path / "nowhere" / "kept.jsonl")
