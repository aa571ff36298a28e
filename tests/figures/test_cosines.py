"""Cosines: the diagonal beside its nulls, and a title that never says more than they do."""

from types import SimpleNamespace

import pytest

from vlsurgery.figures import cosines
from vlsurgery.surgery.errors import SurgeryError


def test_the_same_layer_is_read_off_and_held_against_shuffled_labels(make: SimpleNamespace) -> None:
    info = cosines.compute(make.probe())
    assert info.keys == ("adapted/text", "adapted/benign")
    assert info.key == "adapted/benign"
    assert info.same["adapted/benign"] == pytest.approx((0.9, 0.5, 0.1))
    assert info.beyond == {"adapted/benign": (1, 2)}
    assert "at 2 layers" in cosines.draw(info).layout.title.text
    title = cosines.plot(make.probe(), key="adapted/text").layout.title.text
    assert "Cosines with the base's direction" in title  # it has no null


def test_within_the_null_nothing_is_said_to_have_turned(make: SimpleNamespace) -> None:
    probe = make.probe()
    low = [each.model_copy(update={"lowest": 0.05}) for each in probe.cosine_nulls]
    assert "turned no more" in cosines.plot(probe.model_copy(update={"cosine_nulls": low})).layout.title.text


def test_every_key_has_its_map_and_its_lines(make: SimpleNamespace) -> None:
    figure = cosines.plot(make.probe())
    maps = [trace for trace in figure.data if trace.type == "heatmap"]
    assert [tuple(each.z[0]) for each in maps] == [(0.5, 0.4, 0.3)] * 2
    assert [bool(each.visible) for each in maps] == [False, True]
    names = {trace.name for trace in figure.data if trace.type == "scatter" and trace.visible}
    assert names == {
        "adapted, ordinary picture",
        "shuffled labels, 95% at each layer",
        "their least over all layers (5%)",
        "random direction, at most (95%)",
    }


def test_what_is_not_there_is_named_and_an_empty_probe_is_drawn(make: SimpleNamespace) -> None:
    probe = make.probe()
    for wrong in ({"position": "-9"}, {"keys": ["graft/text"]}, {"key": "graft/text"}):
        with pytest.raises(SurgeryError, match="holds no"):
            cosines.compute(probe, **wrong)
    empty = probe.model_copy(update={"cosine_matrices": []})
    assert "no other direction" in cosines.plot(empty).layout.title.subtitle.text
    assert cosines.rows(cosines.compute(empty)) == []


def test_rows_hold_the_same_layers_and_every_pair_of_the_one_shown(make: SimpleNamespace) -> None:
    found = cosines.rows(cosines.compute(make.probe()))
    assert len(found) == 3 + 9
    assert [row["cosine"] for row in found[3:6]] == [0.5, 0.4, 0.3]
    assert (found[-1]["layer of the base"], found[-1]["layer"], found[-1]["shuffled labels, least"]) == (2, 2, 0.55)
