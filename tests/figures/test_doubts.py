"""What is wrong with a case as a whole is said at the very top: mixed prompts, roles that look swapped."""

import shlex
from types import SimpleNamespace

from hypothesis import given, strategies as st

from vlsurgery.figures.doubts import doubts, mixed_prompts
from vlsurgery.figures.findings import roles_look_swapped
from vlsurgery.figures.report import report
from vlsurgery.probes.results import Paired
from vlsurgery.surgery.results import CheckpointRef

DIGESTS = st.sampled_from([None, "a", "b"])


def asked(digest: str | None, *files: str) -> dict[str, object]:
    return (
        {} if digest is None else {"prompts": {"own": "english", "files": dict.fromkeys(files, "x"), "digest": digest}}
    )


@given(DIGESTS, DIGESTS, DIGESTS)
def test_prompts_are_mixed_exactly_where_digests_differ(
    make: SimpleNamespace, probe: str | None, behaviour: str | None, tradeoff: str | None
) -> None:
    found = mixed_prompts(
        make.probe(asked(probe)),
        make.behaviour(settings=asked(behaviour)),
        make.tradeoff().model_copy(update={"settings": asked(tradeoff)}),
    )
    others = {digest for digest in (probe, tradeoff) if digest is not None} - {behaviour}
    assert (found is not None) == (behaviour is not None and bool(others))


def test_mixed_prompts_name_both_and_the_commands(make: SimpleNamespace) -> None:
    text = mixed_prompts(
        make.probe(asked("1234567890")), make.behaviour(settings=asked("abcdef", "my set.jsonl:harmful")), None
    )
    assert text is not None
    assert "measured on my set.jsonl:harmful [abcdef]" in text
    assert "found on the package's own prompts [12345678]" in text
    assert "`vlsurgery probe --prompts 'my set.jsonl:harmful'`" in text


def test_the_digest_of_the_result_itself_counts_where_settings_have_none(make: SimpleNamespace) -> None:
    result = make.behaviour().model_copy(update={"prompts_digest": "x"})
    assert mixed_prompts(make.probe(asked("y")), result, None) is not None
    assert mixed_prompts(make.probe(asked("x")), result, None) is None
    assert mixed_prompts(make.probe(), result, None) is None
    assert mixed_prompts(make.probe(asked("x")), None, None) is None


def test_the_box_is_the_first_thing_on_the_page(make: SimpleNamespace) -> None:
    html = report(None, make.probe(asked("a")), make.behaviour(settings=asked("b")), None, cdn=True)
    assert html.index('class="doubts"') < html.index("<h1")
    assert 'class="doubts"' not in report(None, make.probe(), make.behaviour(), None, cdn=True)


SWAPPED = {"base": {("harmful", "text"): 0.1}, "adapted": {("harmful", "text"): 0.9}}


def test_a_base_that_refuses_less_looks_swapped(make: SimpleNamespace) -> None:
    refs = {role: CheckpointRef(path=f"models/{role} one", identity=role) for role in ("base", "adapted", "safety:x")}
    result = make.behaviour(SWAPPED).model_copy(update={"checkpoints": refs})
    text = roles_look_swapped(result)
    assert text is not None
    assert "10 / 45 / 45% against 90 / 5 / 5%" in text
    command = text[text.index("`") + 1 : text.rindex("`")]
    expected = ["vlsurgery", "diff", "models/adapted one", "models/base one", "models/safety:x one", "--new"]
    assert shlex.split(command) == expected
    assert text in doubts(None, result, None)


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 0.3), st.integers(2, 60))
def test_roles_look_swapped_only_where_that_is_clear(
    make: SimpleNamespace, base: float, adapted: float, half: float, requests: int
) -> None:
    table = {"base": {("harmful", "text"): base}, "adapted": {("harmful", "text"): adapted}}
    result = make.shrunk(make.behaviour(table, half=half), requests)
    found = roles_look_swapped(result)
    rows = {row.role: row.refused for row in result.records}
    clear = rows["base"].high < rows["adapted"].low and requests >= 30
    assert (found is not None) == clear


def test_a_paired_test_decides_whether_roles_look_swapped(make: SimpleNamespace) -> None:
    fields = {"set": "harmful", "modality": "text", "measure": "refused", "requests": 100, "difference": 0.8}
    test = Paired(role="adapted", against="base", low=-0.1, high=0.9, **fields)
    assert roles_look_swapped(make.behaviour(SWAPPED, [test])) is None
    assert roles_look_swapped(make.behaviour(SWAPPED, [test.model_copy(update={"low": 0.3})])) is not None
