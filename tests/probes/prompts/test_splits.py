"""The split of a request depends on the request and the seed alone, and keeps the shares."""

from collections import Counter

import pytest
from hypothesis import given, strategies as st

from vlsurgery.probes.prompts.splits import SHARES, seeded_unit, split_of


@given(st.text(), st.integers())
def test_a_request_has_one_place(request, seed):
    assert 0 <= seeded_unit(request, seed) < 1
    assert seeded_unit(request, seed) == seeded_unit(request, seed)
    assert split_of(request, seed) in SHARES


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_shares_of_the_split(seed):
    counts = Counter(split_of(f"request {number}", seed) for number in range(10_000))
    for split, share in SHARES.items():
        # Five standard deviations of a binomial share.
        assert counts[split] / 10_000 == pytest.approx(share, abs=5 * (share * (1 - share) / 10_000) ** 0.5)


def test_seeds_split_independently():
    same = sum(split_of(f"{number}", 0) == split_of(f"{number}", 1) for number in range(10_000)) / 10_000
    assert same == pytest.approx(sum(share**2 for share in SHARES.values()), abs=0.03)
