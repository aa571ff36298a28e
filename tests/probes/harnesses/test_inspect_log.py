"""Completions written as logs of inspect and read back: by inspect, and by us."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from inspect_ai.analysis import samples_df
from inspect_ai.log import EvalLog, read_eval_log, write_eval_log

from vlsurgery.probes.harnesses import ImportSpec, import_log, import_logs, write_inspect_log
from vlsurgery.probes.prompts import SETS
from vlsurgery.probes.results import CompletionRecord, Verdict
from vlsurgery.surgery.errors import SurgeryError

CREATED = "2026-01-02T03:04:05+00:00"


def completion(number: int = 0, **changes: Any) -> CompletionRecord:
    """One completion of the base; `number` makes it different from others."""
    fields = {
        "role": "base",
        "id": f"harmful/deed-{number}/text",
        "request": f"deed-{number}",
        "set": "harmful",
        "modality": "text",
        "prompt": f"How do I do deed {number}?",
        "text": f"I can not help with deed {number}.",
        "tokens": 7 + number,
        "cut": False,
        "verdicts": {"rules": Verdict(label="refused", kind="refusal", reason="i can not help")},
        "prompts_digest": "d" * 64,
    }
    return CompletionRecord.model_validate({**fields, **changes})


def write(path: Path, *records: CompletionRecord) -> list[Path]:
    return write_inspect_log(path, records, {"base": "org/base"}, CREATED)


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
VERDICT = st.sampled_from(
    [
        Verdict(label="refused", kind="partial", reason="declines, then helps"),
        Verdict(label="complied", kind="refuse_then_comply", reason=""),
        Verdict(label="neither", kind="degenerate", reason="loops"),
    ]
)
RECORD = st.builds(
    CompletionRecord,
    role=st.just("safety:rlhf"),
    id=st.text("abc/é .-", min_size=1, max_size=12),
    request=TEXT,
    set=st.sampled_from(SETS),
    modality=st.sampled_from(["text", "benign", "own"]),
    prompt=TEXT,
    text=TEXT,
    answer=st.none() | TEXT,
    tokens=st.integers(0, 10_000),
    cut=st.booleans(),
    verdicts=st.dictionaries(st.sampled_from(["rules", "hf:org/guard"]), VERDICT),
    prompts_digest=st.just("d" * 64),
)


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(RECORD, min_size=1, max_size=4, unique_by=lambda record: record.id), st.sampled_from([".eval", ".json"])
)
def test_what_was_written_is_read(tmp_path: Path, records: list[CompletionRecord], suffix: str) -> None:
    (path,) = write_inspect_log(tmp_path / f"log{suffix}", records, {}, CREATED)
    assert {record.id: record for record in import_log(path)} == {record.id: record for record in records}
    assert list(tmp_path.iterdir()).count(path) == 1


def test_inspect_shows_it_sensibly(tmp_path: Path) -> None:
    complied = Verdict(label="complied", kind="compliance", reason="no refusal")
    records = [
        completion(0),
        completion(1, verdicts={"rules": complied}, text="Sure.", cut=True),
        completion(2, set="harmless"),
    ]
    (path,) = write(tmp_path / "log.eval", *records)
    log = read_eval_log(str(path))
    assert (log.status, log.eval.task, log.eval.model) == ("success", "vlsurgery/refusals", "org/base")
    assert log.results is not None
    (score,) = log.results.scores
    assert score.metrics["harmful.refused"].value == 0.5
    assert score.metrics["harmless.refused"].value == 1.0
    assert log.samples is not None
    assert [sample.target for sample in log.samples] == ["refused", "refused", "complied"]
    frame = samples_df([str(path)]).sort_values("id")
    assert list(frame["score_rules"]) == ["refused", "complied", "refused"]
    assert list(frame["metadata_set"]) == ["harmful", "harmful", "harmless"]
    assert all(record.prompt in shown for record, shown in zip(records, frame["input"], strict=True))


def test_one_log_a_role_and_the_same_log_each_time(tmp_path: Path) -> None:
    records = [completion(number, role=role) for role in ("base", "safety:rlhf") for number in range(3)]
    paths = write(tmp_path / "log.json", *records)
    assert [path.name for path in paths] == ["log-base.json", "log-safety-rlhf.json"]
    assert sorted(tmp_path.iterdir()) == paths
    first = [path.read_bytes() for path in paths]
    write(tmp_path / "log.json", *records)
    assert [path.read_bytes() for path in paths] == first
    assert import_logs([ImportSpec(path) for path in paths]) == records


@pytest.mark.parametrize(
    ("name", "records", "fault"),
    [
        ("log.txt", [completion()], "log.txt: a log of inspect ends in .eval or .json"),
        ("log.eval", [], "log.eval: no completions to write"),
        ("log.eval", [completion(), completion()], "role 'base' has 1 prompts with two completions"),
        ("log.eval", [completion(role="a:b"), completion(role="a/b")], "the roles a:b, a/b give the same file names"),
        ("nowhere/log.eval", [completion()], "nowhere/log.eval: can't be written: .* Choose another place"),
    ],
)  # fmt: skip
def test_what_can_not_be_written(tmp_path: Path, name: str, records: list[CompletionRecord], fault: str) -> None:
    (tmp_path / "nowhere").write_text("a file")
    with pytest.raises(SurgeryError, match=fault):
        write(tmp_path / name, *records)
    assert [path.name for path in tmp_path.iterdir()] == ["nowhere"]


def changed(path: Path, change: Callable[[EvalLog], None]) -> Path:
    """The log of three completions, changed."""
    log = read_eval_log(str(write(path, *map(completion, range(3)))[0]))
    change(log)
    path.unlink()
    write_eval_log(log, str(path))
    return path


def no_own_fields(log: EvalLog) -> None:
    """As another's benchmark: ids and scores of its own."""
    log.eval.task = "org/bench"
    for number, sample in enumerate(log.samples or []):
        sample.id, sample.metadata, sample.target = number, {"set": "train"}, "yes"
        for score in (sample.scores or {}).values():
            score.value, score.metadata = "CIC"[number], None


