"""Sizes as people write them."""

import pytest
from hypothesis import given, strategies as st

from vlsurgery.surgery.errors import SurgeryError
from vlsurgery.surgery.runtime.byte_counts import UNITS, parse_bytes


@given(st.integers(1, 10**6), st.sampled_from(sorted(UNITS)), st.booleans(), st.sampled_from(["", " "]))
def test_a_number_times_its_unit(number: int, unit: str, upper: bool, gap: str) -> None:
    assert parse_bytes(f"{number}{gap}{unit.upper() if upper else unit}") == number * UNITS[unit]


def test_the_sizes_that_people_write() -> None:
    assert parse_bytes("20GiB") == 20 * 2**30
    assert parse_bytes("1.5 gb") == 1_500_000_000


@pytest.mark.parametrize("text", ["", "GiB", "0", "0 MB", "-1GB", "1e3", "1 GiBs", "1,5GB", "inf", "nan", "٣GB"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(SurgeryError, match="is no size"):
        parse_bytes(text)
