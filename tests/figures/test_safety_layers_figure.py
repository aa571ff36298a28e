"""Safety layers: the gap with its interval, and a layer in the title only where the base's stays above nothing."""

from types import SimpleNamespace

import pytest

from vlsurgery.figures import safety_layers
from vlsurgery.surgery.errors import SurgeryError


def test_the_gap_is_drawn_with_its_interval(make: SimpleNamespace) -> None:
    band, line = safety_layers.plot(make.probe()).data
    assert tuple(line.y) == (1.0, 8.0, 20.0)
    assert tuple(band.y) == (2.0, 11.0, 25.0, 15.0, 5.0, -1.0)


def test_the_title_names_the_layer_from_which_the_bases_gap_stays_open(make: SimpleNamespace) -> None:
    probe = make.probe()
    assert "from layer 1 on" in safety_layers.plot(probe).layout.title.text

    def changed(**fields: object) -> int | None:
        found = [each.model_copy(update=fields) for each in probe.safety_layers]
        return safety_layers.compute(probe.model_copy(update={"safety_layers": found})).opening

    assert changed(low=[-1.0, 5.0, -0.1]) is None
    assert changed(low=[0.1, 5.0, 1.0]) == 0
    assert changed(requests=29) is None
    assert changed(role="adapted") is None


def test_roles_are_chosen_and_rows_hold_what_is_drawn(make: SimpleNamespace) -> None:
    found = safety_layers.rows(safety_layers.compute(make.probe(), roles=["base"], modalities=["text"]))
    assert [(row["layer"], row["gap in degrees"], row["low"]) for row in found] == [
        (0, 1.0, -1.0),
        (1, 8.0, 5.0),
        (2, 20.0, 15.0),
    ]
    with pytest.raises(SurgeryError, match="holds no 'graft'"):
        safety_layers.compute(make.probe(), roles=["graft"])