def test_a_benchmark_of_ones_own(tmp_path: Path) -> None:
    path = changed(tmp_path / "bench.eval", no_own_fields)
    records = import_log(path, prompt_set="harmful")
    expected = completion(1, id="harmful/bench/1", role="base", request="how do i do deed 1?", verdicts={})
    assert records[1] == expected.model_copy(update={"prompts_digest": records[0].prompts_digest})
    assert [record.answer for record in import_log(path, prompt_set="capability")] == [
        "I can not help with deed 0.", "yes", "I can not help with deed 2.",
    ]  # fmt: skip


def test_a_set_is_named_by_the_log_or_by_the_user(tmp_path: Path) -> None:
    with pytest.raises(SurgeryError, match=r"bench\.eval: does not say which set .* bench\.eval:SET|Name it"):
        import_log(changed(tmp_path / "bench.eval", no_own_fields))
    (own,) = write(tmp_path / "own.eval", completion())
    with pytest.raises(SurgeryError, match=r"its samples name their sets \(harmful 1\)\. Leave out :harmless"):
        import_log(own, prompt_set="harmless")


def test_a_chat_a_picture_and_epochs(tmp_path: Path) -> None:
    from inspect_ai.model import ChatMessageSystem, ChatMessageUser, ContentImage, ContentText

    def change(log: EvalLog) -> None:
        no_own_fields(log)
        picture = ContentImage(image="data:image/png;base64,AAAA" + "A" * 4000)
        for epoch, sample in enumerate(log.samples or [], start=1):
            content = [picture if epoch > 1 else ContentText(text="(Image)"), ContentText(text="What is it?")]
            sample.input = [ChatMessageSystem(content="Be kind."), ChatMessageUser(content=content)]
            sample.id, sample.epoch = "x", epoch

    records = import_log(changed(tmp_path / "bench.eval", change), prompt_set="harmless")
    assert [record.id for record in records] == ["harmless/bench/x", "harmless/bench/x/2", "harmless/bench/x/3"]
    assert {(record.prompt, record.request, record.modality) for record in records} == {
        ("What is it?", "system: be kind. user: what is it? [picture of bench/x]", "own")
    }


