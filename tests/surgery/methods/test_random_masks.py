"""What is kept at random is kept as often as asked, and is the same however a tensor is cut."""

import numpy as np
import pytest
from hypothesis import given, strategies as st

from vlsurgery.surgery.methods.random_masks import PROBABILITY_STEPS, keep_mask, key_of, uniform_int16

# Of one binary digit, of several, and of more than are drawn one by one.
CHANCES = [
    PROBABILITY_STEPS // 2,
    PROBABILITY_STEPS // 4,
    3 * PROBABILITY_STEPS // 4,
    5 * PROBABILITY_STEPS // 8,
    3 * PROBABILITY_STEPS // 16,
    15 * PROBABILITY_STEPS // 16,
    6554,
    58982,
    1,
]
KEYS = [key_of(0, "layers.0.mlp.up", "adapted"), key_of(1, "layers.0.mlp.up", "adapted")]


@pytest.mark.parametrize("steps", CHANCES)
def test_each_entry_is_kept_as_often_as_asked(steps: int) -> None:
    """Within five standard errors, at every place of a run of 64, and whatever became of its neighbour."""
    mask, share = keep_mask(KEYS[0], 0, 1 << 20, steps).astype(float), steps / PROBABILITY_STEPS
    spread = np.sqrt(share * (1 - share))
    assert abs(mask.mean() - share) < 5 * spread / np.sqrt(len(mask))
    places = mask.reshape(-1, 64).mean(axis=0)
    assert np.abs(places - share).max() < 5 * spread / np.sqrt(len(mask) / 64) + 64 / len(mask)
    for away in (1, 8, 64):
        together = ((mask[away:] - share) * (mask[:-away] - share)).mean()
        assert abs(together) < 5 * spread**2 / np.sqrt(len(mask)) + 1e-9


@pytest.mark.parametrize("steps", CHANCES)
def test_keys_draw_independently(steps: int) -> None:
    first, second = (keep_mask(key, 0, 1 << 18, steps).astype(float) - steps / PROBABILITY_STEPS for key in KEYS)
    variance = steps / PROBABILITY_STEPS * (1 - steps / PROBABILITY_STEPS)
    assert abs((first * second).mean()) < 5 * variance / np.sqrt(len(first)) + 1e-9


@given(
    start=st.integers(0, 1 << 40), counts=st.lists(st.integers(1, 300), min_size=2, max_size=4),
    steps=st.sampled_from(CHANCES) | st.integers(1, PROBABILITY_STEPS - 1),
)  # fmt: skip
def test_a_range_is_drawn_as_within_the_whole(start: int, counts: list[int], steps: int) -> None:
    runs = [(start + sum(counts[:number]), count) for number, count in enumerate(counts)]
    whole = (start, sum(counts))
    masks, numbers = [keep_mask(KEYS[0], *run, steps) for run in runs], [uniform_int16(KEYS[0], *run) for run in runs]
    np.testing.assert_array_equal(np.concatenate(masks), keep_mask(KEYS[0], *whole, steps))
    np.testing.assert_array_equal(np.concatenate(numbers), uniform_int16(KEYS[0], *whole))
