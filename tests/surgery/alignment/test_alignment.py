"""Tensors find their partners by site; what has none is listed with its reason; nothing is paired by force."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor

from vlsurgery.surgery.alignment import Alignment, align
from vlsurgery.surgery.architecture.site import Site
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.errors import AlignmentError, CheckpointError

if TYPE_CHECKING:
    from conftest import Trio

Write = Callable[..., Path]
Llama = Callable[..., dict[str, Tensor]]
CONFIG = {"num_hidden_layers": 2, "hidden_size": 16, "vocab_size": 40, "tie_word_embeddings": False}


def aligned(**paths: Path) -> Alignment:
    alignment = align({role: Checkpoint.open(path) for role, path in paths.items()})
    everything_once(alignment)
    return alignment


def everything_once(alignment: Alignment) -> None:
    """Each tensor of each role is in a pair, or is listed as unmatched with a reason, and not both."""
    paired = {(role, part.name) for pair in alignment.pairs for role, part in pair.parts.items()}
    unmatched = [(tensor.role, tensor.name) for tensor in alignment.unmatched]
    assert len(unmatched) == len(set(unmatched))
    assert not paired & set(unmatched)
    assert paired | set(unmatched) == {(role, n) for role, names in alignment.checkpoints.items() for n in names}
    assert all(tensor.reason for tensor in alignment.unmatched)


def test_planted_deltas_come_back_in_every_layout(trio: "Trio") -> None:
    """Each text tensor was given a delta of its own size, so a wrong pair can't hide."""
    bases = (trio.base, trio.base_sharded)
    llavas = (trio.adapted, trio.adapted_native, trio.adapted_sharded)
    native = sorted(trio.deltas)
    for base, adapted in itertools.product(bases, llavas):
        alignment = aligned(base=base, adapted=adapted)
        assert len(alignment.pairs) == len(trio.deltas)
        expected = {name: trio.deltas[name] for name in native}
        for pair in alignment.pairs:
            delta = alignment.load(pair, "adapted") - alignment.load(pair, "base")
            name = next(
                n for n, d in expected.items() if d.shape == delta.shape and torch.allclose(d, delta, atol=1e-6)
            )
            del expected[name]
            tail = pair.parts["base"].name.removeprefix("model.")
            assert name.removeprefix("model.language_model.") == tail
        assert not expected


def test_three_roles_pair_text_everywhere_and_vision_where_it_is(trio: "Trio") -> None:
    alignment = aligned(base=trio.base, adapted=trio.adapted, safety=trio.safety_native)
    roles = {pair.site.tower: set(pair.parts) for pair in alignment.pairs}
    assert roles == {
        "text": {"base", "adapted", "safety"},
        "vision": {"adapted", "safety"},
        "projector": {"adapted", "safety"},
    }
    assert not alignment.unmatched
    assert [pair.site for pair in alignment.pairs] == sorted(pair.site for pair in alignment.pairs)


def test_what_the_base_lacks_is_unmatched_with_the_reason(trio: "Trio") -> None:
    alignment = aligned(base=trio.base, adapted=trio.adapted)
    reasons = {tensor.reason for tensor in alignment.unmatched}
    assert reasons == {"base has no vision tower", "base has no projector"}
    assert {tensor.role for tensor in alignment.unmatched} == {"adapted"}


def test_a_single_missing_tensor_is_named(tmp_path: Path, write: Write, llama: Llama) -> None:
    less = llama()
    del less["model.layers.1.mlp.up_proj.weight"]
    alignment = aligned(base=write(tmp_path / "base", less), adapted=write(tmp_path / "adapted", llama()))
    (lost,) = alignment.unmatched
    assert (lost.role, lost.name) == ("adapted", "model.layers.1.mlp.up_proj.weight")
    assert lost.reason == "base has no text.1.mlp.up"


@pytest.mark.parametrize("rows", [(40, 43), (43, 40)])
def test_a_vocabulary_that_grew_pairs_by_its_first_rows(
    tmp_path: Path, write: Write, llama: Llama, rows: tuple[int, int]
) -> None:
    base, adapted = llama(1, vocab=rows[0]), llama(2, vocab=rows[1])
    alignment = aligned(base=write(tmp_path / "base", base), adapted=write(tmp_path / "adapted", adapted))
    pair = next(pair for pair in alignment.pairs if pair.site.component == "embed")
    assert pair.shape == (40, 16)
    for role, tensors in (("base", base), ("adapted", adapted)):
        assert torch.equal(alignment.load(pair, role), tensors["model.embed_tokens.weight"][:40])
        chunks = [alignment.read(pair, role, start, min(start + 7, pair.numel)) for start in range(0, pair.numel, 7)]
        assert torch.equal(torch.cat(chunks), tensors["model.embed_tokens.weight"][:40].reshape(-1))
    larger = "base" if rows[0] > rows[1] else "adapted"
    assert any("text.embed" in note and larger in note and "3 are its own" in note for note in alignment.notes)


