"""A probe whose models are asked by workers finds what one process finds, to the bit."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
import torch

from vlsurgery.probes import candidates
from vlsurgery.probes.contrasts import separations
from vlsurgery.probes.evaluation.judges import CallableJudge
from vlsurgery.probes.models import Loader
from vlsurgery.probes.probe import Findings, probe
from vlsurgery.probes.probing import tasks
from vlsurgery.probes.prompts import Prompt
from vlsurgery.surgery.alignment import align
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.errors import CheckpointError, SurgeryError

CELLS = (
    ("harmful", "text"), ("harmful", "benign"), ("jailbroken", "text"), ("harmless", "text"), ("harmless", "benign"),
    ("borderline", "text"), ("harmful", "noise"),
)  # fmt: skip


@pytest.fixture(scope="module")
def few(every: list[Prompt]) -> list[Prompt]:
    cells: dict[tuple[str, ...], list[Prompt]] = {}
    for prompt in every:
        if (prompt.set, prompt.modality) in CELLS:
            cells.setdefault((prompt.split, prompt.set, prompt.modality), []).append(prompt)
    return [prompt for members in cells.values() for prompt in members[:3]]


@pytest.fixture(autouse=True)
def short_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "ANSWER_TOKENS", 4)


def losing() -> CallableJudge:
    """Finds that the model it is asked about first, the base, refuses everything, and the next one nothing."""
    labels = iter(("refused", "complied"))

    def judged(completions: list[str], prompts: list[str | None]) -> list[str]:
        label = next(labels)
        return [label for _ in completions]

    return CallableJudge(judged)


def probed(trio: Any, prompts: list[Prompt], **how: Any) -> Findings:
    return probe(align(trio.checkpoints), prompts, judge=losing(), loader=Loader(dtype="float32"), **how)


def content(found: Findings) -> dict[str, Any]:
    return {
        "result": found.result.model_dump(mode="json", exclude={"created"}),
        "targets": found.targets.model_dump(mode="json", exclude={"created"}),
    }


def test_workers_find_what_one_process_finds(
    trio: Any, few: list[Prompt], tmp_path: Path, far_stayers: Any, bars: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So that directions are scored of models that know nothing, on so few prompts.
    monkeypatch.setattr(candidates, "MIN_PROMPTS", 2)
    monkeypatch.setattr("vlsurgery.probes.probe.choose_direction", partial(candidates.choose_direction, cost_share=0.5))
    monkeypatch.setattr(candidates, "separations", lambda *asked: replace(separations(*asked), null=-1.0))
    alone = probed(trio, few)
    engine = far_stayers()
    divided = probed(trio, few, engine=engine, folder=tmp_path, progress=bars.told)
    assert content(divided) == content(alone)
    assert divided.directions.keys() == alone.directions.keys()
    for name, values in alone.directions.items():
        assert torch.equal(divided.directions[name], values)
    # All that there is was looked at.
    assert alone.result.attribution
    assert alone.result.transplants
    assert alone.result.interaction
    assert any(each.refusal_score is not None for each in alone.result.selection.candidates)
    assert any(each.first_refusal_score is not None for each in alone.result.selection.candidates)
    assert alone.result.selection.effect
    assert {each.modality for each in alone.result.patching} == {"text", "benign"}
    asked = Counter(type(item.task).__name__ for items in engine.lists for item in items)
    assert asked["AskAnswers"] > 4  # by prompts
    assert asked["MeasureDirections"] == 4 * 3
    assert asked["ReadBase"] == asked["FindCandidates"] == asked["ShowEffect"] == 1
    assert asked["ScoreDirections"] == 2 * 2  # some on a few prompts, then the best of them on all: a share a worker
    assert asked["MakePass"] > 5 + 2  # places on the path, in batches, and shares of the blocks
    assert engine.set_ups == 3  # two workers, and one in the place of the dead one
    assert all(total >= done for _, total, done in bars.done)
    assert {label for label, _, _ in bars.done} >= {
        "asking models for their own answers, measuring directions",
        "transplanting single blocks",
    }


def test_this_process_loads_no_model_where_workers_do(
    trio: Any, few: list[Prompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Loader, "load", lambda *_: pytest.fail("a model was loaded"))

    class Nobody:
        def num_workers(self, num_items: int) -> int:
            return min(3, num_items)

        @contextmanager
        def staying(self, set_up: Any, num_items: int) -> Iterator[Any]:  # noqa: ARG002
            def do(items: Sequence[Any]) -> Iterator[Any]:
                raise CheckpointError(f"{len(items)} tasks")
                yield

            yield do

    with pytest.raises(CheckpointError, match=r"^\d+ tasks$"):
        probed(trio, few, engine=Nobody())


def test_a_checkpoint_that_is_another_one_there_is_not_probed(
    trio: Any, few: list[Prompt], tmp_path: Path, far_stayers: Any
) -> None:
    copytree(trio.adapted, tmp_path / "adapted")
    opened = align({"base": trio.checkpoints["base"], "adapted": Checkpoint.open(tmp_path / "adapted")})
    assert opened.checkpoints["adapted"].identity
    copytree(trio.safety, tmp_path / "adapted", dirs_exist_ok=True)
    with pytest.raises(CheckpointError, match=r"adapted .*: is another checkpoint than was opened at first"):
        probe(opened, few, engine=far_stayers())


class Dying:
    """Another engine's workers, which this process leaves after some results. asked: roles and ids of prompts."""

    def __init__(self, of: Any, after: int | None = None) -> None:
        self.of, self.left, self.asked = of, after, list[tuple[str, str]]()

    def num_workers(self, num_items: int) -> int:
        return min(2, num_items)

    @contextmanager
    def staying(self, set_up: Any, num_items: int) -> Iterator[Any]:
        with self.of.staying(set_up, num_items) as do:

            def some(items: Sequence[Any]) -> Iterator[Any]:
                asked = [item.task for item in items if isinstance(item.task, tasks.AskAnswers)]
                self.asked += [(task.role, each) for task in asked for each in task.prompts]
                for result in do(items):
                    if self.left == 0:
                        raise KeyboardInterrupt
                    self.left = None if self.left is None else self.left - 1
                    yield result

            yield some


