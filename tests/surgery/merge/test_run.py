"""A merge writes exactly what the recipe orders, in the form of `like`, and transformers loads it."""

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import Tensor

from vlsurgery.surgery.alignment import align
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.errors import CheckpointError, RecipeError
from vlsurgery.surgery.merge.coefficients import Coefficients
from vlsurgery.surgery.merge.preparation import prepare_merge
from vlsurgery.surgery.merge.recipe import Recipe
from vlsurgery.surgery.merge.run import run_merge
from vlsurgery.surgery.writer.journal import JOURNAL

if TYPE_CHECKING:
    from conftest import Trio

Write = Callable[..., Path]
Llama = Callable[..., dict[str, Tensor]]
TIED = {"num_hidden_layers": 2, "hidden_size": 16, "vocab_size": 40, "tie_word_embeddings": True}


def opened(**paths: Path) -> dict[str, Checkpoint]:
    return {role: Checkpoint.open(path) for role, path in paths.items()}


def merged(out: Path, coefficients: Mapping[str, Mapping[str, Any]], **paths: Path) -> Checkpoint:
    run_merge(Recipe.of(opened(**paths), coefficients), out)
    return Checkpoint.open(out)


def raw(checkpoint: Checkpoint, name: str) -> bytes:
    buffer = bytearray(checkpoint[name].nbytes)
    checkpoint[name].read_into(memoryview(buffer))
    return bytes(buffer)


