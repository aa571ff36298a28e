"""Projections: the base's own distance is the unit, and slider and drop-down hold what they say."""

from types import SimpleNamespace

import pytest

from vlsurgery.figures import projections
from vlsurgery.probes.results import ProbeResult
from vlsurgery.surgery.errors import SurgeryError


def test_the_bases_classes_lie_at_nothing_and_one_at_every_layer_and_position(make: SimpleNamespace) -> None:
    info = projections.compute(make.probe())
    base = [each for each in info.ridges if each.role == "base"]
    assert len(base) == 4
    for ridge in base:
        for values in ridge.values.values():
            assert sum(values) / 2 == pytest.approx(float(ridge.set == "harmful"), abs=1e-9)
    assert [ridge.values[1] for ridge in base if ridge.set == "harmful"] == [
        (0.9, 1.1)
    ] * 2  # 10 and 12, harmless 0 and 2


def test_slider_and_drop_down_hold_every_layer_and_view(make: SimpleNamespace) -> None:
    figure = projections.plot(make.probe())
    (slider,), (menu,) = figure.layout.sliders, figure.layout.updatemenus
    assert [step.label for step in slider.steps] == ["0", "1", "2"]
    assert slider.active == 1
    for step in slider.steps:
        assert len(step.args[0]["x"]) == len(figure.data)
    assert [list(trace.x) for trace in figure.data] == slider.steps[1].args[0]["x"]
    assert len(menu.buttons) == 4
    assert [sum(button.args[0]["visible"]) for button in menu.buttons] == [4, 4, 4, 4]
    assert menu.buttons[menu.active].label == "ordinary picture, last instruction token"


def test_prompt_names_are_shown_and_not_read_as_markup(make: SimpleNamespace) -> None:
    text = projections.plot(make.probe()).to_json()
    assert "<b>one" not in text.replace("\\u003c", "<")
    assert "&lt;b&gt;one" in text.replace("\\u0026", "&")


def test_nothing_is_drawn_without_the_bases_classes(make: SimpleNamespace) -> None:
    probe = make.probe()
    adapted = [each for each in probe.projections if each.role != "base"]
    info = projections.compute(probe.model_copy(update={"projections": adapted}))
    assert info.ridges == ()
    assert "missing" in projections.draw(info).layout.title.subtitle.text


def test_a_slider_of_deep_models_has_few_steps_the_marked_layer_among_them(make: SimpleNamespace) -> None:
    probe: ProbeResult = make.probe()
    deep = [
        each.model_copy(
            update={
                "layers": list(range(40)),
                "values": {"instruction": [[1.0, float(each.set == "harmful")]] * 40},
            }
        )
        for each in probe.projections
    ]
    info = projections.compute(probe.model_copy(update={"projections": deep}))
    assert len(info.layers) <= 11
    assert {1, 39} <= set(info.layers)
    assert projections.compute(probe, layers=[2]).layers == (2,)
    with pytest.raises(SurgeryError, match="layers"):
        projections.compute(probe, layers=[7])


def test_rows_are_of_the_layer_that_is_shown(make: SimpleNamespace) -> None:
    found = projections.rows(projections.compute(make.probe()))
    assert len(found) == 3 * 2 * 2 * 2
    assert {row["layer"] for row in found} == {1}
