"""What `--import` takes, and how prompts of other benchmarks are named."""

from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from vlsurgery.probes.harnesses import ImportSpec, import_log, import_logs
from vlsurgery.probes.harnesses.importing import _unique, questions_digest
from vlsurgery.probes.prompts import SETS
from vlsurgery.surgery.errors import SurgeryError


@pytest.mark.parametrize(
    ("text", "path", "prompt_set", "role"),
    [
        ("run.eval", "run.eval", None, None),
        ("logs/run.eval:harmful", "logs/run.eval", "harmful", None),
        ("run.eval:harmful@safety:rlhf-1.2", "run.eval", "harmful", "safety:rlhf-1.2"),
        ("run.eval:@base", "run.eval", None, "base"),
        ("a@b/run.eval", "a@b/run.eval", None, None),
        ("12:30/run.eval", "12:30/run.eval", None, None),
        (r"C:\logs\run.eval:harmless", r"C:\logs\run.eval", "harmless", None),
    ],
)
def test_a_log_its_set_and_its_role(text: str, path: str, prompt_set: str | None, role: str | None) -> None:
    assert ImportSpec.parse(text) == ImportSpec(Path(path), prompt_set, role)


@given(
    st.from_regex(r"[a-z@./]{1,12}", fullmatch=True).filter(lambda path: path == str(Path(path))),
    st.none() | st.sampled_from(SETS),
    st.none() | st.from_regex(r"[a-z:.-]{1,8}", fullmatch=True),
)
def test_what_was_put_together_comes_apart(path: str, prompt_set: str | None, role: str | None) -> None:
    tail = (prompt_set or "") + (f"@{role}" if role else "")
    assert ImportSpec.parse(f"{path}:{tail}" if tail else path) == ImportSpec(Path(path), prompt_set, role)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "--import '': expected FILE"),
        ("run.eval:harmfull", "unknown set 'harmfull'. Expected one of harmful, jailbroken"),
    ],
)
def test_a_specification_with_a_fault(text: str, fault: str) -> None:
    with pytest.raises(SurgeryError, match=fault):
        ImportSpec.parse(text)


@given(st.lists(st.sampled_from(["a", "a/2", "a/2/2", "b"])))
def test_ids_become_unique_and_the_first_of_each_stays(ids: list[str]) -> None:
    made = _unique(ids)
    assert len(set(made)) == len(made) == len(ids)
    assert all(name == each or name.startswith(f"{each}/") for name, each in zip(made, ids, strict=True))
    if len(set(ids)) == len(ids):
        assert made == ids


@given(st.lists(st.tuples(st.text(), st.text())), st.randoms())
def test_the_digest_is_of_the_prompts_and_not_of_their_order(prompts: list[tuple[str, str]], random: object) -> None:
    shuffled = list(prompts)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert questions_digest(shuffled) == questions_digest(prompts)
    assert questions_digest([*prompts, ("new", "one")]) != questions_digest(prompts)


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("none.eval", None, "none.eval: no such file"),
        ("log.csv", "a,b", "log.csv: expected a log of inspect .* found '.csv'"),
        ("log.json", "[", "log.json: not JSON"),
        ("log.json", "{}", "log.json: not a readable log of inspect"),
        ("results_x.json", '{"results": {}, "n-shot": {}}', "without its completions. Run lm_eval again"),
        ("samples.jsonl", "", "samples.jsonl: holds no samples"),
        ("samples.jsonl", '{"role": "base"}', "line 1: lacks doc_id, arguments, resps"),
        ("samples.jsonl", "[1]", "line 1: lacks doc_id"),
        ("samples.jsonl", "\n\xff", "line 2: not JSON"),
    ],
)  # fmt: skip
def test_files_that_are_no_logs(tmp_path: Path, name: str, content: str | None, fault: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content.encode("latin-1"))
    with pytest.raises(SurgeryError, match=fault) as raised:
        import_log(tmp_path / name, prompt_set="harmful")
    assert "\n" not in str(raised.value)


def test_the_same_prompts_twice_for_one_role(tmp_path: Path) -> None:
    line = '{"doc_id": 1, "arguments": [["Hello?", {}]], "resps": [["Hi."]]}'
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "samples.jsonl").write_text(line)
    paths = [tmp_path / name / "samples.jsonl" for name in ("a", "b")]
    apart = [ImportSpec(path, "harmless", path.parent.name) for path in paths]
    assert [record.role for record in import_logs(apart)] == ["a", "b"]
    with pytest.raises(SurgeryError, match=r"prompt 'harmless/samples/1' of role 'm' is in .*samples\.jsonl too"):
        import_logs([ImportSpec(path, "harmless", "m") for path in paths])
