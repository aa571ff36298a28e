"""Vectors too short or too even to compare are paired within their module or refused, never reported as unmatched."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor

from vlsurgery.surgery.alignment import Alignment, align
from vlsurgery.surgery.alignment.module_matching import modules
from vlsurgery.surgery.alignment.similarity import MIN_ENTRIES, Similarity
from vlsurgery.surgery.architecture.identify import identify
from vlsurgery.surgery.architecture.layouts import TensorView
from vlsurgery.surgery.architecture.naming import count_from_one
from vlsurgery.surgery.architecture.site import Site
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.errors import AlignmentError

Write = Callable[..., Path]
Llama = Callable[..., dict[str, Tensor]]
Tensors = dict[str, Tensor]

# Every word of the tower, and the one that takes its place.
WORDS = {
    "tower": "aaa", "blocks": "bbb", "conv": "ccc", "first": "ddd", "second": "eee", "mean": "fff", "gamma": "ggg",
}  # fmt: skip


def tower(length: int) -> Tensors:
    """Two blocks, each with a matrix and six short vectors that differ in nothing but their entries."""
    generator = torch.Generator().manual_seed(length)
    vectors = [f"{norm}.{leaf}" for norm in ("first", "second") for leaf in ("weight", "bias", "mean")]
    shapes = {"conv.weight": (length, 16), **dict.fromkeys(vectors, (length,))}
    return {
        f"tower.blocks.{block}.{name}": torch.randn(shape, generator=generator)
        for block in range(2)
        for name, shape in shapes.items()
    }


def rename(name: str) -> str:
    return ".".join(WORDS.get(word, word) for word in name.split("."))


def aligned(folder: Path, write: Write, safety: Tensors, adapted: Tensors) -> Alignment:
    paths = {"adapted": write(folder / "adapted", adapted), "safety": write(folder / "safety", safety)}
    return align({role: Checkpoint.open(path) for role, path in paths.items()})


def renamed(tensors: Tensors, nudge: float = 1e-3) -> Tensors:
    generator = torch.Generator().manual_seed(5)
    return {rename(n): t + nudge * torch.randn(t.shape, generator=generator) for n, t in tensors.items()}


def names(alignment: Alignment) -> set[tuple[str, str]]:
    pairs = [pair for pair in alignment.pairs if pair.site.tower != "text"]
    return {(pair.parts["safety"].name, pair.parts["adapted"].name) for pair in pairs}


@pytest.mark.parametrize("length", [4, 5, 8, 11])
def test_short_vectors_find_the_partner_in_their_module(
    tmp_path: Path, write: Write, llama: Llama, length: int
) -> None:
    held = tower(length)
    alignment = aligned(tmp_path, write, llama() | held, llama() | renamed(held))
    assert names(alignment) == {(name, rename(name)) for name in held}
    assert not alignment.unmatched


@pytest.mark.parametrize("fill", [torch.ones, torch.zeros])
def test_constant_vectors_that_nothing_tells_apart_are_refused(
    tmp_path: Path, write: Write, llama: Llama, fill: Callable[..., Tensor]
) -> None:
    held = {name: t if t.ndim > 1 else fill(t.shape) for name, t in tower(8).items()}
    with pytest.raises(AlignmentError, match=r"aaa\.blocks|aaa\.bbb.*tower\.blocks.*neither names nor values"):
        aligned(tmp_path, write, llama() | held, llama() | renamed(held, nudge=0))


@pytest.mark.parametrize("value", [1.0, 0.1])
def test_the_only_constant_vector_of_a_module_is_paired(
    tmp_path: Path, write: Write, llama: Llama, value: float
) -> None:
    """Two towers have one each, so that it is the module that tells."""
    held = {
        f"{stem}.{name}": tensor
        for seed, stem in enumerate(("tower", "second"))
        for name, tensor in (
            ("conv.weight", torch.randn(16, 16, generator=torch.Generator().manual_seed(seed))),
            ("gamma", torch.full((16,), value)),
        )
    }
    alignment = aligned(tmp_path, write, llama() | held, llama() | renamed(held, nudge=0))
    assert names(alignment) == {(name, rename(name)) for name in held}


def test_an_unrelated_short_vector_in_the_same_place_has_no_partner(tmp_path: Path, write: Write, llama: Llama) -> None:
    held = {"tower.conv.weight": torch.randn(16, 16), "tower.gamma": torch.tensor([1.0, 2, 3, 4, 5])}
    other = renamed(held) | {"aaa.ggg": torch.tensor([9.0, -4, 8, 0, 2])}
    alignment = aligned(tmp_path, write, llama() | held, llama() | other)
    assert names(alignment) == {("tower.conv.weight", "aaa.ccc.weight")}
    assert {tensor.name for tensor in alignment.unmatched} == {"tower.gamma", "aaa.ggg"}


def test_matrices_of_a_module_in_an_unknown_layout_are_refused(tmp_path: Path, write: Write, llama: Llama) -> None:
    held = {f"tower.{name}.weight": torch.randn(16, 16) for name in ("conv", "first", "second")}
    fused = renamed({"tower.conv.weight": held["tower.conv.weight"]})
    mixed = torch.stack([held["tower.first.weight"], held["tower.second.weight"]], 1).reshape(4, 8, 16)
    with pytest.raises(AlignmentError, match=r"one weight in two forms"):
        aligned(tmp_path, write, llama() | held, llama() | fused | {"aaa.zzz": mixed})


def test_integers_under_unknown_names_are_reported_as_what_they_are(tmp_path: Path, write: Write, llama: Llama) -> None:
    held = tower(8) | {
        f"tower.blocks.{block}.{n}.count": torch.tensor(7) for block in (0, 1) for n in ("first", "conv")
    }
    moved = {rename(name): tensor for name, tensor in held.items()} | {}
    moved = {name.replace("count", "kkk"): tensor for name, tensor in moved.items()}
    alignment = aligned(tmp_path, write, llama() | held, llama() | moved)
    assert len(alignment.unmatched) == 8
    assert all("int64 values are not weights" in tensor.reason for tensor in alignment.unmatched)


@given(
    st.sets(st.lists(st.sampled_from("abcd"), min_size=2, max_size=4).map(tuple), min_size=1, max_size=8),
    st.permutations("wxyz"),
)
def test_modules_renamed_word_by_word_are_found(paths: set[tuple[str, ...]], words: list[str]) -> None:
    table = dict(zip("abcd", words, strict=True))
    pairs = [(".".join(path), ".".join(table[word] for word in path)) for path in paths]
    found = modules(pairs)
    prefixes = {path[:depth] for path in paths for depth in range(1, len(path))}
    assert found == {".".join(prefix): ".".join(table[word] for word in prefix) for prefix in prefixes}


def test_a_module_whose_tensors_went_to_two_has_no_partner() -> None:
    assert modules([("m.a.w", "n.x.w"), ("m.a.v", "n.y.w"), ("m.b.w", "n.z.w")]) == {"m": "n", "m.b": "n.z"}


def similarity(first: Tensor, second: Tensor) -> Similarity:
    tensors, site = {"a": first, "b": second}, Site("other", None, "x")
    return Similarity(
        "a",
        "b",
        {role: {site: TensorView("x")} for role in tensors},
        {role: {"x": tuple(tensor.shape)} for role, tensor in tensors.items()},
        lambda role, _, count: tensors[role].reshape(-1)[:count],
    )


ENTRIES = st.lists(st.integers(-1000, 1000), min_size=4, max_size=MIN_ENTRIES - 1, unique=True)


@given(ENTRIES, st.floats(0.01, 100))
def test_the_distance_of_short_vectors(entries: list[int], scale: float) -> None:
    """0 to itself, the same both ways and in any unit, and nothing where an entry comes back."""
    site = Site("other", None, "x")
    vector = torch.tensor(entries, dtype=torch.float64)
    other = vector.flip(0)
    assert similarity(vector, vector).distance(site, site) == 0
    there, back = (similarity(*pair).distance(site, site) for pair in ((vector, other), (other, vector)))
    assert there == back
    assert similarity(scale * vector, scale * other).distance(site, site) == pytest.approx(there, rel=1e-9)
    assert similarity(vector, torch.cat([vector[:-1], vector[:1]])).distance(site, site) is None


@given(ENTRIES)
def test_short_vectors_are_unrelated_only_where_the_difference_is_large_against_their_norm(entries: list[int]) -> None:
    """Around a large mean, two permutations of one vector are never unrelated."""
    site = Site("other", None, "x")
    vector = torch.tensor(entries, dtype=torch.float64)
    assert similarity(vector, vector.flip(0) + 1e5).is_unrelated(site, site)
    assert not similarity(vector + 1e5, vector.flip(0) + 1e5).is_unrelated(site, site)
    assert not similarity(vector, vector).is_unrelated(site, site)


@given(st.floats(-1e3, 1e3), st.integers(1, 50))
def test_constant_vectors_have_no_cosine_in_spite_of_rounding(value: float, length: int) -> None:
    even, site = torch.full((length,), value, dtype=torch.float64), Site("other", None, "x")
    assert similarity(even, even).cosine([site], [site]) is None
    assert similarity(even, torch.arange(float(length))).cosine([site], [site]) is None


def test_norms_counted_from_0_and_from_1_meet(tmp_path: Path, write: Write, llama: Llama) -> None:
    """Fresh ones, whose values tell nothing: "norm1" is the second norm of one layout and the first of the other."""
    zero, one = (
        {f"vision_tower.blocks.{layer}.norm{n + start}.weight": torch.ones(16) for layer in (0, 1) for n in (0, 1)}
        | {
            f"vision_tower.blocks.{layer}.mlp.fc{n + start}.weight": torch.randn(
                16, 16, generator=torch.Generator().manual_seed(10 * layer + n)
            )
            for layer in (0, 1)
            for n in (0, 1)
        }
        for start in (0, 1)
    )
    alignment = aligned(tmp_path, write, llama() | one, llama() | zero)
    counted = dict(zip(sorted(one), sorted(zero), strict=True))
    assert names(alignment) == set(counted.items())


def test_what_counts_from_1_stays_as_it_is() -> None:
    one = ["norm1.weight", "norm2.bias", "mlp.fc1.weight", "mlp.fc2.weight", "prefc1.weight", "norm.weight"]
    assert count_from_one(one) == {name: name for name in one}
    assert count_from_one(["norm0.weight", "mlp.fc0.bias", "mlp.fc1.bias", "other.fc1.bias"]) == {
        "norm0.weight": "norm1.weight",
        "mlp.fc0.bias": "mlp.fc1.bias",
        "mlp.fc1.bias": "mlp.fc2.bias",
        "other.fc1.bias": "other.fc1.bias",
    }


@pytest.mark.parametrize("tied", [True, False])
def test_a_large_table_is_no_stale_head_by_its_place_alone(llama: Llama, tied: bool) -> None:
    """A model that ties its head has no other one, so that a nameless table beside its stack is something else."""
    shapes = {name: tuple(tensor.shape) for name, tensor in llama().items() if name != "lm_head.weight"}
    config = {"num_hidden_layers": 2, "hidden_size": 16, "vocab_size": 40, "tie_word_embeddings": tied}
    site = identify({**shapes, "abc.xyz": (64, 16)}, config)["abc.xyz"]
    assert (site.component == "head") != tied


def test_a_stack_inside_a_numbered_module_is_found(llama: Llama) -> None:
    shapes = {f"parts.0.{name}": tuple(tensor.shape) for name, tensor in llama().items()}
    sites = identify(shapes, {"num_hidden_layers": 2, "hidden_size": 16})
    assert {site.layer for site in sites.values()} == {None, 0, 1}
