"""Direction drift: one position, one reference, gaps where nothing was measured."""

from types import SimpleNamespace

import pytest

from vlsurgery.figures import direction_drift
from vlsurgery.probes.results import Estimate


def test_only_the_selected_position_is_shown_and_all_of_it(make: SimpleNamespace) -> None:
    probe = make.probe()
    info = direction_drift.compute(probe)
    assert info.position == "instruction"
    shown = sum(len(series.auroc) for series in info.series)
    assert shown == sum(row.position == "instruction" for row in probe.records)
    cosines = [c for series in info.series for c in series.cosine]
    assert sorted(cosines) == sorted(row.cosine for row in probe.cosines if row.position == "instruction")


def test_the_reference_itself_is_not_drawn_as_a_finding(make: SimpleNamespace) -> None:
    figure = direction_drift.plot(make.probe())
    drawn = [(t.name, tuple(t.y)) for t in figure.data if t.yaxis == "y" and t.hoverinfo == "text"]
    assert {name for name, _ in drawn} == {"adapted, text only", "adapted, ordinary picture"}
    for _, values in drawn:
        assert values == pytest.approx((0.9, 0.7, 0.5))


def test_the_noise_band_spans_all_split_halves(make: SimpleNamespace) -> None:
    probe = make.probe()
    cosines = [row.model_copy(update={"split_half": 0.8 if row.role == "adapted" else 0.97}) for row in probe.cosines]
    info = direction_drift.compute(probe.model_copy(update={"cosines": cosines}))
    assert info.noise_band == dict.fromkeys(range(3), (0.8, 0.97))


def test_a_missing_value_leaves_a_gap(make: SimpleNamespace) -> None:
    probe = make.probe()
    none = Estimate(value=None, reason="one class only")
    rows = [row.model_copy(update={"auroc": none}) if row.layer == 1 else row for row in probe.records]
    figure = direction_drift.plot(probe.model_copy(update={"records": rows}))
    lines = [t for t in figure.data if t.yaxis == "y2" and t.hoverinfo == "text"]
    assert lines
    assert all(line.y[1] is None for line in lines)
    assert "one class only" in lines[0].hovertext[1]


def test_without_a_selected_layer_the_most_measured_position_is_shown(make: SimpleNamespace) -> None:
    probe = make.probe()
    rows = [row for row in probe.records if row.position == "-1" or row.layer == 0]
    info = direction_drift.compute(probe.model_copy(update={"selected": None, "records": rows}))
    assert info.position == "-1"
    direction_drift.draw(info)


def test_a_separation_below_its_null_is_no_finding(make: SimpleNamespace) -> None:
    probe = make.probe()
    weak = probe.selected.model_copy(update={"auroc": 0.55})
    figure = direction_drift.plot(probe.model_copy(update={"selected": weak}))
    assert "no layer separates better than chance" in figure.layout.xaxis2.title.text
