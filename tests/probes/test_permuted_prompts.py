"""The null by permuted prompts: exchangeable labels find nothing, a block that acts on lost requests is found."""

import numpy as np
import pytest

from vlsurgery.probes.permuted_prompts import permutation_null

BLOCKS = [f"{layer}.{part}" for layer in range(8) for part in ("attn", "mlp")]


def gains(generator, count, shift=0.0, at=3):
    """Correlated gains of blocks whose sizes differ a hundredfold."""
    shared = generator.normal(size=(count, 1))
    values = (shared + generator.normal(size=(count, len(BLOCKS)))) * np.geomspace(0.01, 1, len(BLOCKS))
    values[:, at] += shift * 0.02
    return values


def null(lost, controls, per_request=1):
    names = [[f"{side}{at // per_request}" for at in range(len(rows))] for side, rows in (("a", lost), ("b", controls))]
    return permutation_null(BLOCKS, lost, names[0], controls, names[1])


def test_exchangeable_labels_find_something_as_often_as_the_level_says(monkeypatch):
    monkeypatch.setattr("vlsurgery.probes.permuted_prompts.DRAWS", 99)
    generator = np.random.default_rng(1)
    found = sum(bool(null(gains(generator, 24), gains(generator, 16)).found) for _ in range(300))
    assert 5 <= found <= 26  # of 300 at .05: binomial, within three standard deviations


def test_a_block_that_brings_lost_refusals_back_is_found_and_it_alone():
    generator = np.random.default_rng(0)
    made = null(gains(generator, 24, shift=3), gains(generator, 16))
    assert made.found == [BLOCKS[3]]
    row = made.blocks[3]
    assert row.t > made.threshold
    assert row.p == pytest.approx(1 / 2001, abs=2e-3)


def test_it_is_one_sided():
    generator = np.random.default_rng(0)
    assert null(gains(generator, 24, shift=-6), gains(generator, 16)).found == []


def test_the_unit_is_the_request_and_not_the_prompt():
    generator = np.random.default_rng(2)
    lost, controls = gains(generator, 10, shift=1.2), gains(generator, 10)
    once = null(lost, controls)
    fourfold = null(np.repeat(lost, 4, axis=0), np.repeat(controls, 4, axis=0), per_request=4)
    assert [row.t for row in fourfold.blocks] == pytest.approx([row.t for row in once.blocks])
    assert [row.p for row in fourfold.blocks] == [row.p for row in once.blocks]


def test_a_block_that_never_moves_is_not_found():
    lost, controls = np.zeros((8, len(BLOCKS))), np.zeros((8, len(BLOCKS)))
    made = null(lost, controls)
    assert made.found == []
    assert {row.t for row in made.blocks} == {0.0}
    assert {row.p for row in made.blocks} == {1.0}


def test_from_too_few_requests_there_is_a_reason_and_no_block():
    generator = np.random.default_rng(0)
    made = null(gains(generator, 24), gains(generator, 3))
    assert made.blocks == []
    assert made.threshold is None
    assert "3 to go on answering" in made.reason
