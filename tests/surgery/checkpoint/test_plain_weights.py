"""Tensors that stand for weights and are none are refused by name; those of audio towers are left alone."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from vlsurgery.surgery.alignment import align
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.errors import CheckpointError

Llama = Callable[..., dict[str, Tensor]]
Write = Callable[..., Path]
UP = "model.layers.1.mlp.up_proj."


@pytest.mark.parametrize(
    ("endings", "words"),
    [
        (["parametrizations.weight.original0", "parametrizations.weight.original1"], "remove_parametrizations"),
        (["weight_g", "weight_v"], "remove_weight_norm"),
        (["weight_orig", "weight_mask"], "prune.remove"),
        (["original_module.weight", "modules_to_save.default.weight"], "merge_and_unload"),
    ],
)
def test_what_stands_for_a_weight_is_refused(
    tmp_path: Path, write: Write, llama: Llama, endings: list[str], words: str
) -> None:
    odd = llama(2)
    weight = odd.pop(UP + "weight")
    odd |= {UP + ending: weight.clone() for ending in endings}
    both = {"base": write(tmp_path / "b", llama(1)), "adapted": write(tmp_path / "a", odd)}
    with pytest.raises(CheckpointError, match=f"{UP}{endings[0]}.*{words}") as caught:
        align({role: Checkpoint.open(path) for role, path in both.items()})
    assert "\n" not in str(caught.value)


def test_weight_norm_of_audio_towers_and_vocoders_is_their_own(tmp_path: Path, write: Write, llama: Llama) -> None:
    places = ("audio_tower.pos_conv_embed.conv", "tts.head_code.0")
    heard = {f"{place}.parametrizations.weight.original{n}": torch.ones(4) for place in places for n in (0, 1)}
    both = {"base": write(tmp_path / "b", llama(1)), "adapted": write(tmp_path / "a", {**llama(2), **heard})}
    assert align({role: Checkpoint.open(path) for role, path in both.items()}).pairs


@pytest.mark.parametrize("name", ["mm_proj", "resampler", "vision_adapter"])
def test_a_projector_with_as_many_rows_as_tokens_is_no_head(
    tmp_path: Path, write: Write, llama: Llama, name: str
) -> None:
    tied = {seed: {key: value for key, value in llama(seed).items() if key != "lm_head.weight"} for seed in (1, 2)}
    seen = {**tied[2], f"{name}.weight": torch.ones(tied[2]["model.embed_tokens.weight"].shape)}
    both = {"base": write(tmp_path / "b", tied[1]), "adapted": write(tmp_path / "a", seen)}
    paired = align({role: Checkpoint.open(path) for role, path in both.items()})
    assert f"{name}.weight" not in {pair.parts["adapted"].name for pair in paired.pairs}


def test_a_table_of_each_layer_grows_by_what_the_configs_say(tmp_path: Path, write: Write, llama: Llama) -> None:
    sizes = {"num_hidden_layers": 2, "hidden_size": 16, "vocab_size": 40}
    both = {}
    for role, rows in {"base": 32, "adapted": 36}.items():
        config = {**sizes, "vocab_size_per_layer_input": rows}
        table = {"model.ple_table.weight": torch.ones(rows, 6)}
        both[role] = Checkpoint.open(write(tmp_path / role, {**llama(1), **table}, config=config))
    shapes = {pair.parts["adapted"].name: pair.shape for pair in align(both).pairs}
    assert shapes["model.ple_table.weight"] == (32, 6)
