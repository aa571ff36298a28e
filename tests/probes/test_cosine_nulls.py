"""Nulls of cosines: what is shared whatever the labels say is shared under the null too."""

import numpy as np
import pytest
import torch

from vlsurgery.probes.contrasts import Directions
from vlsurgery.probes.cosine_nulls import LabelledStates, random_bound, shuffled_cosines
from vlsurgery.probes.direction_cosines import all_cosines, direction_cosines

HARMFUL = torch.tensor([True] * 10 + [False] * 10)
TWINS = tuple(f"r{at}" for at in range(10)) * 2
ALONE = tuple(f"r{at}" for at in range(20))


def states(values: torch.Tensor, requests: tuple[str, ...] = TWINS) -> LabelledStates:
    return LabelledStates(values, HARMFUL, requests)


def noise(seed: int) -> torch.Tensor:
    return torch.randn(20, 2, 64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("requests", [TWINS, ALONE])
def test_a_model_and_itself_turn_together_whatever_the_labels(requests):
    same = shuffled_cosines(states(noise(0), requests), states(noise(0), requests))
    assert same.numpy() == pytest.approx(np.ones_like(same), abs=1e-9)


def test_models_with_nothing_in_common_have_cosines_about_zero():
    found = shuffled_cosines(states(noise(0)), states(noise(1)))
    assert abs(float(found.mean())) < 0.05
    assert 0.06 < float(found.std()) < 0.19  # 1/8 for directions drawn afresh; these are of the same few prompts


def test_the_null_stays_high_where_only_the_labelled_part_turned():
    """Both hold the same prompts alike, but class lies along another axis in the second."""
    shared, axis = noise(2), torch.eye(64)
    sign = torch.where(HARMFUL, 1.0, -1.0)[:, None, None]
    first, second = shared + 5 * sign * axis[0], shared + 5 * sign * axis[1]
    actual = torch.nn.functional.cosine_similarity(
        first[:10].mean(0) - first[10:].mean(0), second[:10].mean(0) - second[10:].mean(0), dim=-1
    )
    null = shuffled_cosines(states(first), states(second))
    assert float(actual.max()) < 0.2
    assert float(null.mean()) > float(actual.max()) + 0.1


def test_order_of_prompts_does_not_matter():
    order = torch.randperm(20, generator=torch.Generator().manual_seed(3))
    first, second = noise(4), noise(5)
    moved = LabelledStates(second[order], HARMFUL[order], tuple(TWINS[at] for at in order))
    plain = shuffled_cosines(states(first), states(second))
    assert torch.allclose(plain, shuffled_cosines(states(first), moved), atol=1e-9)


def test_the_bound_of_random_directions_holds_them_as_often_as_it_says():
    drawn = torch.nn.functional.normalize(
        torch.randn(4000, 12, 100, generator=torch.Generator().manual_seed(0)), dim=-1
    )
    greatest = drawn[..., 0].abs().amax(1)
    assert float((greatest <= random_bound(100, 12)).double().mean()) == pytest.approx(0.95, abs=0.012)


def test_cosines_of_directions_by_hand():
    first, second = torch.tensor([[3.0, 0.0], [0.0, 2.0]]), torch.tensor([[0.0, 5.0], [-1.0, 0.0]])
    found = direction_cosines("-1", {"base/text": first, "adapted/text": second})
    assert found.keys == ["base/text", "adapted/text"]
    assert found.between == [[[1.0, 0.0], [0.0, 1.0]]] * 2
    assert found.across["adapted/text"] == [[0.0, -1.0], [1.0, 0.0]]
    assert found.across["base/text"] == [[1.0, 0.0], [0.0, 1.0]]


def test_positions_and_shapes_that_the_base_lacks_are_left_out():
    def made(positions: tuple[str, ...], layers: int) -> Directions:
        values = torch.ones(len(positions), layers, 2)
        return Directions(positions, values, (values, values))

    found = all_cosines(
        {
            ("base", "text"): made(("instruction", "-2", "-1"), 3),
            ("adapted", "text"): made(("-1", "-2"), 3),
            ("safety", "text"): made(("instruction",), 4),
        }
    )
    assert [(table.position, table.keys) for table in found] == [
        ("instruction", ["base/text"]),
        ("-1", ["base/text", "adapted/text"]),
    ]
    assert all_cosines({("adapted", "text"): made(("-1",), 3)}) == []


def test_deep_models_keep_some_tens_of_layers_the_last_among_them():
    found = direction_cosines("-1", {"base/text": torch.ones(81, 2)})
    assert found.layers[-1] == 80
    assert len(found.layers) == len(found.between) == len(found.across["base/text"]) == 27
