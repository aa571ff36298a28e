"""A run of lm-evaluation-harness itself, with a model that says what it is told to."""

import json
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def lm_eval_run(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files that lm_eval itself wrote: `asked` (two filters), `repeated` (each twice), `choice`, `rolling`, `results`.

    The model answers question N with N where N is even, with a refusal where it is odd, and chooses the shortest.
    """
    root = tmp_path_factory.mktemp("lm_eval")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_DATASETS_OFFLINE", "1")
        patch.setenv("HF_DATASETS_CACHE", str(root / "cache"))
        _run_lm_eval(root)
    folder = root / "out" / "org__tiny"
    found = {task: next(folder.glob(f"samples_{task}_*.jsonl")) for task in ("asked", "repeated", "choice", "rolling")}
    return {**found, "results": next(folder.glob("results_*.json"))}


def _run_lm_eval(root: Path) -> None:
    from lm_eval.api.model import LM
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.loggers import EvaluationTracker
    from lm_eval.tasks import TaskManager

    class Scripted(LM):  # type: ignore[misc]
        def generate_until(self, requests: Any, **_: Any) -> list[str]:
            numbers = [int(request.args[0].split()[1]) for request in requests]
            return [f"I can not say {number}." if number % 2 else str(number) for number in numbers]

        def loglikelihood(self, requests: Any, **_: Any) -> list[tuple[float, bool]]:
            return [(-float(len(request.args[1])), False) for request in requests]

        def loglikelihood_rolling(self, requests: Any, **_: Any) -> list[float]:
            return [-1.0 for _ in requests]

    rows = [{"q": f"Question {n} ?", "colors": ["blue", "red", "green"], "right": n % 3, "n": str(n)} for n in range(6)]
    data = root / "data.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)))
    source = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(data)}}, "test_split": "test"}
    asked = {
        **source,
        "output_type": "generate_until",
        "doc_to_text": "{{q}}",
        "doc_to_target": "{{n}}",
        "generation_kwargs": {"until": ["\n\n"], "max_gen_toks": 16},
        "metric_list": [{"metric": "exact_match"}],
    }
    first = {"name": "whole", "filter": [{"function": "take_first"}]}
    digits = {
        "name": "digits",
        "filter": [{"function": "regex", "regex_pattern": r"(\d+)"}, {"function": "take_first"}],
    }
    choice = {"output_type": "multiple_choice", "doc_to_text": "{{q}}", "doc_to_target": "right"}
    tasks = [
        {**asked, "task": "asked", "filter_list": [first, digits]},
        {**asked, "task": "repeated", "repeats": 2, "filter_list": [first]},
        {**source, **choice, "task": "choice", "doc_to_choice": "{{colors}}", "metric_list": [{"metric": "acc"}]},
        {**source, "task": "rolling", "output_type": "loglikelihood_rolling", "doc_to_text": "",
         "doc_to_target": "{{q}}", "metric_list": [{"metric": "word_perplexity"}]},
    ]  # fmt: skip
    tracker = EvaluationTracker(output_path=str(root / "out"))
    tracker.general_config_tracker.log_experiment_args("hf", "pretrained=org/tiny", None, None, False)
    manager = TaskManager(include_defaults=False)
    results = simple_evaluate(model=Scripted(), tasks=tasks, log_samples=True, task_manager=manager, bootstrap_iters=0)
    samples = results.pop("samples")
    tracker.save_results_aggregated(results=results, samples=samples)
    for task, written in samples.items():
        tracker.save_results_samples(task_name=task, samples=written)
