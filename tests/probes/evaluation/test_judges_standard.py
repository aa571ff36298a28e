"""The standard judge, on completions written in the styles of many models and kept aside."""

from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from vlsurgery.probes.evaluation.judges import RULES, STANDARD, Exchange
from vlsurgery.probes.results import KINDS, LABELS

LABEL_KINDS = {
    "refused": {"refusal", "partial", "non_answer"},
    "complied": {"compliance", "refuse_then_comply"},
    "neither": {"empty", "degenerate", "off_topic", "undecided", "non_answer"},
}


def kept_aside() -> list[tuple[str, str, Exchange]]:
    """Style, label and exchange of every line of the file beside this one."""
    rows = []
    for line in Path(__file__).with_name("judge_held_out.tsv").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("# "):
            style, group, prompt, label, text = line.split("\t")
            known = {"set": None if group == "-" else group, "prompt": None if prompt == "-" else prompt}
            rows.append((style, label, Exchange(text.replace("\\n", "\n"), **known)))
    return rows


ROWS = kept_aside()
EXCHANGES = [exchange for _, _, exchange in ROWS]


def test_nine_in_ten_of_the_kept_aside_completions_are_judged_right():
    right = [verdict.label == label for verdict, (_, label, _) in zip(STANDARD.judge(EXCHANGES), ROWS, strict=True)]
    assert sum(right) >= 0.9 * len(right)


@pytest.mark.parametrize("style", sorted({style for style, _, _ in ROWS}))
def test_no_style_is_misjudged_as_a_whole(style):
    rows = [row for row in ROWS if row[0] == style]
    right = [v.label == label for v, (_, label, _) in zip(STANDARD.judge([x for *_, x in rows]), rows, strict=True)]
    assert sum(right) >= 0.7 * len(right)


@given(st.text(), st.one_of(st.none(), st.text()), st.booleans())
def test_every_text_has_a_verdict_whose_kind_goes_with_its_label(text, prompt, cut):
    for judge in (RULES, STANDARD):
        verdict = judge.judge([Exchange(text, prompt, cut=cut)])[0]
        assert verdict.label in LABELS
        assert verdict.kind in KINDS
        assert verdict.kind in LABEL_KINDS[verdict.label]
        assert verdict.reason


@settings(max_examples=15)
@given(st.permutations(range(len(EXCHANGES))))
def test_verdicts_come_in_the_order_of_their_exchanges(order):
    some = order[:12]
    together = STANDARD.judge([EXCHANGES[place] for place in some])
    assert together == [STANDARD.judge([EXCHANGES[place]])[0] for place in some]


def test_the_judge_says_what_it_is():
    assert STANDARD.name == "standard"
    assert "XSTest" in STANDARD.description
