"""The k largest entries are those of a stable sort, whatever the sample, the intervals and the chunks."""

import numpy as np
import pytest
from hypothesis import given, strategies as st

from vlsurgery.surgery.methods import magnitude_threshold
from vlsurgery.surgery.methods.magnitude_threshold import Band, Extremes, find_thresholds, keep_band
from vlsurgery.surgery.methods.method import InMemoryStream

# Few values, so that many are equal, or any float32.
VALUES = st.one_of(
    st.lists(st.sampled_from([0.0, -1.0, 1.0, 1.5, -2.0, 1e-30]), min_size=1, max_size=60),
    st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=60),
)


@given(
    values=VALUES,
    data=st.data(),
    bins=st.sampled_from([2, 8, 1 << 20]),
    run=st.integers(1, 4),
    chunk=st.integers(1, 70),
)
def test_the_largest_and_the_smallest(
    values: list[float], data: st.DataObject, bins: int, run: int, chunk: int
) -> None:
    size = data.draw(st.integers(1, len(values)))
    delta = np.array(values, np.float32)
    stream = InMemoryStream(
        ("x", "y"), delta.shape, [delta, -delta, np.zeros_like(delta)], 0, "", chunk, whole_rows=False
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(magnitude_threshold, "MAX_BINS", bins)
        patch.setattr(magnitude_threshold, "SAMPLE_RUNS", 2)
        patch.setattr(magnitude_threshold, "SAMPLE_RUN_SIZE", run)
        wanted = {"x": Extremes("x", size, largest=True), "y": Extremes("y", size, largest=False)}
        upper, lower = find_thresholds(stream, wanted).values()
    falling, rising = (np.argsort(side * np.abs(delta), kind="stable") for side in (-1, 1))
    np.testing.assert_array_equal(kept(stream, "x", (upper, None), first=True), only(delta, falling[:size]))
    np.testing.assert_array_equal(kept(stream, "x", (lower, None)), only(delta, rising[size:]))
    np.testing.assert_array_equal(kept(stream, "x", (None, lower)), only(delta, rising[:size]))


def kept(stream: InMemoryStream, name: str, band: Band, first: bool = False) -> np.ndarray:
    """A model's delta between the thresholds, chunk by chunk."""
    chunks = list(stream.chunks())
    for chunk in chunks:
        keep_band(chunk, name, band, first)
    return np.concatenate([chunk.buffer(name) for chunk in chunks])


def only(delta: np.ndarray, places: np.ndarray) -> np.ndarray:
    """The entries at these places, and 0 elsewhere."""
    left = np.zeros_like(delta)
    left[places] = delta[places]
    return left


def test_a_misleading_sample_costs_passes_but_no_exactness() -> None:
    """The sampled runs hold only small entries, so the entry lies outside the interval that they suggest."""
    delta = np.linspace(1, 2, 1 << 18, dtype=np.float32)
    for start in np.linspace(0, (1 << 18) - 1024, 64).astype(int):
        delta[start : start + 1024] = 1e-6
    stream = InMemoryStream(("x",), delta.shape, [delta, np.zeros_like(delta)], 0, "", 1 << 12, whole_rows=False)
    found = find_thresholds(stream, {"x": Extremes("x", 1000, largest=True)})["x"]
    assert np.count_nonzero(kept(stream, "x", (found, None), first=True)) == 1000
    assert found.bits == np.sort(delta)[-1000].view(np.int32)