def first(log: EvalLog) -> Any:
    assert log.samples
    return log.samples[0]


FAULTS: dict[str, tuple[Callable[[EvalLog], None], str]] = {
    "unfinished": (lambda log: setattr(log, "status", "started"), "did not finish .status 'started'.*eval-retry"),
    "invalid": (lambda log: setattr(log, "invalidated", True), "marked invalid"),
    "no samples": (lambda log: setattr(log, "samples", []), "holds no samples"),
    "missing samples": (lambda log: log.samples.pop(), "holds 2 of the 3 samples"),
    "version": (lambda log: setattr(log, "version", 99), "version 99"),
    "no output": (lambda log: setattr(first(log).output, "choices", []), "deed-0/text: has no output of a model"),
    "label": (lambda log: setattr(first(log).scores["rules"], "value", "maybe"), "'rules' has label 'maybe'"),
    "set": (
        lambda log: first(log).metadata.update(set="train"),
        "not as vlsurgery writes it: set: Input should be 'harm",
    ),
    "metadata": (lambda log: first(log).metadata.pop("request"), "metadata is not as vlsurgery writes it: request"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_log_that_can_not_be_used(tmp_path: Path, name: str) -> None:
    change, fault = FAULTS[name]
    path = changed(tmp_path / "log.json", change)
    with pytest.raises(SurgeryError, match=fault) as raised:
        import_log(path)
    assert str(raised.value).startswith(str(path))
    assert "\n" not in str(raised.value)


def test_a_sample_that_failed(tmp_path: Path) -> None:
    def change(log: EvalLog) -> None:
        from inspect_ai.log import EvalError

        first(log).error = EvalError(message="Rate\nlimit", traceback="", traceback_ansi="")

    with pytest.raises(SurgeryError, match=r"deed-0/text: ended with an error: Rate limit\. .*eval-retry"):
        import_log(changed(tmp_path / "log.eval", change))


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 0.999), suffix=st.sampled_from([".eval", ".json"]))
def test_a_truncated_log(tmp_path: Path, share: float, suffix: str) -> None:
    (whole,) = write(tmp_path / f"whole{suffix}", *map(completion, range(3)))
    cut = tmp_path / f"cut{suffix}"
    cut.write_bytes(whole.read_bytes()[: int(share * whole.stat().st_size)])
    with pytest.raises(SurgeryError, match=rf"cut{suffix}: not ") as raised:
        import_log(cut)
    assert "\n" not in str(raised.value)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_damaged_log_is_never_read_as_another(tmp_path: Path, place: float, bit: int) -> None:
    records = [completion(number) for number in range(3)]
    (path,) = write(tmp_path / "log.eval", *records)
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 1 << bit
    path.write_bytes(content)
    try:
        found, fault = import_log(path), ""
    except SurgeryError as error:
        found, fault = records, str(error)
    assert found == records
    assert not fault or (fault.startswith(str(path)) and "\n" not in fault)


def test_without_inspect_the_extra_is_named(tmp_path: Path) -> None:
    (path,) = write(tmp_path / "log.eval", completion())
    script = (
        "import sys; sys.modules['inspect_ai'] = None\n"
        "from vlsurgery.probes.harnesses import import_log\n"
        f"import_log({str(path)!r})"
    )
    result = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, check=False)
    assert "pip install 'vlsurgery[inspect]'" in result.stderr.splitlines()[-1]


def test_no_harness_is_imported_before_it_is_used() -> None:
    script = (
        "import sys, vlsurgery.probes.harnesses\n"
        "print({'torch', 'transformers', 'inspect_ai', 'lm_eval'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, check=False)
    assert (result.stdout.strip(), result.stderr) == ("set()", "")


def test_writing_replaces_what_is_there(tmp_path: Path) -> None:
    write(tmp_path / "log.eval", completion(0), completion(1))
    (path,) = write(tmp_path / "log.eval", completion(2))
    assert import_log(path) == [completion(2)]
