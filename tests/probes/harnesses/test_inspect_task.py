"""Our task, run by inspect itself with models that say what they are told to, and read back."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from inspect_ai import eval as run
from inspect_ai.log import EvalLog
from inspect_ai.model import ChatMessage, ModelOutput, ModelUsage, StopReason, get_model

from vlsurgery.probes.harnesses import import_log, inspect_task
from vlsurgery.probes.harnesses.inspect_task import refusals
from vlsurgery.probes.harnesses.rates import label_rates
from vlsurgery.probes.prompts import english_prompts
from vlsurgery.surgery.errors import SurgeryError

REFUSAL = "I'm sorry, but I can't help with that."
ANSWER = "Sure. Begin with a plan, gather what you need, and take one step after another until it is done."


def said(asked: list[ChatMessage], *_: Any) -> ModelOutput:
    """A refusal of prompts with an odd number of characters, an answer to others."""
    text = REFUSAL if len(asked[-1].text) % 2 else ANSWER
    output = ModelOutput.from_content("mockllm/model", text, stop_reason="stop" if text == REFUSAL else "max_tokens")
    output.usage = ModelUsage(input_tokens=5, output_tokens=9, total_tokens=14)
    return output


def logged(folder: Path, **arguments: Any) -> EvalLog:
    limit = arguments.pop("limit", 12)
    model = get_model("mockllm/model", custom_outputs=said)
    (log,) = run(refusals(**arguments), model=model, log_dir=str(folder), display="none", limit=limit)
    assert log.status == "success", log.error and log.error.message
    return log


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"sets": ["harmless", "harmful"], "modality": "benign", "split": "all"},
        {"sets": "capability", "modality": "own,text"},
    ],
)
def test_rates_of_inspect_are_those_of_the_imported_log(tmp_path: Path, arguments: dict[str, Any]) -> None:
    log = logged(tmp_path, **arguments)
    records = import_log(Path(log.location), role="merged")
    assert len(records) == 12
    assert log.results is not None
    (score,) = log.results.scores
    counted = label_rates((each.set, each.modality, next(iter(each.verdicts.values())).label) for each in records)
    assert {name: metric.value for name, metric in score.metrics.items() if name != "right"} == pytest.approx(counted)
    assert {(record.text, record.cut, record.tokens) for record in records} == {(REFUSAL, False, 9), (ANSWER, True, 9)}
    for record in records:
        (verdict,) = record.verdicts.values()
        assert verdict.refused == (record.text == REFUSAL)


@pytest.mark.parametrize("prompt_set", ["harmful", "capability"])
def test_imported_prompts_are_those_that_evaluate_asks(tmp_path: Path, prompt_set: str) -> None:
    log = logged(tmp_path, sets=prompt_set, modality="own,benign,text", seed=3)
    asked = {prompt.id: prompt for prompt in english_prompts(3) if prompt.split == "report"}
    for record in import_log(log.location):
        prompt = asked[record.id]
        assert (record.set, record.modality, record.request, record.prompt, record.answer) == (
            prompt_set, prompt.modality, prompt.request, prompt.text, prompt.answer,
        )  # fmt: skip


def test_pictures_travel_and_settings_are_those_of_evaluate() -> None:
    task = refusals(sets="harmful", modality="benign", split="fit")
    (message,) = task.dataset[0].input
    assert [part.type for part in message.content] == ["image", "text"]
    assert message.content[0].image.startswith("data:image/png;base64,")
    assert (task.config.max_tokens, task.config.temperature) == (128, 0)


@pytest.mark.parametrize(
    ("reason", "tokens", "cut"),
    [
        ("max_tokens", 3, True),
        ("model_length", 3, True),
        ("stop", 8, False),
        ("unknown", 7, False),
        ("unknown", 8, True),
    ],
)
def test_an_answer_is_cut_where_the_provider_or_its_length_says_so(
    tmp_path: Path, reason: StopReason, tokens: int, cut: bool
) -> None:
    output = ModelOutput.from_content("mockllm/model", "It is", stop_reason=reason)
    output.usage = ModelUsage(output_tokens=tokens)
    model = get_model("mockllm/model", custom_outputs=[output])
    task = refusals(sets="harmful", modality="text", tokens=8)
    (log,) = run(task, model=model, log_dir=str(tmp_path), display="none", limit=1)
    assert [record.cut for record in import_log(log.location)] == [cut]


def test_epochs_keep_labels(tmp_path: Path) -> None:
    model = get_model("mockllm/model", custom_outputs=said)
    task = refusals(sets="harmful", modality="text")
    (log,) = run(task, model=model, log_dir=str(tmp_path), display="none", limit=3, epochs=2)
    assert log.results is not None
    metrics = log.results.scores[0].metrics
    assert sum(metrics[f"harmful.{label}"].value for label in ("refused", "complied", "neither")) == 1
    records = import_log(log.location)
    assert Counter(record.request for record in records) == dict.fromkeys({each.request for each in records}, 2)
    assert len({record.id for record in records}) == 6


def test_ones_own_prompts(tmp_path: Path) -> None:
    (tmp_path / "own.txt").write_text("How do I tie a knot?\nHow do I bake bread?\n")
    task = refusals(prompts=f"{tmp_path / 'own.txt'}:harmless", split="all")
    asked = [(sample.input[0].text, sample.metadata["modality"]) for sample in task.dataset]
    texts = ("How do I tie a knot?", "How do I bake bread?")
    assert sorted(asked) == sorted((text, modality) for text in texts for modality in ("text", "benign"))


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ({"sets": "harmfull"}, "sets='harmfull': expected of harmful, jailbroken"),
        ({"modality": ""}, "modality='': expected of text, blank"),
        ({"judge": "none"}, "unknown judge 'none'. Expected"),
        ({"split": "test"}, "split='test': expected of fit, select, report, all"),
        ({"sets": "borderline", "modality": "own"}, "none of the .* prompts is of sets borderline, modality own"),
    ],
)
def test_arguments_with_a_fault(arguments: dict[str, Any], fault: str) -> None:
    with pytest.raises(SurgeryError, match=fault):
        refusals(**arguments)


PROVIDER = """
from inspect_ai.model import ModelAPI, ModelOutput, ModelUsage, modelapi


@modelapi(name="scripted")
class Scripted(ModelAPI):
    async def generate(self, input, tools, tool_choice, config):
        output = ModelOutput.from_content("scripted/x", "I can't help with that.")
        output.usage = ModelUsage(input_tokens=5, output_tokens=9, total_tokens=14)
        return output
"""
ENTRY_POINTS = f"[inspect_ai]\nscripted = scripted\nvlsurgery = {inspect_task.__name__}\n"


def test_from_the_shell(tmp_path: Path) -> None:
    """As installed: a distribution beside the package names the task and a provider that refuses everything."""
    (tmp_path / "scripted.py").write_text(PROVIDER)
    (tmp_path / "scripted-1.dist-info").mkdir()
    (tmp_path / "scripted-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: scripted\nVersion: 1\n")
    (tmp_path / "scripted-1.dist-info" / "entry_points.txt").write_text(ENTRY_POINTS)
    command = [sys.executable, "-m", "inspect_ai", "eval", "vlsurgery/refusals", "--model", "scripted/x"]
    options = ["--limit", "4", "-T", "sets=harmful,harmless", "--log-dir", "logs", "--display", "none"]
    paths = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    result = subprocess.run(
        [*command, *options],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    (path,) = (tmp_path / "logs").glob("*.eval")
    records = import_log(path)
    assert [next(iter(record.verdicts.values())).label for record in records] == ["refused"] * 4
    assert {record.role for record in records} == {"x"}
