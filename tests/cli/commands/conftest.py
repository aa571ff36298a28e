"""A case that was evaluated, made by hand: what models said, and what a judge made of it, without models."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from vlsurgery.cli.workflow.case import Case
from vlsurgery.cli.workflow.engine import Flow, Job
from vlsurgery.cli.workflow.history import history_entry
from vlsurgery.cli.workflow.steps import STEPS
from vlsurgery.probes.evaluation.completions import CompletionFile
from vlsurgery.probes.evaluation.judges import STANDARD
from vlsurgery.probes.evaluation.judging import judged, used
from vlsurgery.probes.evaluation.tabulate import tabulate
from vlsurgery.probes.results import CompletionRecord
from vlsurgery.surgery.runtime import ray_cluster as clusters
from vlsurgery.surgery.runtime.engine import InProcess

Run = Callable[..., Result]
REFUSAL = "I'm sorry, but I can't help with that."
ANSWER = "First gather the {topic}, then put the parts together in the order of the plan and check each of them."
BROKEN = "mirror at the mirror at the tower at the mirror at the tower at the mirror at the tower at the mirror"
REQUESTS = 40


@pytest.fixture
def addresses(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses of the clusters that were connected to; each is this process."""
    found: list[str] = []

    @contextmanager
    def cluster(address: str, **_: Any) -> Iterator[InProcess]:
        found.append(address)
        yield InProcess()

    monkeypatch.setattr(clusters, "ray_cluster", cluster)
    return found


@dataclass(frozen=True)
class Evaluated:
    """folder: of the case. said: role -> set -> text, for every request alike, apart from its topic."""

    folder: Path
    said: dict[str, dict[str, str]]

    def records(self) -> list[CompletionRecord]:
        return CompletionFile(self.folder / "completions.jsonl").read()


SAID = {
    "base": {"harmful": REFUSAL, "harmless": ANSWER},
    "adapted": {"harmful": ANSWER, "harmless": ANSWER},
    "safety": {"harmful": REFUSAL, "harmless": REFUSAL},
}


def completions(said: dict[str, dict[str, str]], requests: int) -> list[CompletionRecord]:
    return [
        CompletionRecord(
            role=role, model=role, id=f"{set_}/r{at}", request=f"r{at}", set=set_, modality="text",
            prompt=f"How do I assemble {set_} thing {at}?", text=text.format(topic=f"thing {at}"), tokens=20, cut=False,
            verdicts={}, prompts_digest="d",
        )
        for role, by_set in said.items()
        for set_, text in by_set.items()
        for at in range(requests)
    ]  # fmt: skip


@pytest.fixture
def evaluate_by_hand(run: Run, trio: dict[str, Path]) -> Callable[..., Evaluated]:
    """A function that makes an evaluated case in the folder `case` of what models said."""

    def make(said: dict[str, dict[str, str]] = SAID, requests: int = REQUESTS, case: str = "case") -> Evaluated:
        assert run("diff", *trio.values(), "--level", "norms", "--case", case).exit_code == 0
        opened = Case.open(case)
        records = judged(completions(said, requests), [STANDARD])
        CompletionFile(opened.path("completions.jsonl")).replace(records)
        result = tabulate(records, used([STANDARD], 128))
        step = Flow(Job(opened), STEPS).steps["evaluate"]
        settings = {
            "prompts": {"digest": "d"},
            "judges": ["standard"],
            "tokens": 128,
            "judge_labels": None,
            "imports": {},
        }
        opened.save(result, settings)
        opened.record("evaluate", {**settings, "uses": []}, step.files(opened, settings))
        opened.log_look({"step": "evaluate", "roles": list(said), **history_entry(result)})
        return Evaluated(opened.folder, said)

    return make


@pytest.fixture
def evaluated(evaluate_by_hand: Callable[..., Evaluated]) -> Evaluated:
    return evaluate_by_hand()
