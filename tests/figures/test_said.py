"""What they said: every flipped completion is counted, every completion is on the page beside the others, as text."""

import base64
import gzip
import json
import re
from types import SimpleNamespace

from hypothesis import given, settings, strategies as st

from vlsurgery.figures import said, transcripts
from vlsurgery.figures.report import report
from vlsurgery.probes.results import CompletionRecord, CompletionsResult

LABELS = st.sampled_from(["refused", "complied", "neither"])


def page(completions: CompletionsResult | None) -> str:
    html = report(None, None, None, None, cdn=True, completions=completions)
    return html[html.index('<section id="said">') :]


def unpacked(text: str) -> dict:
    return json.loads(gzip.decompress(base64.b64decode(text)))


def on_page(html: str) -> dict:
    (text,) = re.findall(r'id="said-data">([^<]*)<', html)
    return unpacked(text)


@settings(max_examples=50)
@given(st.lists(st.tuples(LABELS, LABELS, LABELS), min_size=1, max_size=12))
def test_flips_are_counted_and_marked(make: SimpleNamespace, labels: list[tuple[str, str, str]]) -> None:
    """Base asked in text, the others with a picture: a flip is a change of verdict on the same request."""
    rows = [
        make.record(role, "harmful", "text" if role == "base" else "benign", request, label)
        for request, each in enumerate(labels)
        for role, label in zip(("base", "adapted", "merged"), each, strict=True)
    ]
    result = CompletionsResult(rows=rows)
    expected = [
        [base == "refused" and adapted == "complied" for base, adapted, _ in labels],
        [base == "refused" and adapted == "neither" for base, adapted, _ in labels],
        [adapted == "complied" and merged == "refused" for _, adapted, merged in labels],
        [base == "refused" and merged == "neither" for base, _, merged in labels],
    ]
    told = said.compute(result)
    counts = {each.flip: (each.count, each.of) for row in told for each in row.counts if each}
    refused = sum(base == "refused" for base, *_ in labels)
    complied = sum(adapted == "complied" for _, adapted, _ in labels)
    if any(any(flips) for flips in expected):
        assert counts == {at: (sum(flips), complied if at == 2 else refused) for at, flips in enumerate(expected)}
        assert told[0].counts[4] is None  # the price is of harmless requests
    else:
        assert told == ()
    items = {item.id: item for item in transcripts.compute(result).items if item.modality == "benign"}
    for request in range(len(labels)):
        item = items[f"harmful/{request}/benign"]
        assert item.flips == tuple(at for at, flips in enumerate(expected) if flips[request])
        assert [each.role for each in item.sayings] == ["base", "adapted", "merged"]
        assert item.sayings[0].aside == "asked as text"


def test_a_count_leads_to_what_it_counts(make: SimpleNamespace) -> None:
    html = page(make.completions())
    assert '<a href="#said?flip=0&amp;set=harmful&amp;modality=benign">30 of 60</a>' in html
    assert '<a href="#said?flip=4&amp;set=harmless&amp;modality=text">6 of 60</a>' in html
    flipped = [item for item in on_page(html)["items"] if (item["set"], item["modality"]) == ("harmful", "benign")]
    assert sum(0 in item["flips"] for item in flipped) == 30


def test_every_completion_is_on_the_page_those_that_flipped_first(make: SimpleNamespace) -> None:
    completions = make.completions()
    data = on_page(page(completions))
    texts = data["texts"]
    found = {(role, item["id"], texts[text]) for item in data["items"] for role, _, _, _, _, text, _ in item["said"]}
    assert {(r.role, r.id, r.text) for r in completions.records} <= found
    flips = [bool(item["flips"]) for item in data["items"]]
    assert flips == sorted(flips, reverse=True)
    assert len(texts) == len(set(texts))


def test_what_does_not_fit_is_left_out_from_the_end_and_said(make: SimpleNamespace) -> None:
    whole = transcripts.compute(make.completions(200))
    most = len(transcripts.pack(whole).text) // 3
    packed = transcripts.pack(whole, most)
    assert len(packed.text) <= most
    assert 0 < packed.prompts < packed.all_prompts == 1000 - 200
    held = unpacked(packed.text)["items"]
    assert [item["id"] for item in held] == [item.id for item in whole.items[: packed.prompts]]
    assert packed.completions == sum(len(item["said"]) for item in held)
    assert transcripts.pack(whole, 10).prompts == 0
    assert "The page holds" not in page(make.completions())


def test_two_thousand_completions_fit(make: SimpleNamespace) -> None:
    """Of 64 words each, drawn from a thousand: more than real ones, which repeat themselves."""
    words = [f"w{at * 7919 % 100_003:x}" for at in range(1000)]
    rows = [
        make.record("adapted", "harmful", "benign", at, "refused", text=" ".join(
            words[(at * at + 31 * step * step + step * at) % 1000] for step in range(64)))
        for at in range(2000)
    ]  # fmt: skip
    packed = transcripts.pack(transcripts.compute(CompletionsResult(rows=rows)))
    assert packed.completions == packed.all_completions == 2000


def test_text_stays_text(make: SimpleNamespace) -> None:
    hostile = "<script>alert(1)</script>\x1b[31m\u202eno\r\n{{ 7 * 7 }}\ud800"
    rows = [
        make.record("base", "harmful", "text", 1, "refused", text=hostile),
        make.record("adapted", "harmful", "text", 1, "complied", text=hostile, prompt=hostile),
    ]
    html = page(CompletionsResult(rows=rows))
    assert "<script>alert" not in html
    shown = "<script>alert(1)</script>\\x1b[31m\\u202eno\\r\n{{ 7 * 7 }}\\ud800"
    assert shown in on_page(html)["texts"]  # which the page's script writes as text
    assert "innerHTML" not in html
    html.encode("utf-8")


def test_a_long_text_is_cut_and_says_by_how_much(make: SimpleNamespace) -> None:
    text = " ".join(f"word{i}" for i in range(900))
    rows = [
        make.record("base", "harmful", "text", 1, "refused"),
        make.record("adapted", "harmful", "text", 1, "complied", text=text),
    ]
    (item,) = transcripts.compute(CompletionsResult(rows=rows)).items
    saying = item.sayings[1]
    assert saying.text == text[: said.MAX_CHARACTERS]
    assert saying.left_out == len(text) - said.MAX_CHARACTERS
    assert item.sayings[0].left_out == 0


def test_other_judges_and_kinds_are_named(make: SimpleNamespace) -> None:
    base = make.record("base", "harmful", "text", 1, "refused")
    adapted: CompletionRecord = make.record("adapted", "harmful", "text", 1, "complied")
    verdict = adapted.verdicts["opening words"].model_copy(update={"kind": "refuse_then_comply"})
    other = base.verdicts["opening words"]
    adapted = adapted.model_copy(update={"verdicts": {"opening words": verdict, "hf:x": other}})
    (item,) = transcripts.compute(CompletionsResult(rows=[base, adapted])).items
    saying = item.sayings[1]
    assert (saying.label, saying.kind, saying.aside) == ("complied", "refuses, then complies", "hf:x: refused")


def test_equal_completions_give_equal_pages(make: SimpleNamespace) -> None:
    first, second = (transcripts.pack(transcripts.compute(make.completions(10))) for _ in range(2))
    assert first == second


def test_without_completions_the_command_is_named() -> None:
    assert "vlsurgery evaluate" in page(None)
    assert "No verdict changed" in page(CompletionsResult(rows=[]))
