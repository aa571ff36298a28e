"""Of two stacks that look alike, the config tells which is the text; where it is silent, the user does, once."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from vlsurgery.surgery.alignment import align
from vlsurgery.surgery.architecture.identify import identify
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.checkpoint.anatomy import describe
from vlsurgery.surgery.checkpoint.text_stack import choose_text_stacks
from vlsurgery.surgery.errors import AlignmentError, CheckpointError, RecipeError
from vlsurgery.surgery.merge.recipe import Recipe
from vlsurgery.surgery.merge.run import run_merge
from vlsurgery.surgery.mergekit import load_recipe

Llama = Callable[..., dict[str, Tensor]]
Write = Callable[..., Path]
CONFIG = {"num_hidden_layers": 2, "hidden_size": 16, "vocab_size": 40}


def twins(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Two whole language models in one file, under `talker` and `thinker`."""
    return {
        f"{name}.{key}": tensor.clone()
        for name, model in {"talker": first, "thinker": second}.items()
        for key, tensor in model.items()
    }


@pytest.fixture
def two(tmp_path: Path, write: Write, llama: Llama) -> Path:
    return write(tmp_path / "two", twins(llama(1), llama(2)))


@pytest.mark.parametrize(
    ("change", "config"),
    [
        ({"embed": (64, 16)}, CONFIG),
        ({"up_proj": (48, 16), "gate_proj": (48, 16), "down_proj": (16, 48)}, {**CONFIG, "intermediate_size": 24}),
        ({}, {"thinker_config": {"text_config": CONFIG}}),
        ({}, {"text_config": CONFIG, "talker_config": CONFIG}),
        ({"layers.1": None}, CONFIG),
    ],
    ids=["vocabulary", "width inside", "section", "another's section", "layers"],
)
def test_what_the_config_says_decides(llama: Llama, change: dict[str, Any], config: dict[str, Any]) -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in twins(llama(), llama()).items()}
    for word, shape in change.items():
        for name in [name for name in shapes if name.startswith("talker") and word in name]:
            if shape is None:
                del shapes[name]
            else:
                shapes[name] = shape
    sites = identify(shapes, config)
    assert sites["thinker.model.layers.1.mlp.up_proj.weight"].key == "text.1.mlp.up"
    assert all(site.tower != "text" for name, site in sites.items() if name.startswith("talker"))


def test_where_nothing_tells_both_names_and_the_option_are_said(two: Path) -> None:
    words = r"two: .*'talker\.model\.layers' and 'thinker\.model\.layers'.*--text-stack talker\.model\.layers"
    with pytest.raises(AlignmentError, match=words):
        describe(Checkpoint.open(two))
    chosen = describe(Checkpoint.open(two, text_stack="talker.model.layers"))
    assert {each.name for each in chosen.tensors if each.layer == 0 and each.tower == "text"} == {
        name for name in Checkpoint.open(two) if name.startswith("talker.model.layers.0.")
    }
    with pytest.raises(AlignmentError, match=r"no text stack called talker\.layers"):
        describe(Checkpoint.open(two, text_stack="talker.layers"))


@pytest.mark.parametrize("wrapper", ["module.", "_orig_mod."])
def test_the_name_may_be_given_with_wrappers_or_without(two: Path, llama: Llama, wrapper: str) -> None:
    shapes = {wrapper + name: tuple(tensor.shape) for name, tensor in twins(llama(), llama()).items()}
    for name in ("talker.model.layers", f"{wrapper}talker.model.layers"):
        sites = identify(shapes, CONFIG, name)
        assert sites[f"{wrapper}talker.model.layers.0.mlp.up_proj.weight"].key == "text.0.mlp.up"


def test_the_choice_holds_for_whoever_has_such_a_stack(two: Path, tmp_path: Path, write: Write, llama: Llama) -> None:
    base, adapted = Checkpoint.open(write(tmp_path / "base", llama(3))), Checkpoint.open(two)
    with pytest.raises(AlignmentError, match=r"--text-stack other\.layers: no checkpoint .* model\.layers"):
        choose_text_stacks([base, adapted], ["other.layers"])
    with pytest.raises(AlignmentError, match=re.escape("holds talker.model.layers and thinker.model.layers")):
        choose_text_stacks([base, adapted], ["talker.model.layers", "thinker.model.layers"])
    choose_text_stacks([base, adapted], ["thinker.model.layers"])
    assert (base.text_stack, adapted.text_stack) == (None, "thinker.model.layers")
    assert Checkpoint.reopen(adapted.ref_model).text_stack == "thinker.model.layers"
    assert "text_stack" not in base.ref_model.model_dump()


def test_a_recipe_keeps_it_and_only_that_stack_is_merged(two: Path, tmp_path: Path, write: Write, llama: Llama) -> None:
    checkpoints = {
        "base": Checkpoint.open(write(tmp_path / "base", llama(3))),
        "adapted": Checkpoint.open(two, text_stack="thinker.model.layers"),
    }
    align(checkpoints)
    recipe = Recipe.of(checkpoints, {"default": {"base": 1.0}})
    recipe.save(tmp_path / "recipe.yaml")
    loaded = load_recipe(tmp_path / "recipe.yaml")
    assert loaded == recipe
    run_merge(loaded, tmp_path / "out")
    merged, first = Checkpoint.open(tmp_path / "out"), llama(1)
    up = "model.layers.1.mlp.up_proj.weight"
    assert merged[f"thinker.{up}"].load().equal(checkpoints["base"][up].load())
    assert merged[f"talker.{up}"].load().equal(first[up])
    with pytest.raises(RecipeError, match=r"--text-stack out, and write text_stack: thinker\.model\.layers"):
        load_recipe(tmp_path / "recipe.yaml", text_stacks=["thinker.model.layers"])


def test_only_an_existing_checkpoint_is_opened(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError):
        Checkpoint.open(tmp_path / "none", text_stack="model.layers")
