"""The axis of blocks keeps the order of the model."""

import itertools

import pytest
from hypothesis import given, strategies as st
from plotly.subplots import make_subplots

from vlsurgery.figures import theme
from vlsurgery.figures.blocks import block_axis, link_layers, split, wanted_blocks
from vlsurgery.surgery.errors import SurgeryError

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


def test_blocks_are_those_of_the_layers_and_the_largest_of_them() -> None:
    sizes = {"embed": 9.0, "0.attn": 1.0, "0.mlp": 3.0, "1.attn": 2.0}
    assert wanted_blocks(sizes, None, None) == [*sizes]
    assert wanted_blocks(sizes, [0], None) == ["0.attn", "0.mlp"]
    assert wanted_blocks(sizes, None, 2) == ["embed", "0.mlp"]
    assert wanted_blocks(sizes, [0, 1], 2) == ["0.mlp", "1.attn"]
    with pytest.raises(SurgeryError, match=r"layers: this result holds no 5\. Choose from: 0, 1"):
        wanted_blocks(sizes, [5], None)


def test_an_axis_of_blocks_is_linked_panel_by_panel() -> None:
    figure = make_subplots(rows=1, cols=2)
    axis = block_axis(["0.attn", "0.mlp", "head"])
    axis.show(figure, row=1, col=2)
    theme.frame(figure, "t", "s", 100)  # which keeps what is known already
    link_layers(figure, "x")
    assert list(figure.layout.meta["layers"]) == [
        {"axis": "x2", "places": {block: place.x for block, place in axis.places.items()}},
        {"axis": "x", "places": {}},
    ]
    assert figure.layout.meta["room"]["top"] > 0


def test_of_eighty_layers_no_two_labels_collide() -> None:
    """At the narrowest width of a figure, 860 px with its margins, and 7 px a digit."""
    axis = block_axis(
        [f"{layer}.{part}" for layer in range(80) for part in ("attn", "mlp")] + ["embed", "norm", "head"]
    )
    xs = [x for x, _ in axis.ticks]
    pixels = (860 - 88) / (max(xs) - min(xs) + 1.6)
    for (x, label), (after, following) in itertools.pairwise(axis.ticks):
        assert (after - x) * pixels > 3.5 * (len(label) + len(following)) + 2, (label, following)
