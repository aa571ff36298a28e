"""An evaluation that is divided among workers says what one process says, to the byte."""

import pickle
from collections.abc import Generator, Sequence
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
import torch

from vlsurgery.probes.evaluation import dividing
from vlsurgery.probes.evaluation.completions import CompletionFile
from vlsurgery.probes.evaluation.dividing import PromptShard
from vlsurgery.probes.evaluation.evaluate import Asking, evaluate
from vlsurgery.probes.evaluation.subjects import Subject
from vlsurgery.probes.models import Loader
from vlsurgery.probes.prompts import Prompt
from vlsurgery.probes.results import BehaviourResult
from vlsurgery.probes.specimens.miniature import prompts as miniature_prompts
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.errors import CheckpointError

TOKENS = 4


class FarWorkers:
    """Two workers that get everything as bytes, take turns, answer last things first, and die once in the middle.

    after: results until this process dies itself. items: that workers were given.
    """

    def __init__(self, after: int | None = None) -> None:
        self.after, self.items = after, list[Any]()

    @property
    def shards(self) -> list[Any]:
        return [item for item in self.items if isinstance(item, PromptShard)]

    def num_workers(self, num_items: int) -> int:
        return min(2, num_items)

    def map(self, set_up: Any, items: Sequence[Any]) -> Generator[Any, None, None]:
        self.items += items
        threads = torch.get_num_threads()
        workers = [pickle.loads(pickle.dumps(set_up))() for _ in range(self.num_workers(len(items)))]
        torch.set_num_threads(threads)
        sent, made = [pickle.loads(pickle.dumps(item)) for item in items], []
        for at, item in enumerate(sent):
            if at == 1:
                list(workers[0](item))  # was done, and its worker died before it could tell
            made.append(pickle.loads(pickle.dumps(list(workers[at % len(workers)](item)))))
        for results in reversed(made):
            for result in results:
                if self.after == 0:
                    raise KeyboardInterrupt
                self.after = None if self.after is None else self.after - 1
                yield result


@pytest.fixture(scope="module")
def report() -> list[Prompt]:
    """A few prompts of each kind, with and without pictures."""
    every = [prompt for prompt in miniature_prompts(0) if prompt.split == "report"]
    kinds = (("harmful", "text"), ("harmless", "text"), ("harmful", "benign"), ("capability", "own"))
    return [p for set_, modality in kinds for p in [p for p in every if (p.set, p.modality) == (set_, modality)][:3]]


@pytest.fixture
def subjects(trio: Any) -> list[Subject]:
    """A base that does not see, an adapted model, and a merge of the two that was not written."""
    base, adapted = Checkpoint.open(trio.base), Checkpoint.open(trio.adapted)
    merged = Subject("merged", adapted, {"0.mlp": {"base": 0.5}, "1.attn": {"base": 0.25}}, {"base": base})
    return [Subject("base", base), Subject("adapted", adapted), merged]


def measured(
    subjects: list[Subject], report: list[Prompt], file: Path | None = None, engine: Any = None
) -> BehaviourResult:
    kept = None if file is None else CompletionFile(file)
    asking = Asking(tokens=TOKENS, file=kept, loader=Loader(dtype="float32"), engine=engine)
    return evaluate(subjects, report, 1, asking)


def content(result: BehaviourResult) -> dict[str, Any]:
    return result.model_dump(mode="json", exclude={"created"})


def test_workers_say_what_one_process_says(
    subjects: list[Subject], report: list[Prompt], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Each shard has its own trial of the model, which takes longer here than its prompts.
    monkeypatch.setattr(dividing, "SHARDS_EACH", 1)
    alone = measured(subjects, report, tmp_path / "alone.jsonl")
    engine = FarWorkers()
    divided = measured(subjects, report, tmp_path / "divided.jsonl", engine)
    assert content(divided) == content(alone)
    assert (tmp_path / "divided.jsonl").read_bytes() == (tmp_path / "alone.jsonl").read_bytes()
    asked = [(item.subject, prompt.id) for item in engine.shards for prompt in item.prompts]
    assert sorted(asked) == sorted((at, prompt.id) for at in range(len(subjects)) for prompt in report)
    assert len(engine.shards) == 2 * len(subjects)
    assert any(row.kl not in (None, 0.0) for row in divided.records)
    assert any("base does not see: 6 prompts" in note for note in divided.notes)
    assert {path.name for path in tmp_path.iterdir()} == {"alone.jsonl", "divided.jsonl"}


def test_without_an_adapted_model_or_a_file(subjects: list[Subject], report: list[Prompt]) -> None:
    assert content(measured(subjects[:1], report, engine=FarWorkers())) == content(measured(subjects[:1], report))


def test_a_run_that_was_ended_asks_only_the_rest(subjects: list[Subject], report: list[Prompt], tmp_path: Path) -> None:
    one, report, file = subjects[:1], report[:4], tmp_path / "said.jsonl"
    with pytest.raises(KeyboardInterrupt):
        measured(one, report, file, FarWorkers(after=2))
    kept = CompletionFile(file).read()
    assert 0 < len(kept) < len(report)
    engine = FarWorkers()
    again = measured(one, report, file, engine)
    assert sum(len(item.prompts) for item in engine.shards) == len(report) - len(kept)
    assert any(f"{len(kept)} of {len(report)} completions were there already" in note for note in again.notes)
    alone = measured(one, report)
    assert again.completions.records == alone.completions.records
    assert again.records == alone.records


def test_a_checkpoint_that_is_another_one_there_is_not_asked(
    subjects: list[Subject], report: list[Prompt], tmp_path: Path, trio: Any
) -> None:
    copytree(trio.base, tmp_path / "base")
    subject = Subject("base", Checkpoint.open(tmp_path / "base"))
    assert subject.identity
    copytree(trio.adapted, tmp_path / "base", dirs_exist_ok=True)
    with pytest.raises(CheckpointError, match="is another checkpoint than was opened at first"):
        measured([subject], report, engine=FarWorkers())
