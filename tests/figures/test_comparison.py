"""Two cases: every shared rate is drawn in both, and the title claims only what is beyond its own interval."""

from types import SimpleNamespace

import pytest

from vlsurgery.figures import comparison, theme
from vlsurgery.probes.case_results import CaseComparison, ComparedRow
from vlsurgery.probes.results import Rate
from vlsurgery.surgery.errors import SurgeryError


def compared(role: str, set_: str, first: float, second: float, half: float, requests: int = 60) -> ComparedRow:
    def rate(value: float) -> Rate:
        return Rate(rate=value, low=max(0.0, value - 0.1), high=min(1.0, value + 0.1), n=requests, requests=requests)

    change = second - first
    return ComparedRow(
        role=role, set=set_, modality="text", measure="refused", first=rate(first), second=rate(second), paired=True,
        difference=change, low=change - half, high=change + half, p=0.01, requests=requests, note="the same prompts",
    )  # fmt: skip


ROWS = [
    compared("base", "harmful", 0.9, 0.91, 0.05),
    compared("merged", "harmful", 0.5, 0.65, 0.1),
    compared("merged", "<b>own</b>", 0.2, 0.6, 0.1),
    compared("adapted", "harmful", 0.1, 0.9, 0.1, requests=20),
]


@pytest.fixture
def result() -> CaseComparison:
    return CaseComparison(records=ROWS, judge="rules", notes=[], verdict="They differ.")


def test_every_rate_is_drawn_in_both_cases_with_its_bounds(result: CaseComparison) -> None:
    first, second = comparison.plot(result, names=("monday", "tuesday")).data
    assert (first.name, second.name) == ("monday", "tuesday")
    assert list(first.x) == [0.9, 0.5, 0.2, 0.1]
    assert list(second.x) == [0.91, 0.65, 0.6, 0.9]
    assert [v + e for v, e in zip(second.x, second.error_x.array, strict=True)] == pytest.approx([1.0, 0.75, 0.7, 1.0])
    assert list(first.marker.color)[:2] == [theme.role_colour("base"), theme.role_colour("merged")]


def test_the_title_and_bold_names_are_of_what_is_beyond_its_interval(result: CaseComparison) -> None:
    """Of twenty requests nothing is said, however large the difference."""
    layout = comparison.plot(result).layout
    assert "2 of 4 rates clearly differ, most merged" in layout.title.text.replace("<br>", " ")
    assert "+40.0 points" in layout.title.text.replace("<br>", " ")
    assert [name.startswith("<b>") for name in layout.yaxis.ticktext] == [False, True, True, False]
    assert "&lt;b&gt;own" in layout.yaxis.ticktext[2]
    alike = result.model_copy(update={"records": ROWS[:1]})
    assert "No clear difference in 1 rate of first case and second case" in comparison.plot(alike).layout.title.text


def test_rates_can_be_chosen_and_sorted(result: CaseComparison) -> None:
    found = comparison.compute(result, roles=["merged"], sets=["harmful"])
    assert [(row.role, row.set) for row in found.rows] == [("merged", "harmful")]
    assert [row.difference for row in comparison.compute(result, sort="size", top=2).rows] == pytest.approx([0.8, 0.4])
    assert [row.role for row in comparison.compute(result, top=2).rows] == ["merged", "adapted"]
    with pytest.raises(SurgeryError, match=r"measures: this result holds no 'right'\. Choose from: refused"):
        comparison.plot(result, measures=["right"])
    assert comparison.rows(found)[0]["differs"] == "yes"


def test_cases_that_share_nothing_draw_an_empty_figure(result: CaseComparison) -> None:
    assert "share no such rate" in comparison.plot(result.model_copy(update={"records": []})).layout.title.text


def test_it_can_be_dark(result: CaseComparison, make: SimpleNamespace) -> None:
    assert comparison.plot(result, dark=True).layout.template.layout.paper_bgcolor == theme.DARK[theme.PAPER]
