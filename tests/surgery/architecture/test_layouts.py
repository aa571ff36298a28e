"""One weight in several forms is cut into the same parts, read, compared and merged slice by slice."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies as st
from torch import Tensor

from vlsurgery.surgery.alignment import align
from vlsurgery.surgery.alignment.comparison import compare
from vlsurgery.surgery.architecture.layouts import TensorView, locate, slices_of
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.diff.run import diff
from vlsurgery.surgery.errors import AlignmentError
from vlsurgery.surgery.merge import streams
from vlsurgery.surgery.merge.coefficients import Coefficients
from vlsurgery.surgery.merge.recipe import Recipe
from vlsurgery.surgery.merge.run import run_merge

Write = Callable[..., Path]
Llama = Callable[..., dict[str, Tensor]]
Tensors = dict[str, Tensor]
EXPERTS = 3


def opened(**paths: Path) -> dict[str, Checkpoint]:
    return {role: Checkpoint.open(path) for role, path in paths.items()}


def nudged(tensors: Tensors) -> Tensors:
    """A relative: every tensor moved a little."""
    generator = torch.Generator().manual_seed(9)
    return {name: t + 0.01 * torch.randn(t.shape, generator=generator) for name, t in tensors.items()}


def attention_fused(tensors: Tensors) -> Tensors:
    return rewritten(tensors, "self_attn", ("q_proj", "k_proj", "v_proj"), "qkv_proj", torch.cat)


def gate_first(tensors: Tensors) -> Tensors:
    return rewritten(tensors, "mlp", ("gate_proj", "up_proj"), "gate_up_proj", torch.cat)


def up_first(tensors: Tensors) -> Tensors:
    return rewritten(tensors, "mlp", ("up_proj", "gate_proj"), "ff_proj", torch.cat)


def in_turns(tensors: Tensors) -> Tensors:
    def weave(pair: list[Tensor]) -> Tensor:
        return torch.stack(pair, 1).reshape(-1, pair[0].shape[1])

    return rewritten(tensors, "mlp", ("gate_proj", "up_proj"), "w13_dn", weave)


def rewritten(
    tensors: Tensors, module: str, parts: tuple[str, ...], fused: str, how: Callable[[list[Tensor]], Tensor]
) -> Tensors:
    """The same model with `parts` of each layer in one tensor."""
    found = dict(tensors)
    for layer in range(2):
        start = f"model.layers.{layer}.{module}"
        found[f"{start}.{fused}.weight"] = how([found.pop(f"{start}.{part}.weight") for part in parts])
    return found


def one_by_one(tensors: Tensors) -> Tensors:
    """A mixture of experts, each a module of its own; no two alike."""
    found = {name: tensor for name, tensor in tensors.items() if ".mlp." not in name}
    generator = torch.Generator().manual_seed(4)
    for layer in range(2):
        start = f"model.layers.{layer}.mlp"
        found[f"{start}.gate.weight"] = torch.randn(EXPERTS, 16, generator=generator)
        for expert in range(EXPERTS):
            for part, shape in (("gate", (12, 16)), ("up", (12, 16)), ("down", (16, 12))):
                found[f"{start}.experts.{expert}.{part}_proj.weight"] = torch.randn(shape, generator=generator)
    return found


def stacked(tensors: Tensors, transposed: bool = False) -> Tensors:
    found = {name: tensor for name, tensor in tensors.items() if ".experts." not in name}
    for layer in range(2):
        start = f"model.layers.{layer}.mlp.experts"

        def all_of(*parts: str, start: str = start) -> Tensor:
            whole = torch.stack(
                [torch.cat([tensors[f"{start}.{e}.{part}_proj.weight"] for part in parts]) for e in range(EXPERTS)]
            )
            return whole.transpose(1, 2).contiguous() if transposed else whole

        found[f"{start}.gate_up_proj"] = all_of("gate", "up")
        found[f"{start}.down_proj"] = all_of("down")
    return found


def turned(tensors: Tensors) -> Tensors:
    return stacked(tensors, transposed=True)


FORMS = [attention_fused, gate_first, up_first, in_turns]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("fused_role", ["base", "adapted"])
def test_fused_projections_pair_slice_by_slice(
    tmp_path: Path, write: Write, llama: Llama, form: Callable[[Tensors], Tensors], fused_role: str
) -> None:
    plain = {"base": llama(1), "adapted": nudged(llama(1))}
    files = {role: form(tensors) if role == fused_role else tensors for role, tensors in plain.items()}
    alignment = align(opened(**{role: write(tmp_path / role, tensors) for role, tensors in files.items()}))
    assert not alignment.unmatched
    assert len(alignment.pairs) == len(plain["base"])
    other = next(role for role in plain if role != fused_role)
    for pair in alignment.pairs:
        name = pair.parts[other].name
        for role in plain:
            assert torch.equal(alignment.load(pair, role), plain[role][name])
            chunks = [alignment.read(pair, role, i, min(i + 7, pair.numel)) for i in range(0, pair.numel, 7)]
            assert torch.equal(torch.cat(chunks), plain[role][name].flatten())


@pytest.mark.parametrize("first", [one_by_one, lambda t: stacked(one_by_one(t)), lambda t: turned(one_by_one(t))])
@pytest.mark.parametrize("second", [one_by_one, lambda t: stacked(one_by_one(t)), lambda t: turned(one_by_one(t))])
def test_experts_pair_in_every_layout_and_merge_in_the_targets(
    tmp_path: Path,
    write: Write,
    llama: Llama,
    first: Callable[[Tensors], Tensors],
    second: Callable[[Tensors], Tensors],
) -> None:
    base, adapted = first(llama(1)), second(llama(1))
    adapted = {name: tensor + 0.25 for name, tensor in adapted.items()}
    checkpoints = opened(base=write(tmp_path / "b", base), adapted=write(tmp_path / "a", adapted))
    alignment = align(checkpoints)
    assert not alignment.unmatched
    for pair in alignment.pairs:
        delta = alignment.load(pair, "adapted") - alignment.load(pair, "base")
        torch.testing.assert_close(delta, torch.full_like(delta, 0.25), atol=1e-6, rtol=0)
    run_merge(Recipe.of(checkpoints, Coefficients({"default": {"base": 0.5}})), tmp_path / "m")
    for name, tensor in Checkpoint.open(tmp_path / "m").items():
        torch.testing.assert_close(tensor.load(), adapted[name] - 0.125, atol=1e-6, rtol=0)


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_interleaved_parts_are_put_together_whatever_is_read_at_a_time(
    tmp_path: Path, write: Write, llama: Llama, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a whole share the merged blocks are views of what was read; they must outlive the next read."""
    monkeypatch.setattr(streams, "READ_SIZE", 16)
    monkeypatch.setattr(streams, "chunk_size", lambda shape, rows: 16)  # noqa: ARG005
    base, adapted = one_by_one(llama(1)), one_by_one(llama(2))
    checkpoints = opened(base=write(tmp_path / "b", base), adapted=write(tmp_path / "a", turned(adapted)))
    run_merge(Recipe.of(checkpoints, {"default": {"base": share}}), tmp_path / "m")
    expected = turned({name: torch.lerp(adapted[name], base[name], share) for name in base})
    for name, tensor in Checkpoint.open(tmp_path / "m").items():
        torch.testing.assert_close(tensor.load(), expected[name], rtol=0, atol=1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_a_merge_moves_one_slice_and_leaves_the_others(
    tmp_path: Path, write: Write, llama: Llama, form: Callable[[Tensors], Tensors]
) -> None:
    base, adapted = llama(1), nudged(llama(1))
    keys = {"attn.k", "mlp.up"}
    checkpoints = opened(base=write(tmp_path / "b", base), adapted=write(tmp_path / "a", form(adapted)))
    run_merge(Recipe.of(checkpoints, Coefficients({key: {"base": 1.0} for key in keys})), tmp_path / "m")
    moved = {
        name: base[name] if ".k_proj." in name or ".up_proj." in name else tensor for name, tensor in adapted.items()
    }
    for name, tensor in form(moved).items():
        assert torch.equal(Checkpoint.open(tmp_path / "m")[name].load(), tensor)


def test_a_slice_is_named_in_the_diff(tmp_path: Path, write: Write, llama: Llama) -> None:
    base = one_by_one(llama(1))
    found = diff(align(opened(base=write(tmp_path / "b", base), adapted=write(tmp_path / "a", turned(base)))))
    pair = next(p for p in found.pairs if p.component == "expert.1.up" and p.layer == 0)
    assert pair.shape == [12, 16]
    label = pair.names["adapted"]
    assert not isinstance(label, str)
    assert (label.slice, label.transposed) == ([(1, 2), (0, 16), (12, 24)], True)
    assert pair.metrics.vl is not None
    assert pair.metrics.vl.changed == 0


def test_a_common_layout_stays_whole(tmp_path: Path, write: Write, llama: Llama) -> None:
    tensors = attention_fused(stacked(one_by_one(llama(1))))
    found = compare(opened(base=write(tmp_path / "b", tensors), adapted=write(tmp_path / "a", nudged(tensors))))
    assert all(isinstance(label, str) for pair in found.pairs for label in pair.names.values())
    assert {role: (shared.tensors, shared.paired) for role, shared in found.roles.items()} == {
        role: (len(tensors), len(tensors)) for role in ("base", "adapted")
    }


@pytest.mark.parametrize("form", [*FORMS, turned])
def test_every_pairs_site_is_found_in_any_layout_of_the_model(
    tmp_path: Path, write: Write, llama: Llama, form: Callable[[Tensors], Tensors]
) -> None:
    plain = one_by_one(llama(1)) if form is turned else llama(1)
    alignment = align(opened(base=write(tmp_path / "b", plain), adapted=write(tmp_path / "a", plain)))
    live = form(plain)
    parts = locate({name: tuple(tensor.shape) for name, tensor in live.items()}, None)
    for pair in alignment.pairs:
        part = parts[pair.site]
        whole = live[part.name]
        start, size = part.span(tuple(whole.shape))
        view = part.view(whole.flatten()[start : start + size], tuple(whole.shape))
        assert torch.equal(view, plain[pair.parts["adapted"].name])


@given(
    shape=st.tuples(st.integers(2, 4), st.integers(1, 6), st.integers(1, 6)),
    data=st.data(),
    transposed=st.booleans(),
)
def test_a_view_of_a_span_is_the_slice(shape: tuple[int, int, int], data: st.DataObject, transposed: bool) -> None:
    cuts = []
    for extent in shape:
        start = data.draw(st.integers(0, extent - 1))
        cuts.append((start, data.draw(st.integers(start + 1, extent))))
    tensor = torch.arange(float(torch.Size(shape).numel())).reshape(shape)
    part = TensorView("x", slices_of(shape, *cuts), transposed)
    expected = tensor[part.slices]
    expected = expected[0] if expected.shape[0] == 1 else expected
    expected = expected.transpose(-1, -2) if transposed else expected
    start, size = part.span(shape)
    found = part.view(tensor.flatten()[start : start + size], shape)
    assert torch.equal(found, expected)
    assert part.shape(shape) == tuple(expected.shape)
    if part.is_contiguous(shape):
        assert torch.equal(tensor.flatten()[start : start + size], expected.flatten())


WORDS = st.lists(st.from_regex(r"[a-z]{4,8}", fullmatch=True), min_size=14, max_size=14, unique=True)
MODULES = (
    "layers", "self_attn", "mlp", "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
    "input_layernorm", "post_attention_layernorm", "embed_tokens", "norm",
)  # fmt: skip


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(words=WORDS)
def test_names_changed_at_random_change_no_pair(
    tmp_path_factory: pytest.TempPathFactory, write: Write, llama: Llama, words: list[str]
) -> None:
    """q and o, k and v, gate and up, and both norms have one shape each: only what they hold tells them apart."""
    folder = tmp_path_factory.mktemp("renamed")
    table = dict(zip(MODULES, words, strict=True))

    def rename(name: str) -> str:
        return ".".join(table.get(word, word) for word in name.split("."))

    base = llama(1)
    adapted = {rename(name): tensor for name, tensor in nudged(base).items()}
    alignment = align(opened(base=write(folder / "b", base), adapted=write(folder / "a", adapted)))
    assert {(p.parts["base"].name, p.parts["adapted"].name) for p in alignment.pairs} == {(n, rename(n)) for n in base}
    assert not alignment.unmatched


def test_what_nothing_tells_is_refused(tmp_path: Path, write: Write, llama: Llama) -> None:
    """Fresh norms hold ones, both of them: under unknown names each could be the other."""
    base = {name: torch.ones_like(tensor) if "layernorm" in name else tensor for name, tensor in llama(1).items()}
    renamed = {
        name.replace("input_layernorm", "abc").replace("post_attention_layernorm", "xyz"): t for name, t in base.items()
    }
    with pytest.raises(AlignmentError, match=r"abc.*xyz.*neither names nor values"):
        align(opened(base=write(tmp_path / "b", base), adapted=write(tmp_path / "a", renamed)))


def rotary_halves(tensor: Tensor, heads: int) -> Tensor:
    """Rows of each head in the order of rotary halves: all the even ones, then all the odd ones."""
    return tensor.reshape(heads, -1, 2, *tensor.shape[1:]).transpose(1, 2).reshape(tensor.shape)


@pytest.mark.parametrize("fused_role", ["adapted", "safety"])
@pytest.mark.parametrize("heads", [2, 4])
def test_rows_fused_and_reordered_for_rotary_embeddings_pair_slice_by_slice(
    tmp_path: Path, write: Write, llama: Llama, fused_role: str, heads: int
) -> None:
    """One layout of a vision tower has q, k and v in one tensor, with rotary pairs in q and k; the other has halves."""
    text, start = llama(1), "vision_tower.blocks"
    tower = {
        f"{layer}.{word}": torch.randn(16, 12 if leaf else 1, generator=torch.Generator().manual_seed(seed)).squeeze(1)
        for seed, (layer, word, leaf) in enumerate(
            (layer, f"{part}{ending}", ending == "") for layer in range(2) for part in "qkv" for ending in ("", ".bias")
        )
    }
    fused = {
        f"{start}.{layer}.wqkv.{leaf}": torch.cat([tower[f"{layer}.{part}{ending}"] for part in "qkv"])
        for layer in range(2)
        for leaf, ending in (("weight", ""), ("bias", ".bias"))
    }
    split = {
        f"model.vision_tower.layers.{layer}.attn.{part}_proj.{leaf}": (
            tower[f"{layer}.{part}{ending}"] if part == "v" else rotary_halves(tower[f"{layer}.{part}{ending}"], heads)
        )
        for layer in range(2)
        for part in "qkv"
        for leaf, ending in (("weight", ""), ("bias", ".bias"))
    }
    split_role = "safety" if fused_role == "adapted" else "adapted"
    held = {fused_role: text | fused, split_role: text | split}
    alignment = align(opened(**{role: write(tmp_path / role, tensors) for role, tensors in held.items()}))
    assert not alignment.unmatched
    paired = [pair for pair in alignment.pairs if pair.site.tower == "vision"]
    assert sum(pair.numel for pair in paired) == sum(tensor.numel() for tensor in fused.values())
    for pair in paired:
        assert torch.equal(alignment.load(pair, "adapted"), alignment.load(pair, "safety"))


def test_an_unknown_layout_is_refused(tmp_path: Path, write: Write, llama: Llama) -> None:
    """Experts transposed and stacked under an unknown name are not aligned in part."""
    base = one_by_one(llama(1))
    renamed = {name.replace("gate_up_proj", "abc").replace("down_proj", "xyz"): t for name, t in turned(base).items()}
    with pytest.raises(AlignmentError, match=r"may be one weight in two forms"):
        align(opened(base=write(tmp_path / "b", base), adapted=write(tmp_path / "a", renamed)))
