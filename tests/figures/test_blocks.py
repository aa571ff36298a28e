"""The axis of blocks keeps the order of the model."""

import itertools

from hypothesis import given, strategies as st

from vlsurgery.figures.blocks import block_axis, split

OUTSIDE = ["vision", "projector", "embed", "norm", "head"]


@given(
    st.integers(1, 80),
    st.sets(st.sampled_from(OUTSIDE)),
    st.sampled_from([("attn", "mlp"), ("attn", "mlp", "other")]),
    st.randoms(),
)
def test_order_and_uniqueness(layers: int, outside: set[str], parts: tuple[str, ...], random: st.DrawFn) -> None:
    blocks = [f"{layer}.{part}" for layer in range(layers) for part in parts] + sorted(outside)
    random.shuffle(blocks)
    axis = block_axis(blocks)
    assert set(axis.places) == set(blocks)
    ordered = [place.block for place in sorted(axis.places.values(), key=lambda place: place.x)]
    inner = [f"{layer}.{part}" for layer in range(layers) for part in parts]
    assert ordered == [b for b in OUTSIDE[:3] if b in outside] + inner + [b for b in OUTSIDE[3:] if b in outside]
    assert len({place.x for place in axis.places.values()}) == len(blocks)
    assert len(axis.ticks) <= 40
    places = sorted(place.x for place in axis.places.values() if place.layer is not None)
    assert all(right - left > axis.bar_width for left, right in itertools.pairwise(places)), "bars overlap"


def test_split() -> None:
    assert split("12.attn") == (12, "attention")
    assert split("3.mlp") == (3, "MLP")
    assert split("head") == (None, "other")
    assert split("3.linear_attn") == (3, "other")


def test_no_blocks_is_an_axis_too() -> None:
    assert block_axis([]).places == {}
