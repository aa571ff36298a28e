"""The claims' figure shows every deciding number once, where it is, and says what was found."""

import pytest

from vlsurgery.figures import claims
from vlsurgery.probes.results import Claim, ClaimEvidence, ClaimsResult


def evidence(name: str, value: float | None, **more: object) -> ClaimEvidence:
    fields = {"unit": "points", "low": 0.1, "high": 0.8, "verdict": "holds", "requests": 60, "prompts": 60, **more}
    if value is None:
        fields |= {"low": None, "high": None, "verdict": "can't tell", "reason": "no merge"}
    return ClaimEvidence(name=name, value=value, **fields)


@pytest.fixture
def result() -> ClaimsResult:
    first = Claim(
        key="C1", text="one <b>claim</b>", verdict="holds", said="It holds.",
        evidence=[
            evidence("lost", 0.5, by_case={"seed 0": 0.4, "seed 1": 0.6}),
            evidence("beside it", 0.9, decides=False),
        ],
    )  # fmt: skip
    second = Claim(
        key="C2", text="another", verdict="can't tell", said="Nothing.",
        evidence=[evidence("nothing", None), evidence("a share", 0.7, unit="share", bar=0.5, low=0.6)],
    )  # fmt: skip
    return ClaimsResult(
        records=[first, second], cases=["seed 0", "seed 1"], notes=["a <i>note</i>"], verdict="C1 holds."
    )


def test_every_deciding_number_has_a_row_and_no_other(result: ClaimsResult) -> None:
    info = claims.compute(result)
    assert [row.evidence.name for row in info.rows] == ["lost", "nothing", "a share"]
    places = [y for y, _ in info.heads] + [row.y for row in info.rows]
    assert len(set(places)) == len(places)
    assert info.title == "C1 holds"


def test_markers_and_intervals_are_where_the_numbers_are(result: ClaimsResult) -> None:
    figure = claims.plot(result)
    drawn = {trace.name: trace for trace in figure.data if trace.name}
    assert list(drawn["holds"].x) == [0.5, 0.7]
    assert list(drawn["holds"].error_x.array) == [pytest.approx(0.3), pytest.approx(0.1)]
    assert list(drawn["holds"].error_x.arrayminus) == [pytest.approx(0.4), pytest.approx(0.1)]
    assert list(drawn["can't tell"].x) == []
    assert list(drawn["one case"].x) == [0.4, 0.6]
    assert list(drawn["bar to pass"].x) == [0.5]
    labels = next(trace for trace in figure.data if trace.mode == "text")
    assert labels.text[0] == "+50 (+10 to +80) points, 60 requests"
    assert labels.text[1] == "not measured: no merge"


def test_the_page_holds_the_words_and_escapes_them(result: ClaimsResult, tmp_path) -> None:
    claims.write_page(tmp_path / "claims.html", result)
    page = (tmp_path / "claims.html").read_text()
    assert "It holds." in page
    assert "beside it: +90" in page
    assert "a &lt;i&gt;note" in page
    assert "<b>claim</b>" not in page.replace("\\u003cb\\u003e", "")


def test_no_claims_draw_an_empty_figure() -> None:
    assert claims.plot(ClaimsResult(records=[], cases=[], notes=[], verdict="")).data
