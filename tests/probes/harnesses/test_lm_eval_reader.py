"""Samples that lm-evaluation-harness itself wrote, as completions."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vlsurgery.probes.evaluation.judges import is_right
from vlsurgery.probes.harnesses import import_log
from vlsurgery.surgery.errors import SurgeryError

Run = dict[str, Path]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def edited(path: Path, to: Path, edit: Callable[[dict[str, Any]], None]) -> Path:
    """A copy of a samples file whose third sample was changed."""
    samples = lines(path)
    edit(samples[2])
    to.write_text("\n".join(map(json.dumps, samples)))
    return to


def test_a_prompt_is_read_once_whatever_the_filters(lm_eval_run: Run) -> None:
    records = import_log(lm_eval_run["asked"], prompt_set="harmful")
    assert [(record.id, record.prompt, record.text) for record in records] == [
        (f"harmful/asked/{n}", f"Question {n} ?", f"I can not say {n}." if n % 2 else str(n)) for n in range(6)
    ]
    assert {(record.role, record.set, record.modality, record.answer) for record in records} == {
        ("tiny", "harmful", "text", None)
    }
    assert not any(record.verdicts or record.cut for record in records)


def test_right_answers_are_those_that_lm_eval_counted(lm_eval_run: Run) -> None:
    for task, metric in (("asked", "exact_match"), ("choice", "acc")):
        counted = [sample[metric] for sample in lines(lm_eval_run[task]) if sample["filter"] in ("whole", "none")]
        records = import_log(lm_eval_run[task], prompt_set="capability")
        assert [is_right(record.text, str(record.answer)) for record in records] == [value == 1 for value in counted]
        assert 0 < sum(counted) < len(counted)


def test_what_the_metric_calls_right_is_right_whatever_its_form(lm_eval_run: Run, tmp_path: Path) -> None:
    def edit(sample: dict[str, Any]) -> None:
        sample["resps"] = [["It would be a 2, I think."]]
        sample["exact_match"] = 1.0

    record = import_log(edited(lm_eval_run["asked"], tmp_path / "samples.jsonl", edit), "a", "capability")[2]
    assert is_right(record.text, str(record.answer))


def test_a_choice_is_the_likeliest_one(lm_eval_run: Run) -> None:
    records = import_log(lm_eval_run["choice"], prompt_set="capability")
    assert {record.text for record in records} == {"B. red"}
    assert [record.answer for record in records] == ["A. blue", "B. red", "C. green"] * 2


def test_repeats_are_completions_of_one_request(lm_eval_run: Run) -> None:
    records = import_log(lm_eval_run["repeated"], prompt_set="harmless")
    assert len({record.id for record in records}) == len(records) == 12
    assert len({record.request for record in records}) == 6
    assert [record.id for record in records[:3]] == [
        "harmless/repeated/0",
        "harmless/repeated/0/2",
        "harmless/repeated/1",
    ]


def test_arguments_of_versions_before_0_4_3(lm_eval_run: Run, tmp_path: Path) -> None:
    old = tmp_path / lm_eval_run["asked"].name
    samples = lines(lm_eval_run["asked"])
    for sample in samples:
        sample["arguments"] = [list(each.values()) for each in sample["arguments"].values()]
    old.write_text("\n".join(map(json.dumps, samples)))
    assert import_log(old, "tiny", "harmful") == import_log(lm_eval_run["asked"], prompt_set="harmful")


@pytest.mark.parametrize("wrapped", [False, True])
def test_the_prompt_of_a_chat_is_its_last_user_message(lm_eval_run: Run, tmp_path: Path, wrapped: bool) -> None:
    messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello?"}]

    def edit(sample: dict[str, Any]) -> None:
        text = json.dumps(messages)
        sample["arguments"]["gen_args_0"]["arg_0"] = [text] if wrapped else text

    record = import_log(edited(lm_eval_run["asked"], tmp_path / "chat.jsonl", edit), "a", "harmful")[2]
    assert record.prompt == "Hello?"
    assert "be kind." in record.request


def test_a_prompt_with_a_picture(lm_eval_run: Run, tmp_path: Path) -> None:
    def edit(sample: dict[str, Any]) -> None:
        sample["arguments"]["gen_args_0"]["arg_2"] = {"visual": ["<image>"]}

    records = import_log(edited(lm_eval_run["asked"], tmp_path / "samples_seen_x.jsonl", edit), "a", "harmful")
    assert [record.modality for record in records] == ["text", "text", "own", "text", "text", "text"]
    assert records[2].request == "question 2 ? [picture of seen/2]"


def test_results_name_the_samples_beside_them(lm_eval_run: Run) -> None:
    with pytest.raises(SurgeryError, match=r"results_.*\.json: .* without its completions\. Import .*samples_asked_"):
        import_log(lm_eval_run["results"], "a", "harmful")


def test_rolling_likelihoods_are_no_completions(lm_eval_run: Run) -> None:
    with pytest.raises(SurgeryError, match=r"line 1: has neither generated text nor a choice"):
        import_log(lm_eval_run["rolling"], prompt_set="harmful")


def test_choices_neither_refuse_nor_comply(lm_eval_run: Run) -> None:
    with pytest.raises(SurgeryError, match=r"sample 0: the model chose among given answers .*:capability"):
        import_log(lm_eval_run["choice"], prompt_set="harmful")


@pytest.mark.parametrize(
    ("edit", "fault"),
    [
        (lambda sample: sample.pop("resps"), "line 3: lacks resps"),
        (lambda sample: sample.update(resps=[]), "line 3: has 1 requests and not as many responses"),
        (lambda sample: sample.update(resps=["one"]), "line 3: has 1 requests and not as many responses"),
        (lambda sample: sample.update(resps=[[7]]), "line 3: a response is no text: 7"),
        (lambda sample: sample.update(arguments={}), "line 3: its arguments are not as lm_eval writes them"),
    ],
)
def test_a_faulty_line_is_named(
    lm_eval_run: Run, tmp_path: Path, edit: Callable[[dict[str, Any]], None], fault: str
) -> None:
    with pytest.raises(SurgeryError, match=fault):
        import_log(edited(lm_eval_run["asked"], tmp_path / "samples.jsonl", edit), "a", "harmful")


def test_a_target_that_fits_no_choice(lm_eval_run: Run, tmp_path: Path) -> None:
    broken = edited(lm_eval_run["choice"], tmp_path / "c.jsonl", lambda sample: sample.update(target="purple"))
    with pytest.raises(SurgeryError, match="line 3: which choice is right can't be told from its target 'purple'"):
        import_log(broken, "a", "capability")


def test_a_truncated_file(lm_eval_run: Run, tmp_path: Path) -> None:
    cut = tmp_path / "samples.jsonl"
    cut.write_bytes(lm_eval_run["asked"].read_bytes()[:-40])
    with pytest.raises(SurgeryError, match=r"samples\.jsonl, line 12: not JSON"):
        import_log(cut, "a", "harmful")


def test_whose_answers_must_be_known(lm_eval_run: Run, tmp_path: Path) -> None:
    alone = tmp_path / lm_eval_run["asked"].name
    alone.write_bytes(lm_eval_run["asked"].read_bytes())
    with pytest.raises(SurgeryError, match=r"does not say whose answers it holds.*:SET@ROLE"):
        import_log(alone, prompt_set="harmful")
