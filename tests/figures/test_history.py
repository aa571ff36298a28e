"""A case over time: every look in its place, lines only between looks at the same prompts, and a title of changes."""

import pytest

from vlsurgery.figures import history
from vlsurgery.probes.case_results import HistoryChange, HistoryLook, HistoryResult, HistoryRow
from vlsurgery.surgery.errors import SurgeryError

RATES = {1: ("aa", 0.9), 3: ("aa", 0.5), 4: ("bb", 0.6)}  # line -> prompts, rate


def result(changed: bool = True) -> HistoryResult:
    rows = [
        HistoryRow(
            line=line, time=f"2026-01-0{line}T12:00:00", role=role, set="harmful", modality="text", measure="refused",
            rate=rate, low=rate - 0.1, high=rate + 0.1, requests=60,
        )
        for line, (_, rate) in RATES.items()
        for role in ("merged", "adapted")
    ]  # fmt: skip
    looks = [
        HistoryLook(
            line=line, time=f"2026-01-0{line}T12:00:00", step="evaluate" if line in RATES else "probe", roles=[],
            prompts_digest=RATES.get(line, ("aa",))[0], judge="rules",
        )
        for line in (1, 2, 3, 4)
    ]  # fmt: skip
    change = HistoryChange(
        line=3, since=1, role="merged", set="harmful", modality="text", measure="refused", difference=-0.4, low=-0.5,
        high=-0.3, words="it fell",
    )  # fmt: skip
    return HistoryResult(records=rows, looks=looks, changes=[change] if changed else [], notes=[], verdict="It fell.")


def test_looks_stand_in_order_and_lines_break_where_prompts_change() -> None:
    info = history.compute(result())
    assert [look.line for look in info.looks] == [1, 3, 4]  # the second measured no rate
    assert info.prompts == {1: 1, 3: 1, 4: 2}
    assert [role for role, *_ in info.rows] == ["adapted", "merged"]
    line = history.draw(info).data[1]
    assert list(line.y) == [0.9, 0.5, None, 0.6]
    assert [None if x is None else round(x) for x in line.x] == [0, 1, None, 2]
    assert [e for e in line.error_y.array if e is not None] == pytest.approx([0.1] * 3)


def test_the_title_tells_the_largest_change_beyond_its_interval() -> None:
    assert "merged on harmful" in history.plot(result()).layout.title.text
    assert "−40.0 points refused" in history.plot(result()).layout.title.text
    assert "No rate changed by more than its interval in 3 evaluations" in history.plot(result(False)).layout.title.text
    assert "No rate changed" in history.plot(result(), roles=["adapted"]).layout.title.text


def test_what_is_shown_can_be_chosen() -> None:
    info = history.compute(result(), roles=["merged"], sets=["harmful"], modalities=["text"])
    assert list(info.rows) == [("merged", "harmful", "text")]
    assert [row["refused"] for row in history.rows(info)] == [0.9, 0.5, 0.6]
    with pytest.raises(SurgeryError, match=r"measure: this result holds no 'right'\. Choose from: refused"):
        history.plot(result(), measure="right")
