"""The k largest entries are those that a stable sort puts there, whatever the sample, the spans and the blocks."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from surgery.methods import ranks
from surgery.methods.method import Held
from surgery.methods.ranks import Wanted, above, cut

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
    block=st.integers(1, 70),
)
def test_the_largest_and_the_smallest(
    values: list[float], data: st.DataObject, bins: int, run: int, block: int
) -> None:
    size = data.draw(st.integers(1, len(values)))
    delta = torch.tensor(values)
    stream = Held(("x", "y"), [delta, -delta, torch.zeros(len(values))], 0, "", block, rows=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranks, "_BINS", bins)
        patch.setattr(ranks, "_PLACES", 2)
        patch.setattr(ranks, "_RUN", run)
        upper, lower = cut(stream, [Wanted("x", size, largest=True), Wanted("y", size, largest=False)])
    magnitudes = np.abs(np.array(values, dtype=np.float32))
    wanted = np.zeros(len(values), dtype=bool)
    wanted[np.argsort(-magnitudes, kind="stable")[:size]] = True
    expected = torch.where(torch.from_numpy(wanted), delta, torch.zeros(()))
    assert torch.equal(above(delta, 0, upper, first=True), expected)
    wanted[:] = True
    wanted[np.argsort(magnitudes, kind="stable")[:size]] = False
    expected = torch.where(torch.from_numpy(wanted), delta, torch.zeros(()))
    assert torch.equal(above(delta, 0, lower, first=False), expected)


def test_a_sample_that_misleads_costs_passes_and_no_entry() -> None:
    """Sampled runs hold small entries alone, so the entry looked for lies outside of every span that they suggest."""
    delta = torch.linspace(1, 2, 1 << 18)
    for start in np.linspace(0, (1 << 18) - 1024, 64).astype(int):
        delta[start : start + 1024] = 1e-6
    stream = Held(("x",), [delta, torch.zeros(1 << 18)], 0, "", 1 << 12, rows=False)
    (found,) = cut(stream, [Wanted("x", 1000, largest=True)])
    assert int((above(delta, 0, found, first=True) != 0).sum()) == 1000
    assert found.threshold == float(delta.sort().values[-1000])