@pytest.mark.parametrize("stale", [True, False])
def test_a_tied_head_is_the_embedding(tmp_path: Path, write: Write, llama: Llama, stale: bool) -> None:
    """The base ties its head, the adapted model has one: what it grew from is the base's embedding."""
    base = llama(1)
    base["lm_head.weight"] = base["model.embed_tokens.weight"].clone()
    if not stale:
        del base["lm_head.weight"]
    tied = write(tmp_path / "base", base, {**CONFIG, "tie_word_embeddings": True})
    alignment = aligned(base=tied, adapted=write(tmp_path / "adapted", llama(2)))
    head = next(pair for pair in alignment.pairs if pair.site.component == "head")
    assert torch.equal(alignment.load(head, "base"), base["model.embed_tokens.weight"])
    assert [tensor.name for tensor in alignment.unmatched] == ["lm_head.weight"] * stale


def test_a_stale_head_is_left_out_and_reported(tmp_path: Path, write: Write, llama: Llama) -> None:
    tensors = llama(2)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    stale = write(tmp_path / "adapted", tensors, {**CONFIG, "tie_word_embeddings": True})
    alignment = aligned(base=write(tmp_path / "base", llama(1)), adapted=stale)
    assert alignment.stale_heads == {"adapted": "lm_head.weight"}
    assert not any(pair.site.component == "head" for pair in alignment.pairs)
    assert {(tensor.role, tensor.reason.split(":")[0].split(" ")[0]) for tensor in alignment.unmatched} == {
        ("adapted", "stale"),
        ("base", "adapted"),
    }
    (note,) = alignment.notes
    assert "stale" in note


@pytest.mark.parametrize("role", ["base", "adapted"])
def test_a_head_of_its_own_is_kept_whatever_the_config_says(
    tmp_path: Path, write: Write, llama: Llama, role: str
) -> None:
    """As transformers has it, which ties only what is equal."""
    configs = {name: {**CONFIG, "tie_word_embeddings": name == role} for name in ("base", "adapted")}
    held = {name: llama(seed) for seed, name in enumerate(configs)}
    alignment = aligned(**{name: write(tmp_path / name, held[name], configs[name]) for name in configs})
    head = next(pair for pair in alignment.pairs if pair.site.component == "head")
    assert all(torch.equal(alignment.load(head, name), held[name]["lm_head.weight"]) for name in held)
    assert not alignment.stale_heads
    (note,) = alignment.notes
    assert note.startswith(f"{role}: ")
    assert "lm_head.weight" in note
    assert "kept" in note


@pytest.mark.parametrize("rows", [(40, 43), (43, 40)])
@pytest.mark.parametrize("name", ["model.embed_tokens_per_layer.weight", "model.token_gates.weight"])
def test_tables_beside_the_embedding_grow_with_the_vocabulary(
    tmp_path: Path, write: Write, llama: Llama, name: str, rows: tuple[int, int]
) -> None:
    held = {}
    for role, count in zip(("base", "adapted"), rows, strict=True):
        held[role] = {**llama(1, vocab=count), name: torch.randn(count, 6)}
    alignment = aligned(**{role: write(tmp_path / role, held[role]) for role in held})
    table = next(pair for pair in alignment.pairs if pair.parts["base"].name == name)
    assert table.shape == (40, 6)
    assert all(torch.equal(alignment.load(table, role), held[role][name][:40]) for role in held)
    assert any(table.site.key in note and "3 are its own" in note for note in alignment.notes)


@pytest.mark.parametrize("rows", [(40, 43), (43, 40)])
def test_a_table_narrower_than_the_stream_is_the_embedding(
    tmp_path: Path, write: Write, llama: Llama, rows: tuple[int, int]
) -> None:
    """OPT 350m projects its embeddings to the stream's width."""
    held = {}
    for role, count in zip(("base", "adapted"), rows, strict=True):
        held[role] = llama(1)
        for name in ("model.embed_tokens.weight", "lm_head.weight"):
            held[role][name] = torch.randn(count, 6)
        held[role]["model.project_in.weight"] = torch.ones(16, 6)
    alignment = aligned(**{role: write(tmp_path / role, held[role]) for role in held})
    shapes = {pair.site.key: pair.shape for pair in alignment.pairs}
    assert shapes["text.embed"] == shapes["text.head"] == (40, 6)
    assert not alignment.unmatched


WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "module", "base_layer", "_checkpoint_wrapped_module")


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("place", ["front", "layer", "leaf", "everywhere"])
def test_wrappers_of_training_frameworks_are_seen_through(
    tmp_path: Path, write: Write, llama: Llama, wrapper: str, place: str
) -> None:
    def wrapped(name: str) -> str:
        if place in ("front", "everywhere"):
            name = f"{wrapper}.{name}"
        if place in ("layer", "everywhere"):
            name = name.replace("layers.0.", f"layers.0.{wrapper}.")
        return name.replace(".weight", f".{wrapper}.weight") if place in ("leaf", "everywhere") else name

    adapted = write(tmp_path / "adapted", llama(2))
    plain = aligned(base=write(tmp_path / "plain", llama(1)), adapted=adapted)
    base = {wrapped(name): tensor for name, tensor in llama(1).items()}
    alignment = aligned(base=write(tmp_path / "base", base), adapted=adapted)
    assert [pair.site for pair in alignment.pairs] == [pair.site for pair in plain.pairs]
    assert not alignment.unmatched
    for pair, other in zip(alignment.pairs, plain.pairs, strict=True):
        assert torch.equal(alignment.load(pair, "base"), plain.load(other, "base"))
    (note,) = alignment.notes
    assert wrapper in note


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model.embed_tokens.weight": torch.zeros(0)}, ("model.embed_tokens.weight", "empty (0 entries)", "zero_to_")),
        ({"model.layers.0.mlp.up_proj.weight": torch.zeros(0, 4)}, ("model.layers.0.mlp.up_proj.weight", "0 entries")),
        ({"model._fsdp_wrapped_module._flat_param": torch.zeros(9)}, ("_flat_param", "FULL_STATE_DICT")),
        ({"model.layers.0.self_attn.q_proj.lora_A.default.weight": torch.ones(2, 16)}, ("lora_A", "merge_and_unload")),
    ],
)
def test_missing_weights_are_named(
    tmp_path: Path, write: Write, llama: Llama, change: dict[str, torch.Tensor], words: tuple[str, ...]
) -> None:
    base = write(tmp_path / "base", {**llama(1), **change})
    with pytest.raises(CheckpointError) as caught:
        aligned(base=base, adapted=write(tmp_path / "adapted", llama(2)))
    assert all(word in str(caught.value) for word in ("base", str(base), *words))
    assert "\n" not in str(caught.value)


def test_integers_are_not_weights(tmp_path: Path, write: Write, llama: Llama) -> None:
    tensors = {**llama(), "model.position_ids": torch.arange(4)}
    alignment = aligned(base=write(tmp_path / "base", tensors), adapted=write(tmp_path / "adapted", tensors))
    assert [tensor.role for tensor in alignment.unmatched] == ["base", "adapted"]
    assert all("int64" in tensor.reason for tensor in alignment.unmatched)


def test_towers_of_different_shape_are_unmatched_both(tmp_path: Path, write: Write, llama: Llama) -> None:
    def with_projector(width: int) -> dict[str, Tensor]:
        return {**llama(), "multi_modal_projector.linear.weight": torch.zeros(16, width)}

    alignment = aligned(
        adapted=write(tmp_path / "adapted", with_projector(4)), safety=write(tmp_path / "safety", with_projector(5))
    )
    assert {tensor.role for tensor in alignment.unmatched} == {"adapted", "safety"}
    assert all("16 x 5 in safety, 16 x 4 in adapted" in tensor.reason for tensor in alignment.unmatched)


def test_models_that_share_no_text_stack_are_refused_with_both_sides_facts(
    tmp_path: Path, write: Write, llama: Llama
) -> None:
    deep = write(tmp_path / "base", llama(layers=3), {**CONFIG, "num_hidden_layers": 3})
    with pytest.raises(AlignmentError) as caught:
        aligned(base=deep, adapted=write(tmp_path / "adapted", llama()))
    assert "adapted" in str(caught.value)
    assert "2 layers of width 16" in str(caught.value)
    assert "3 of width 16" in str(caught.value)


def test_text_tensors_of_different_shape_are_refused(tmp_path: Path, write: Write, llama: Llama) -> None:
    wide = {**llama(), "model.layers.0.mlp.up_proj.weight": torch.zeros(32, 16)}
    with pytest.raises(AlignmentError, match=r"mlp\.up_proj\.weight is 32 x 16 in base, 24 x 16 in adapted"):
        aligned(base=write(tmp_path / "base", wide), adapted=write(tmp_path / "adapted", llama()))


def test_quantised_weights_are_refused_with_the_scheme(tmp_path: Path, write: Write, llama: Llama) -> None:
    packed = {**llama(), "model.layers.0.mlp.up_proj.qweight": torch.zeros(2, dtype=torch.int32)}
    with pytest.raises(AlignmentError, match=r"base .* quantised \(gptq or awq\)"):
        aligned(base=write(tmp_path / "base", packed), adapted=write(tmp_path / "adapted", llama()))


def test_a_role_without_text_stack_is_named(tmp_path: Path, write: Write, llama: Llama) -> None:
    odd = write(tmp_path / "base", {"a.weight": torch.zeros(3)})
    with pytest.raises(AlignmentError, match=r"base .*no text stack"):
        aligned(base=odd, adapted=write(tmp_path / "adapted", llama()))


def test_the_order_of_roles_changes_nothing(trio: "Trio") -> None:
    first = aligned(base=trio.base, adapted=trio.adapted, safety=trio.safety)
    second = aligned(safety=trio.safety, adapted=trio.adapted, base=trio.base)
    assert [(pair.site, dict(pair.parts)) for pair in first.pairs] == [
        (pair.site, dict(pair.parts)) for pair in second.pairs
    ]
    assert first.pairs[0].site == Site("text", None, "embed")
