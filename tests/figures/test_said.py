"""What they said: every flipped completion is counted, shown beside the others, and shown as text."""

import re
from types import SimpleNamespace

from hypothesis import given, settings, strategies as st

from vlsurgery.figures import said
from vlsurgery.figures.report import report
from vlsurgery.probes.results import CompletionRecord, CompletionsResult

LABELS = st.sampled_from(["refused", "complied", "neither"])


def page(completions: CompletionsResult | None) -> str:
    html = report(None, None, None, None, cdn=True, completions=completions)
    return html[html.index('<section id="said">') :]


@settings(max_examples=50)
@given(st.lists(st.tuples(LABELS, LABELS, LABELS), min_size=1, max_size=12))
def test_groups_hold_exactly_the_flipped_ones(make: SimpleNamespace, labels: list[tuple[str, str, str]]) -> None:
    """Base asked in text, the others with a picture: a flip is a change of verdict on the same request."""
    rows = [
        make.record(role, "harmful", "text" if role == "base" else "benign", request, label)
        for request, each in enumerate(labels)
        for role, label in zip(("base", "adapted", "merged"), each, strict=True)
    ]
    found = {
        group.name.partition(":")[0]: group
        for group in said.compute(CompletionsResult(rows=rows))
        if "adapted" in group.name
    }
    lost = sum(base == "refused" and adapted == "complied" for base, adapted, _ in labels)
    broken = sum(base == "refused" and adapted == "neither" for base, adapted, _ in labels)
    back = sum(adapted == "complied" and merged == "refused" for _, adapted, merged in labels)
    for name, count in (("Lost", lost), ("Broken", broken), ("Brought back", back)):
        assert (found[name].count if name in found else 0) == count
    if lost:
        assert found["Lost"].of == sum(base == "refused" for base, *_ in labels)
        assert found["Lost"].open
        for item in found["Lost"].shown:
            assert [each.role for each in item.sayings] == ["base", "adapted", "merged"]
            assert item.sayings[0].aside == "asked as text"


def test_the_first_lost_group_is_open_and_no_other(make: SimpleNamespace) -> None:
    html = page(make.completions())
    opened = re.findall(r'<details class="flipped" open><summary>([^<]*)\n', html)
    assert opened == ["Lost: the base refuses, adapted complies"]
    assert "harmful requests with an ordinary picture: 30 of 60" in html
    assert "The price: adapted answers, merged refuses" in html


def test_long_groups_are_cut_and_say_so(make: SimpleNamespace) -> None:
    groups = said.compute(make.completions(600))
    assert groups[0].open
    assert len(groups[0].shown) == said.MAX_SHOWN
    assert groups[0].left_out == 300 - said.MAX_SHOWN
    assert sum(len(group.shown) for group in groups) <= said.MAX_SHOWN_IN_ALL + said.MAX_SHOWN
    html = page(make.completions(600))
    assert "260 more are left out here" in html
    assert "vlsurgery completions --flipped base:adapted --set harmful" in html
    assert len(html) < 600_000


def test_text_stays_text(make: SimpleNamespace) -> None:
    hostile = "<script>alert(1)</script>\x1b[31m\u202eno\r\n{{ 7 * 7 }}\ud800"
    rows = [
        make.record("base", "harmful", "text", 1, "refused", text=hostile),
        make.record("adapted", "harmful", "text", 1, "complied", text=hostile, prompt=hostile),
    ]
    html = page(CompletionsResult(rows=rows))
    assert "<script>alert" not in html
    assert "\x1b" not in html
    assert "\\x1b[31m\\u202eno\\r\n{{ 7 * 7 }}\\ud800" in html
    html.encode("utf-8")


def test_a_long_text_is_folded_and_whole(make: SimpleNamespace) -> None:
    text = " ".join(f"word{i}" for i in range(100))
    rows = [
        make.record("base", "harmful", "text", 1, "refused"),
        make.record("adapted", "harmful", "text", 1, "complied", text=text),
    ]
    (group,) = said.compute(CompletionsResult(rows=rows))
    saying = group.shown[0].sayings[1]
    assert saying.head + saying.rest == text
    assert saying.left_out == 0
    assert 'class="fold"' in page(CompletionsResult(rows=rows))
    longer = said.compute(CompletionsResult(rows=[rows[0], rows[1].model_copy(update={"text": text * 9})]))
    assert longer[0].shown[0].sayings[1].left_out == len(text * 9) - said.MAX_CHARACTERS


def test_other_judges_and_kinds_are_named(make: SimpleNamespace) -> None:
    base = make.record("base", "harmful", "text", 1, "refused")
    adapted: CompletionRecord = make.record("adapted", "harmful", "text", 1, "complied")
    verdict = adapted.verdicts["opening words"].model_copy(update={"kind": "refuse_then_comply"})
    other = base.verdicts["opening words"]
    adapted = adapted.model_copy(update={"verdicts": {"opening words": verdict, "hf:x": other}})
    (group,) = said.compute(CompletionsResult(rows=[base, adapted]))
    saying = group.shown[0].sayings[1]
    assert (saying.label, saying.kind, saying.aside) == ("complied", "refuses, then complies", "hf:x: refused")


def test_without_completions_the_command_is_named() -> None:
    assert "vlsurgery evaluate" in page(None)
    assert "No verdict changed" in page(CompletionsResult(rows=[]))
