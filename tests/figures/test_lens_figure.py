"""The logit lens: which curves stand in which panel, and where the title says that models part."""

from types import SimpleNamespace

import pytest

from vlsurgery.figures import lens
from vlsurgery.surgery.errors import SurgeryError


def test_every_curve_is_drawn_with_its_interval_and_the_base_beside_pictures(make: SimpleNamespace) -> None:
    info = lens.compute(make.probe())
    assert (info.sets, info.modality) == (("harmful", "harmless"), "benign")
    assert [(each.role, each.modality) for each in info.of("harmful", "benign")] == [
        ("base", "text"),
        ("adapted", "benign"),
    ]
    figure = lens.draw(info)
    lines = [trace for trace in figure.data if trace.hoverinfo == "text"]
    bands = [trace for trace in figure.data if trace.fill == "toself"]
    assert len(lines) == len(bands) == 8
    shown = [trace for trace in lines if trace.visible]
    assert {trace.line.dash for trace in shown} == {"solid", "dash"}
    assert [tuple(trace.y) for trace in shown[:2]] == [(-5.0, -1.0, 4.0), (-5.0, -2.0, -6.0)]


def test_the_drop_down_shows_one_kind_of_picture_at_a_time(make: SimpleNamespace) -> None:
    figure = lens.plot(make.probe())
    (menu,) = figure.layout.updatemenus
    assert [button.label for button in menu.buttons] == ["text only", "ordinary picture"]
    assert menu.active == 1
    for at, button in enumerate(menu.buttons):
        visible = button.args[0]["visible"]
        assert len(visible) == len(figure.data)
        assert sum(visible) == 8
        assert (visible == [trace.visible for trace in figure.data]) == (at == menu.active)
    assert lens.plot(make.probe(), modality="text").layout.updatemenus[0].active == 0


def test_the_title_names_the_layer_from_which_intervals_stay_apart(make: SimpleNamespace) -> None:
    probe = make.probe()
    assert lens.compute(probe).parted == 2
    assert "From layer 2 on, adapted reads less of a refusal than the base" in lens.plot(probe).layout.title.text
    few = [each.model_copy(update={"requests": 29}) for each in probe.lens]
    assert lens.compute(probe.model_copy(update={"lens": few})).parted is None
    back = [
        each.model_copy(update={"high": [-9.0, -9.0, 9.0]}) if each.role == "adapted" else each for each in probe.lens
    ]
    assert lens.compute(probe.model_copy(update={"lens": back})).parted is None


def test_roles_and_sets_are_chosen_and_wrong_ones_named(make: SimpleNamespace) -> None:
    info = lens.compute(make.probe(), roles=["adapted"], sets=["harmless"])
    assert {(each.role, each.set) for each in info.curves} == {("adapted", "harmless")}
    assert lens.draw(info).data
    for wrong in ({"roles": ["graft"]}, {"sets": ["jailbroken"]}, {"modality": "own"}):
        with pytest.raises(SurgeryError, match="holds no"):
            lens.compute(make.probe(), **wrong)


def test_rows_hold_every_number_that_is_drawn(make: SimpleNamespace) -> None:
    found = lens.rows(lens.compute(make.probe()))
    assert len(found) == 3 * 2 * 3
    assert found[0] == {
        "role": "base",
        "prompts": "harmful",
        "modality": "text",
        "layer": 0,
        "refusal log-odds": -5.0,
        "low": -6.5,
        "high": -4.6,
        "requests": 40,
    }
