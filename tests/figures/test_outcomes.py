"""Where the base's refusals went: three shares that sum to 1, each drawn once, and a reason where there are none."""

from types import SimpleNamespace

import pytest
from hypothesis import given, strategies as st

from vlsurgery.figures import outcomes
from vlsurgery.figures.report import report
from vlsurgery.probes.results import Rate


def fates_of(info: outcomes.OutcomesInfo) -> list[outcomes.Fate]:
    return [one for group in info.groups for one in group.fates]


def test_every_harmful_row_but_the_base_s_is_there_once(make: SimpleNamespace) -> None:
    result = make.behaviour()
    expected = [
        (row.role, (row.set, row.modality))
        for row in result.records
        if row.role != "base" and row.set in ("harmful", "jailbroken")
    ]
    assert sorted((one.role, one.cell) for one in fates_of(outcomes.compute(result))) == sorted(expected)


@given(st.floats(0, 1), st.floats(0, 1))
def test_shares_sum_to_one(make: SimpleNamespace, lost: float, rest: float) -> None:
    row = make.behaviour_row("adapted", "harmful", "text", 0.5)
    row = row.model_copy(update={"lost": make.rate(lost), "broken": make.rate((1 - lost) * rest)})
    (one,) = fates_of(outcomes.compute(make.behaviour({}).model_copy(update={"records": [row]})))
    assert sum(outcomes.share(one, part) for part in outcomes.PARTS) == pytest.approx(1)


def test_each_bar_is_drawn_whole(make: SimpleNamespace) -> None:
    info = outcomes.compute(make.behaviour())
    figure = outcomes.draw(info)
    bars = [trace for trace in figure.data if trace.type == "bar"]
    assert sum(x for trace in bars for x in trace.x) == pytest.approx(len(fates_of(info)))
    (labels,) = (trace for trace in figure.data if trace.type == "scatter")
    assert len(labels.text) == len(fates_of(info))
    assert "2 / 49 / 49" not in labels.text
    assert "5 / 48 / 48" in labels.text


def test_the_title_says_what_the_adapted_model_did(make: SimpleNamespace) -> None:
    info = outcomes.compute(make.behaviour())
    assert info.title == "Adapted complies with 48% of what the base refuses, and breaks on 48%"
    assert "ordinary picture" in info.where
    few = outcomes.compute(make.shrunk(make.behaviour(), 29))
    assert few.title == "Where the base's refusals went"
    assert few.groups
    assert not outcomes.compute(make.shrunk(make.behaviour(), 1)).groups


def test_a_base_that_refuses_none_leaves_a_reason(make: SimpleNamespace) -> None:
    none = Rate(rate=None, reason="the base refuses 0 of 112: nothing could be lost")
    rows = [row.model_copy(update={"lost": none, "broken": none}) for row in make.behaviour().records]
    result = make.behaviour().model_copy(update={"records": rows})
    assert outcomes.compute(result).reasons == (none.reason,)
    assert "No row says what became of the base&#39;s refusals: the base refuses 0 of 112" in report(
        None, None, result, None, cdn=True
    )