def test_a_killed_probe_goes_on_from_what_models_answered(
    trio: Any, few: list[Prompt], tmp_path: Path, far_stayers: Any
) -> None:
    short = [prompt for prompt in few if prompt.set in ("harmful", "harmless") and prompt.modality == "text"]
    whole, first, again = Dying(far_stayers()), Dying(far_stayers(), after=12), Dying(far_stayers())
    wanted = probed(trio, short, engine=whole)
    with pytest.raises(KeyboardInterrupt):
        probed(trio, short, engine=first, folder=tmp_path)
    kept = (tmp_path / "answers.jsonl").read_bytes()
    (tmp_path / "answers.jsonl").write_bytes(kept + b'{"model": "cut o')  # in the middle of a write
    found = probed(trio, short, engine=again, folder=tmp_path)
    assert first.asked == whole.asked
    assert Counter(again.asked) < Counter(whole.asked)
    assert len(again.asked) == len(whole.asked) - kept.count(b"\n")
    assert content(found) == content(wanted)


def test_one_process_goes_on_too_and_another_model_is_asked_anew(
    trio: Any, few: list[Prompt], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = [prompt for prompt in few if prompt.set in ("harmful", "harmless") and prompt.modality == "text"]
    asked, complete = list[int](), tasks.complete

    def counted(chat: Any, prompts: Sequence[Prompt], *rest: Any, **more: Any) -> Any:
        asked.append(len(prompts))
        return complete(chat, prompts, *rest, **more)

    monkeypatch.setattr(tasks, "complete", counted)

    def interrupted(completions: list[str], prompts: list[str | None]) -> list[str]:
        raise KeyboardInterrupt

    def ended(how: Loader, base: str = "base") -> list[int]:
        """How many prompts were asked until the first answers were to be judged, the base's."""
        asked.clear()
        opened = trio.checkpoints
        opened = {"base": opened[base], "adapted": opened["adapted"]}
        with pytest.raises(KeyboardInterrupt):
            probe(align(opened), short, judge=CallableJudge(interrupted), loader=how, folder=tmp_path)
        return list(asked)

    usual = Loader(dtype="float32")
    (count,) = ended(usual)
    assert ended(usual) == []  # all was there
    assert ended(usual, base="safety") == [count]
    assert ended(replace(usual, thinking=True)) == [count]
    assert ended(replace(usual, dtype="bfloat16")) == [count]
    monkeypatch.setattr("vlsurgery.probes.probe.ANSWER_TOKENS", 5)
    assert ended(usual) == [count]
    line = '{"model": "m", "prompt": "p", "text": "t", "ids": ["7"], "finished": true}'
    (tmp_path / "answers.jsonl").write_text(f"{line}\n")
    with pytest.raises(SurgeryError, match=r"answers.jsonl, line 1: no answer of a probe") as raised:
        probed(trio, short, folder=tmp_path)
    assert "\n" not in str(raised.value)
