"""Layers read on one model: what is kept is what single prompts give, and what can't be had is left out."""

import numpy as np
import pytest
import torch

from vlsurgery.probes import layer_readings
from vlsurgery.probes.activations import capture
from vlsurgery.probes.contrasts import Directions
from vlsurgery.probes.layer_readings import LayerReadings, shown_prompts
from vlsurgery.probes.models import load

OPENINGS = [7, 11]


@pytest.fixture(scope="module")
def chat(trio):
    return load(trio.checkpoints["adapted"])


@pytest.fixture(scope="module")
def directions():
    values = torch.randn(2, 3, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return Directions(("instruction", "-1"), values, (values, values))


@pytest.fixture(scope="module")
def readings(chat, every, directions):
    """Of the same weights twice, as base and as adapted."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layer_readings, "MAX_SHOWN", 6)
        found = LayerReadings()
        found.take("base", "text", chat, every, OPENINGS, directions)
        found.take("adapted", "text", chat, every, OPENINGS, directions)
        found.take("adapted", "benign", chat, every, OPENINGS, directions)
    return found


def test_projections_are_those_of_single_prompts(chat, every, directions, readings):
    found = next(each for each in readings.projections if (each.modality, each.set) == ("benign", "harmful"))
    asked = {prompt.id: prompt for prompt in every}
    assert len(found.prompts) == 6
    for at, name in enumerate(found.prompts):
        (states,) = capture(chat, chat.encode([asked[name]]))
        for position, place in (("instruction", 0), ("-1", -1)):
            units = directions.units[0 if position == "instruction" else 1]
            alone = (states.values[0, place].double() * units).sum(-1)
            kept = [layer[at] for layer in found.values[position]]
            assert kept == pytest.approx(alone.tolist(), rel=6e-3, abs=1e-4)


def test_the_same_weights_read_alike_under_any_name(readings):
    ours = [each for each in readings.projections if each.role == "base"]
    theirs = [each for each in readings.projections if (each.role, each.modality) == ("adapted", "text")]
    assert [each.values for each in ours] == [each.values for each in theirs]
    gaps = [each.gap for each in readings.safety_layers]
    assert gaps[0] == gaps[1] != gaps[2]


def test_nulls_are_of_the_others_against_the_base_and_one_against_itself(readings):
    keys = {(each.role, each.modality, each.position) for each in readings.nulls}
    assert keys == {("adapted", each, place) for each in ("text", "benign") for place in ("instruction", "-1")}
    for each in readings.nulls:
        if each.modality == "text":
            assert np.allclose([*each.low, *each.high, each.lowest, each.highest], 1.0)
        assert each.lowest <= min(each.mean) <= max(each.mean) <= each.highest
        assert 0 < each.random <= 1


def test_directions_of_another_width_or_place_give_no_projections(chat, every):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layer_readings, "MAX_SHOWN", 2)
        for positions, width in ((("instruction",), 16), (("-7",), 32)):
            found = LayerReadings()
            values = torch.ones(1, 3, width, dtype=torch.float64)
            found.take("base", "text", chat, every, OPENINGS, Directions(positions, values, (values, values)))
            assert found.projections == []
            assert len(found.lens) == 3
        found = LayerReadings()
        found.take("base", "text", chat, every, OPENINGS, None)
        assert found.projections == []


def test_a_model_that_does_not_see_is_not_asked_about_pictures(trio, every):
    found = LayerReadings()
    found.take("base", "benign", load(trio.checkpoints["base"]), every, OPENINGS, None)
    assert found == LayerReadings()


def test_only_report_prompts_are_shown_evenly_spaced(every):
    some = shown_prompts(every, "harmful", "text")
    assert len(some) == layer_readings.MAX_SHOWN
    assert {prompt.split for prompt in some} == {"report"}
    assert len({prompt.request for prompt in some}) == len(some)