LAYOUTS = ["adapted", "adapted_native", "adapted_sharded"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_transformers_loads_it_with_every_key_in_place(trio: "Trio", tmp_path: Path, layout: str) -> None:
    from transformers import AutoModelForImageTextToText

    like = getattr(trio, layout)
    result = merged(
        tmp_path / "m",
        {"default": {"base": 0.3, "safety": 0.2}},
        base=trio.base_sharded,
        adapted=like,
        safety=trio.safety_native,
    )
    original = Checkpoint.open(like)
    assert {name: (t.shape, t.dtype, t.shard.name) for name, t in result.items()} == {
        name: (t.shape, t.dtype, t.shard.name) for name, t in original.items()
    }
    _, report = AutoModelForImageTextToText.from_pretrained(tmp_path / "m", output_loading_info=True)
    assert not any(report[fault] for fault in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert list(result.companions) == list(original.companions)
    assert result.left_behind == ["README.md", "SHA256SUMS", "recipe.yaml"]
    assert (tmp_path / "m" / "chat_template.jinja").read_bytes() == (like / "chat_template.jinja").read_bytes()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_nothing_asked_is_nothing_changed(trio: "Trio", tmp_path: Path, layout: str) -> None:
    like = Checkpoint.open(getattr(trio, layout))
    result = merged(
        tmp_path / "m", {"default": {"base": 0.0, "safety": 0.0}}, base=trio.base, adapted=like.path, safety=trio.safety
    )
    assert all(raw(result, name) == raw(like, name) for name in like)


def test_all_the_way_to_base_is_the_base_on_text_and_adapted_elsewhere(trio: "Trio", tmp_path: Path) -> None:
    result = merged(tmp_path / "m", {"default": {"base": 1.0}}, base=trio.base, adapted=trio.adapted)
    for name in result:
        source, twin = trio.adapted, name
        if name.startswith("language_model."):
            source, twin = trio.base, name.removeprefix("language_model.")
        assert raw(result, name) == raw(Checkpoint.open(source), twin)


def test_shares_per_site_equal_numpy(trio: "Trio", tmp_path: Path) -> None:
    table = Coefficients(
        {
            "default": {"base": 0.1},
            "1": {"safety": 0.2},
            "0.attn": {"base": 0.3, "safety": 0.4},
            "mlp.down": {"base": 0.5},
            "text.1.attn.q": {"base": 0.6, "safety": 0.7},
            "projector": {"safety": 0.8},
        }
    )
    paths = {"base": trio.base, "adapted": trio.adapted, "safety": trio.safety_native}
    result = merged(tmp_path / "m", table, **paths)
    alignment = align(opened(**paths))
    seen = set()
    for pair in alignment.pairs:
        values = {role: alignment.load(pair, role).double().numpy() for role in pair.parts}
        expected = values["adapted"].copy()
        for role, coefficient in table.resolve(pair.site).items():
            expected += coefficient * (values[role] - values["adapted"])
        seen.add(tuple(sorted(table.resolve(pair.site).items())))
        found = result[pair.parts["adapted"].name].load().double().numpy()
        np.testing.assert_allclose(found, expected, atol=1e-6)
    assert len(seen) == len(table) + 1


def test_the_same_recipe_gives_the_same_bytes(trio: "Trio", tmp_path: Path) -> None:
    recipe = Recipe.of(opened(base=trio.base, adapted=trio.adapted_sharded), {"default": {"base": 0.37}})
    first = run_merge(recipe, tmp_path / "a")
    second = run_merge(Recipe.load(tmp_path / "a" / "recipe.yaml"), tmp_path / "b")
    assert first.shards == second.shards
    assert {file: sha256((tmp_path / "a" / file).read_bytes()).hexdigest() for file in first.shards} == first.shards
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
    assert first.kept + first.blended == first.tensors == len(Checkpoint.open(trio.adapted))


@pytest.mark.parametrize("extra", [False, True])
def test_an_alignment_that_is_there_opens_no_checkpoint_again(
    trio: "Trio", tmp_path: Path, extra: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The result is that of the recipe alone, whether or not the alignment holds a role that the recipe does not."""
    models = opened(base=trio.base, adapted=trio.adapted)
    recipe = Recipe.of(models, {"default": {"base": 0.37}})
    wanted = run_merge(recipe, tmp_path / "alone")
    alignment = align(models | (opened(safety=trio.safety_native) if extra else {}))
    monkeypatch.setattr(Checkpoint, "reopen", None)
    prepared = prepare_merge(recipe, alignment)
    assert (prepared.alignment is alignment) is not extra
    assert run_merge(recipe, tmp_path / "prepared", prepared=prepared).shards == wanted.shards
    card = (tmp_path / "alone" / "README.md").read_text()
    assert (tmp_path / "prepared" / "README.md").read_text() == card


def test_an_alignment_of_files_that_the_recipe_does_not_mean_is_refused(
    tmp_path: Path, write: Write, llama: Llama
) -> None:
    paths = {"base": write(tmp_path / "b", llama(0)), "adapted": write(tmp_path / "a", llama(1))}
    recipe = Recipe.of(opened(**paths), {"default": {"base": 0.5}})
    write(tmp_path / "b", llama(2))
    with pytest.raises(CheckpointError, match=r"base .* changed since the recipe was made"):
        prepare_merge(recipe, align(opened(**paths)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_halves_are_computed_in_float32_and_rounded_once(
    tmp_path: Path, write: Write, llama: Llama, dtype: torch.dtype
) -> None:
    base, adapted = llama(1), llama(2, dtype=dtype)
    result = merged(
        tmp_path / "m",
        {"default": {"base": 0.3}},
        base=write(tmp_path / "b", base),
        adapted=write(tmp_path / "a", adapted),
    )
    for name, tensor in adapted.items():
        expected = tensor.double() + 0.3 * (base[name].double() - tensor.double())
        error = (result[name].load().double() - expected).abs()
        # Half a unit in the last place of the stored dtype, and a rounding of float32 before it.
        assert (error <= expected.abs() * torch.finfo(dtype).eps / 2 * 1.001 + 1e-7).all()


def test_rows_that_others_lack_keep_their_bytes(tmp_path: Path, write: Write, llama: Llama) -> None:
    adapted = llama(2, vocab=43)
    base = write(tmp_path / "b", llama(1))
    result = merged(tmp_path / "m", {"default": {"base": 1.0}}, base=base, adapted=write(tmp_path / "a", adapted))
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        assert torch.equal(result[name].load()[40:], adapted[name][40:])
        assert torch.equal(result[name].load()[:40], llama(1)[name])


def test_a_stale_head_is_never_written(tmp_path: Path, write: Write, llama: Llama) -> None:
    for shards in (1, 3):
        tensors = llama(2)
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
        adapted = write(tmp_path / f"a{shards}", tensors, TIED, shards=shards)
        result = merged(
            tmp_path / f"m{shards}", {"default": {"base": 0.5}}, base=write(tmp_path / "b", llama(1)), adapted=adapted
        )
        assert set(result) == set(llama()) - {"lm_head.weight"}
        assert "stale" in (tmp_path / f"m{shards}" / "README.md").read_text()


def test_the_card_states_parents_coefficients_and_how_to_do_it_again(trio: "Trio", tmp_path: Path) -> None:
    checkpoints = opened(base=trio.base, adapted=trio.adapted)
    recipe = Recipe.of(checkpoints, Coefficients({"1.mlp": {"base": 0.25}}), {"1.mlp": "lost | most"})
    run_merge(recipe, tmp_path / "m")
    card = (tmp_path / "m" / "README.md").read_text()
    for checkpoint in checkpoints.values():
        assert checkpoint.identity in card
    assert "| 1.mlp | 0.25 | lost &#124; most |" in card
    assert "vlsurgery merge --recipe recipe.yaml" in card
    assert "c_base (base - adapted)" in card


def test_changed_inputs_are_refused(tmp_path: Path, write: Write, llama: Llama) -> None:
    base, adapted = write(tmp_path / "b", llama(1)), write(tmp_path / "a", llama(2))
    recipe = Recipe.of(opened(base=base, adapted=adapted), {"default": {"base": 0.5}})
    write(base, llama(3))
    with pytest.raises(CheckpointError, match=r"base .* changed since the recipe was made"):
        run_merge(recipe, tmp_path / "m")
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    ("key", "role"), [("7.mlp", "base"), ("text.1.mlp.router", "base"), ("vision", "base"), ("mlp.gate_up", "safety")]
)
def test_a_share_that_fits_nothing_is_refused(trio: "Trio", tmp_path: Path, key: str, role: str) -> None:
    with pytest.raises(RecipeError, match=f"{key}.{role}: fits no tensor"):
        merged(tmp_path / "m", {key: {role: 0.1}}, base=trio.base, adapted=trio.adapted, safety=trio.safety)


@pytest.mark.parametrize(("key", "known"), [("7.mlp", False), ("mlp.gate_up", False), ("vision", True)])
def test_no_share_needs_a_site_but_not_a_tensor(trio: "Trio", tmp_path: Path, key: str, known: bool) -> None:
    silent: dict[str, dict[str, Any]] = {key: {"base": 0.0}}
    refusal = contextlib.nullcontext() if known else pytest.raises(RecipeError, match=f"{key}.base: fits no tensor")
    with refusal:
        merged(tmp_path / "m", silent, base=trio.base, adapted=trio.adapted)


def test_nan_is_named_and_nothing_is_left(tmp_path: Path, write: Write, llama: Llama) -> None:
    broken = llama(1)
    broken["model.layers.1.mlp.up_proj.weight"][0, 0] = torch.nan
    with pytest.raises(CheckpointError, match=r"^base .*model\.layers\.1\.mlp\.up_proj\.weight: NaN"):
        merged(
            tmp_path / "m",
            {"default": {"base": 0.5}},
            base=write(tmp_path / "b", broken),
            adapted=write(tmp_path / "a", llama(2)),
        )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_a_value_too_large_for_the_dtype_is_named(tmp_path: Path, write: Write, llama: Llama) -> None:
    huge = {name: tensor * 1e6 for name, tensor in llama(1).items()}
    adapted = write(tmp_path / "a", llama(2, dtype=torch.float16))
    with pytest.raises(CheckpointError, match="arise when it is merged as float16"):
        merged(tmp_path / "m", {"default": {"base": 1.0}}, base=write(tmp_path / "b", huge), adapted=adapted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_nan_that_is_only_copied_is_named(
    tmp_path: Path, write: Write, llama: Llama, dtype: torch.dtype, value: float
) -> None:
    name = "model.layers.1.mlp.up_proj.weight"
    broken = llama(1, dtype=dtype)
    broken[name][2, 3] = value
    broken["model.norm.weight"][0] = torch.finfo(dtype).max
    checkpoints = opened(base=write(tmp_path / "b", llama(2, dtype=dtype)), adapted=write(tmp_path / "a", broken))
    result = run_merge(Recipe.of(checkpoints, {"0.mlp": {"base": 0.5}}), tmp_path / "m")
    (note,) = [note for note in result.notes if "NaN" in note]
    assert note.startswith(f"adapted: {name}: ")
    assert raw(Checkpoint.open(tmp_path / "m"), name) == raw(checkpoints["adapted"], name)


def test_nan_in_shards_that_were_finished_before_is_named_too(tmp_path: Path, write: Write, llama: Llama) -> None:
    broken = llama(1)
    names = ["model.layers.0.input_layernorm.weight", "model.layers.1.mlp.up_proj.weight"]
    for name in names:
        broken[name].flatten()[0] = torch.nan
    checkpoints = opened(base=write(tmp_path / "b", llama(2)), adapted=write(tmp_path / "a", broken, shards=4))
    recipe = Recipe.of(checkpoints, {"embed": {"base": 0.5}})
    finished: list[int] = []

    def cut_short(items: Iterable[Any], label: str, total: int | None = None) -> Iterator[Any]:
        for number, item in enumerate(items):
            if label == "writing weights" and number == (total or 0) - 1:
                deadline = time.monotonic() + 20
                journal = next(tmp_path.glob(f"*/{JOURNAL}"))
                while journal.read_text().count("sha256") < 2 and time.monotonic() < deadline:
                    time.sleep(0.01)
                finished.append(journal.read_text().count("non_finite"))
                raise KeyboardInterrupt
            yield item

    with pytest.raises(KeyboardInterrupt):
        run_merge(recipe, tmp_path / "m", cut_short)
    assert finished[0] >= 1
    result = run_merge(recipe, tmp_path / "m")
    assert any("were finished before" in note for note in result.notes)
    assert [note.split(": ")[1] for note in result.notes if "NaN" in note] == names
