"""C3 finds a loss where it was planted, among decoys that changed as much, and none where there is none."""

from types import SimpleNamespace

import numpy as np
import pytest

from vlsurgery.probes.claims.layers import DECOYS, concentration, loss_sits_in_some_layers, top_count
from vlsurgery.surgery.results import DiffResult


def spread_out(rng: np.random.Generator) -> np.ndarray:
    """A loss that every layer carries alike."""
    return 1.0 + rng.normal(0, 0.3, (8, 60))


def test_planted_layers_are_found_and_beat_their_decoys(make: SimpleNamespace) -> None:
    found = concentration(make.layers(make.planted), make.diff())
    assert found.top == (2, 5)
    assert found.share.verdict == found.decoys.verdict == "holds"
    assert found.share.value > 0.85
    assert found.decoys.value > 0.8


def test_a_loss_in_every_layer_is_none_in_some(make: SimpleNamespace) -> None:
    gains = spread_out(np.random.default_rng(1))
    found = concentration(make.layers(gains), make.diff())
    assert found.share.verdict == "does not hold"
    assert found.share.value == pytest.approx(0.25, abs=0.05)
    assert abs(found.decoys.value) < 0.1


def test_picking_the_largest_of_noise_gives_no_advantage(make: SimpleNamespace) -> None:
    """The share is that of chance, not of the largest layers on the very requests that they were picked by."""
    shares = [
        concentration(make.layers(np.random.default_rng(at).normal(0, 1, (8, 60))), make.diff()).share.value
        for at in range(6)
    ]
    assert np.mean(shares) == pytest.approx(0.25, abs=0.12)


def test_without_decoys_change_and_gain_can_t_be_told_apart(make: SimpleNamespace) -> None:
    changed = make.diff(changes={2: 1.0, 5: 1.0})
    found = concentration(make.layers(make.planted), changed)
    assert found.share.verdict == "holds"
    assert (found.decoys.verdict, found.decoys.reason) == (
        "can't tell",
        "no other layer changed as much as the top layers did",
    )


def test_few_requests_decide_nothing(make: SimpleNamespace) -> None:
    found = concentration(make.layers(make.planted[:, :20]), make.diff())
    assert found.share.verdict == found.decoys.verdict == "can't tell"


def test_prompts_of_one_request_count_once(make: SimpleNamespace) -> None:
    once = make.layers(make.planted)
    twice = once.model_copy(
        update={
            "prompts": once.prompts * 2,
            "requests": once.requests * 2,
            "records": [row.model_copy(update={"gains": row.gains * 2}) for row in once.records],
        }
    )
    one, two = (concentration(each, make.diff()).share for each in (once, twice))
    assert (one.value, one.low, one.high, one.requests) == (two.value, two.low, two.high, two.requests)
    assert two.prompts == 120


def test_the_same_results_give_the_same_numbers(make: SimpleNamespace) -> None:
    assert concentration(make.layers(make.planted), make.diff()) == concentration(
        make.layers(make.planted), make.diff()
    )


@pytest.mark.parametrize(("layers", "top"), [(1, 1), (4, 1), (5, 2), (8, 2), (30, 8)])
def test_the_top_quarter(layers: int, top: int) -> None:
    assert top_count(layers) == top


def test_missing_changes_are_named(make: SimpleNamespace) -> None:
    shallow: DiffResult = make.diff(layers=3)
    found = concentration(make.layers(make.planted), shallow)
    assert found.decoys.name == DECOYS
    assert "was not measured" in found.decoys.reason


def test_top_layers_of_every_seed_are_told(make: SimpleNamespace) -> None:
    other = np.roll(make.planted, 1, axis=0)
    claim = loss_sits_in_some_layers([make.case("seed 0"), make.case("seed 1", layers=make.layers(other))])
    assert claim.verdict == "holds"
    assert "seed 0: 2, 5; seed 1: 3, 6" in claim.said
