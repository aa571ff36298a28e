"""A checkpoint is read as it was written, and what is not one says so."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from surgery.checkpoint import Checkpoint
from surgery.errors import CheckpointError
from surgery.layout import INDEX, SINGLE

DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.uint8, torch.bool]
Write = Callable[..., Path]
Llama = Callable[..., dict[str, Tensor]]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(
    tensors=st.dictionaries(
        st.from_regex(r"[a-z]{1,4}(\.[a-z0-9]{1,4}){0,3}", fullmatch=True),
        st.tuples(st.sampled_from(DTYPES), st.lists(st.integers(0, 4), max_size=3), st.integers(0, 99)),
        min_size=1,
        max_size=8,
    ),
    shards=st.integers(1, 4),
)
def test_random_checkpoints_are_read_back_whole(
    tmp_path_factory: pytest.TempPathFactory, write: Write, tensors: dict[str, Any], shards: int
) -> None:
    def make(dtype: torch.dtype, shape: list[int], seed: int) -> Tensor:
        return (torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 10).to(dtype)

    written = {name: make(*parts) for name, parts in tensors.items()}
    checkpoint = Checkpoint.open(write(tmp_path_factory.mktemp("c"), written, shards=min(shards, len(written))))
    assert set(checkpoint) == set(written)
    for name, tensor in written.items():
        lazy = checkpoint[name]
        assert (lazy.shape, lazy.dtype, lazy.numel) == (tuple(tensor.shape), tensor.dtype, tensor.numel())
        assert torch.equal(lazy.load(), tensor)
        middle = tensor.numel() // 2
        assert torch.equal(torch.cat([lazy.read(0, middle), lazy.read(middle, tensor.numel())]), tensor.reshape(-1))


def test_what_is_loaded_is_a_copy(tmp_path: Path, write: Write, llama: Llama) -> None:
    checkpoint = Checkpoint.open(write(tmp_path, llama()))
    lazy = checkpoint["model.norm.weight"]
    lazy.load().zero_()
    assert lazy.load().any()


def test_identity_changes_with_any_rewrite_and_with_nothing_else(tmp_path: Path, write: Write, llama: Llama) -> None:
    write(tmp_path, llama(), shards=3)
    first = Checkpoint.open(tmp_path).identity
    assert first.startswith("sha256:")
    assert Checkpoint.open(tmp_path).identity == first
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "more": 1}))
    assert Checkpoint.open(tmp_path).identity == first
    shard = sorted(tmp_path.glob("*.safetensors"))[1]
    os.utime(shard, ns=(0, shard.stat().st_mtime_ns + 1))
    assert Checkpoint.open(tmp_path).identity != first


def test_extra_files_are_all_that_hold_no_weights(tmp_path: Path, write: Write, llama: Llama) -> None:
    write(tmp_path, llama(), shards=2)
    for name in ("tokenizer.json", "chat_template.jinja", "templates/extra.jinja", ".cache/x", "pytorch_model.bin"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    names = {str(path.relative_to(tmp_path)) for path in Checkpoint.open(tmp_path).extra_files}
    assert names == {"config.json", "tokenizer.json", "chat_template.jinja", "templates/extra.jinja"}
    (tmp_path / "broken.json").symlink_to(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match=r"broken\.json.*link to nothing"):
        _ = Checkpoint.open(tmp_path).extra_files


def test_a_shard_that_shrinks_after_opening_is_an_error(tmp_path: Path, write: Write, llama: Llama) -> None:
    checkpoint = Checkpoint.open(write(tmp_path, llama()))
    lazy = max(checkpoint.values(), key=lambda tensor: tensor.offset)
    os.truncate(tmp_path / SINGLE, lazy.offset + 1)
    with pytest.raises(CheckpointError, match=f"in the middle of tensor {lazy.name}"):
        lazy.load()
    (tmp_path / SINGLE).unlink()
    with pytest.raises(CheckpointError, match="No such file"):
        lazy.load()


def refused(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        Checkpoint.open(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def test_what_is_not_a_checkpoint_says_what_it_is_and_what_to_do(tmp_path: Path, write: Write, llama: Llama) -> None:
    assert "no such directory" in refused(tmp_path / "nowhere")
    assert "not a checkpoint" in refused(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    assert "pickled" in refused(tmp_path)
    assert "save_pretrained" in refused(tmp_path)
    (tmp_path / "model-00001-of-00002.safetensors").write_bytes(b"x")
    assert "Rename it" in refused(tmp_path)
    (tmp_path / "model-00002-of-00002.safetensors").write_bytes(b"x")
    assert f"no {INDEX}" in refused(tmp_path)
    (tmp_path / "adapter_config.json").write_text("{}")
    assert "LoRA" in refused(tmp_path)
    whole = write(tmp_path / "whole", llama())
    assert "is a file" in refused(whole / SINGLE)
    (whole / "config.json").write_text("{")
    assert "not valid JSON" in refused(whole)
    (whole / "config.json").unlink()
    assert "no config.json" in refused(whole)


def edit_index(path: Path, **changes: Any) -> None:
    index = json.loads((path / INDEX).read_text())
    index["weight_map"].update(changes)
    (path / INDEX).write_text(json.dumps(index))


def test_an_index_that_lies_is_refused(tmp_path: Path, write: Write, llama: Llama) -> None:
    path = write(tmp_path / "c", llama(), shards=2)
    whole = (path / INDEX).read_text()
    edit_index(path, more="model-00001-of-00002.safetensors")
    assert "'more' in model-00001-of-00002.safetensors, which does not hold it" in refused(path)
    for outside in ("../x.safetensors", "/etc/passwd", "", "a/../../x"):
        (path / INDEX).write_text(whole)
        edit_index(path, more=outside)
        assert "outside of the checkpoint" in refused(path)
    (path / INDEX).write_text(whole)
    edit_index(path, more="model-00003-of-00002.safetensors")
    assert "model-00003-of-00002.safetensors is missing" in refused(path)
    for text in ("[]", "{}", '{"weight_map": {}}', '{"weight_map": {"a": 1}}', "{", '{"weight_map": []}'):
        (path / INDEX).write_text(text)
        refused(path)
    (path / INDEX).write_text(whole)
    (path / SINGLE).write_bytes(b"x")
    assert "both" in refused(path)


def test_a_tensor_in_two_shards_is_refused(tmp_path: Path, write: Write, llama: Llama) -> None:
    from safetensors.torch import load_file, save_file

    path = write(tmp_path, llama(), shards=2)
    first, second = sorted(path.glob("*.safetensors"))
    name, tensor = next(iter(load_file(first).items()))
    save_file({**load_file(second), name: tensor}, second)
    assert f"{name!r} is in both" in refused(path)


def test_links_are_followed_inside_a_hub_cache_and_nowhere_else(tmp_path: Path, write: Write, llama: Llama) -> None:
    snapshot, blobs = tmp_path / "models--x" / "snapshots" / "abc", tmp_path / "models--x" / "blobs"
    blobs.mkdir(parents=True)
    write(snapshot, llama())
    for file in list(snapshot.iterdir()):
        file.rename(blobs / file.name)
        file.symlink_to(Path("../../blobs") / file.name)
    assert len(Checkpoint.open(snapshot)) == len(llama())
    (snapshot / SINGLE).unlink()
    (tmp_path / "elsewhere").write_bytes((blobs / SINGLE).read_bytes())
    (snapshot / SINGLE).symlink_to(tmp_path / "elsewhere")
    assert "a link out of the checkpoint" in refused(snapshot)


@pytest.mark.parametrize(
    ("name", "dtype", "config", "scheme"),
    [
        ("model.layers.0.mlp.up_proj.weight.absmax", torch.float32, {}, "bitsandbytes"),
        ("model.layers.0.mlp.up_proj.qweight", torch.int32, {}, "gptq or awq"),
        (
            "model.layers.0.mlp.up_proj.weight",
            torch.int8,
            {},
            "unknown scheme: model.layers.0.mlp.up_proj.weight is I8",
        ),
        ("a.weight", torch.float32, {"text_config": {"quantization_config": {"quant_method": "fp8"}}}, "fp8"),
        ("a.weight", torch.float32, {}, None),
        ("position_ids", torch.int64, {}, None),
    ],
)
def test_quantised_weights_are_told_and_their_scheme_is_named(
    tmp_path: Path, write: Write, name: str, dtype: torch.dtype, config: dict[str, Any], scheme: str | None
) -> None:
    assert Checkpoint.open(write(tmp_path, {name: torch.zeros(2).to(dtype)}, config)).quantised == scheme
