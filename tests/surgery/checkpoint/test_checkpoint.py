"""A checkpoint is read as it was written, and what is not one says so."""

import contextlib
import json
import os
import tempfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors
import torch
from hypothesis import HealthCheck, given, settings, strategies as st
from packaging.version import Version
from torch import Tensor

from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.checkpoint.shards import INDEX, SINGLE
from vlsurgery.surgery.errors import CheckpointError

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


def test_a_whole_model_with_an_adapters_settings_is_refused(tmp_path: Path, write: Write, llama: Llama) -> None:
    (write(tmp_path, llama()) / "adapter_config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"holds a whole model and an adapter_config\.json"):
        Checkpoint.open(tmp_path)


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
        ("attn.bias", torch.uint8, {}, None),
        ("a.weight", torch.float32, {"quantization": {"group_size": 64, "bits": 4}}, "mlx"),
        ("a.weight", torch.float32, {"a": {"b": {"quantization_config": {"quant_method": "awq"}}}}, "awq"),
        ("a.W_q", torch.uint8, {}, "hqq"),
        ("a.codes", torch.int16, {}, "aqlm"),
        ("a.codes", torch.float32, {}, None),
        ("a.weight_scale_inv", torch.float32, {}, "fp8"),
        ("a.SCB", torch.float32, {}, "bitsandbytes"),
        ("mlp.experts.down_proj_blocks", torch.uint8, {}, "mxfp4"),
        ("a.weight", torch.uint8, {}, "unknown scheme: a.weight is U8"),
        ("a.weight", torch.float8_e4m3fn, {}, "unknown scheme: a.weight is F8_E4M3"),
    ],
)
def test_quantised_weights_are_told_and_their_scheme_is_named(
    tmp_path: Path, write: Write, name: str, dtype: torch.dtype, config: dict[str, Any], scheme: str | None
) -> None:
    assert Checkpoint.open(write(tmp_path, {name: torch.zeros(2).to(dtype)}, config)).quantised == scheme


@pytest.mark.parametrize(
    ("held", "scheme"),
    [
        pytest.param(
            {"a.weight": torch.uint32, "a.scales": torch.float16, "a.biases": torch.float16},
            "mlx",
            marks=pytest.mark.skipif(
                Version(safetensors.__version__) < Version("0.6"), reason="safetensors before 0.6 writes no uint32"
            ),
        ),
        ({"a.packed": torch.uint8, "a.scale": torch.float16}, "unknown scheme: a.packed is U8"),
        ({"a.packed": torch.int32, "a.zeros": torch.float16}, "unknown scheme: a.packed is I32"),
        ({"a.B": torch.int32, "a.s": torch.float16}, "marlin"),
        ({"a.dense_weights": torch.int64, "a.row_offsets": torch.int32}, "spqr"),
        (
            {"a.up_proj.weight_q": torch.uint8, "a.up_proj.weight_s": torch.float32},
            "unknown scheme: a.up_proj.weight_q is U8",
        ),
        ({"a.position_index": torch.int64, "a.logit_scale": torch.float32}, None),
        ({"a.position_index": torch.int32, "a.logit_scale": torch.float32}, None),
        ({"a.mask": torch.bool, "a.scale": torch.float32}, None),
        ({"bn.num_batches_tracked": torch.int64, "bn.weight": torch.float32, "bn.bias": torch.float32}, None),
    ],
)
def test_integers_beside_what_decodes_them_are_quantised(
    tmp_path: Path, write: Write, held: dict[str, torch.dtype], scheme: str | None
) -> None:
    tensors = {name: torch.zeros(2, 2).to(dtype) for name, dtype in held.items()}
    assert Checkpoint.open(write(tmp_path, tensors, {})).quantised == scheme


def test_faults_name_the_file_and_the_next_step(tmp_path: Path, write: Write, llama: Llama) -> None:
    path = write(tmp_path / "c", llama(), shards=2)
    first, second = sorted(path.glob("*.safetensors"))
    whole = first.read_bytes()
    first.write_bytes(b"")
    assert f"{first}: truncated: 0 bytes" in refused(path)
    first.write_bytes(whole[:-1])
    message = refused(path)
    assert str(first) in message
    assert "truncated" in message
    assert "Download" in message
    first.write_bytes((1 << 40).to_bytes(8, "little") + whole[8:])
    assert "header claims 1099511627776 bytes" in refused(path)
    first.unlink()
    first.symlink_to(second)
    assert "is in both" in refused(path)
    first.unlink()
    outside = tmp_path / "outside.safetensors"
    outside.write_bytes(whole)
    first.symlink_to(outside)
    assert f"a link out of the checkpoint, to {outside}" in refused(path)
    first.unlink()
    first.mkdir()
    assert "a file was expected" in refused(path)


def test_a_header_longer_than_the_format_allows_is_refused_before_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with (tmp_path / SINGLE).open("wb") as file:
        file.write((200_000_000).to_bytes(8, "little"))
        file.truncate(1 << 33)
    tracemalloc.start()
    assert "the format allows 100000000" in refused(tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000
    (tmp_path / SINGLE).unlink()
    with (tmp_path / INDEX).open("wb") as file:
        file.truncate(1 << 33)
    assert "the most that is read" in refused(tmp_path)


def test_pipes_and_devices_never_hang_it(tmp_path: Path, write: Write, llama: Llama) -> None:
    path = write(tmp_path / "c", llama())
    for name in (SINGLE, "config.json", INDEX):
        (tmp_path / "held").unlink(missing_ok=True)
        if (path / name).exists():
            (path / name).rename(tmp_path / "held")
        os.mkfifo(path / name)
        if name != INDEX:
            refused(path)
        else:
            assert len(Checkpoint.open(path)) == len(llama())
        (path / name).unlink()
        if (tmp_path / "held").exists():
            (tmp_path / "held").rename(path / name)


JSON = st.recursive(
    st.none() | st.integers() | st.text(max_size=8) | st.sampled_from(["../x", "/etc/passwd", "a.safetensors", SINGLE]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(index=JSON | st.builds(dict, weight_map=JSON), config=JSON, shard=st.binary(max_size=64))
def test_any_index_config_and_shard_are_an_error_or_a_checkpoint(
    tmp_path_factory: pytest.TempPathFactory, index: Any, config: Any, shard: bytes
) -> None:
    path = tmp_path_factory.mktemp("c")
    (path / INDEX).write_text(json.dumps(index))
    (path / "config.json").write_text(json.dumps(config))
    (path / "a.safetensors").write_bytes(shard)
    with contextlib.suppress(CheckpointError):
        Checkpoint.open(path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(data=st.data())
def test_a_damaged_checkpoint_is_an_error_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, write: Write, llama: Llama, data: st.DataObject
) -> None:
    tensors = {name: tensor for name, tensor in llama(layers=1).items() if tensor.dim() == 1}
    path = write(tmp_path_factory.mktemp("c"), tensors, shards=2)
    file = data.draw(st.sampled_from(sorted(path.iterdir())))
    content = bytearray(file.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        # Mostly where the header is: a flipped weight is no fault that a header could show.
        place = data.draw(st.integers(0, min(len(content), 400) - 1))
        content[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    file.write_bytes(content)
    tracemalloc.start()
    with contextlib.suppress(CheckpointError):
        opened = Checkpoint.open(path)
        assert sum(tensor.nbytes for tensor in opened.values()) <= sum(other.stat().st_size for other in path.iterdir())
        assert opened.quantised is None or opened.quantised
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000


def pickled(path: Path, tensors: dict[str, Any], shards: int = 1) -> Path:
    """A checkpoint as it was written before safetensors."""
    path.mkdir()
    (path / "config.json").write_text("{}")
    if shards == 1:
        torch.save(tensors, path / "pytorch_model.bin")
        return path
    weight_map = {name: f"pytorch_model-{i % shards + 1:05}-of-{shards:05}.bin" for i, name in enumerate(tensors)}
    for file in set(weight_map.values()):
        torch.save({name: tensor for name, tensor in tensors.items() if weight_map[name] == file}, path / file)
    (path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return path


@pytest.mark.parametrize("shards", [1, 3])
def test_pickled_weights_are_refused_and_read_when_asked_for(tmp_path: Path, llama: Llama, shards: int) -> None:
    tensors = llama(dtype=torch.bfloat16)
    tensors["turned"] = torch.arange(6.0).reshape(2, 3).T
    path = pickled(tmp_path / "c", tensors, shards)
    assert "--allow-pickle" in refused(path)
    checkpoint = Checkpoint.open(path, allow_pickle=True)
    assert set(checkpoint) == set(tensors)
    for name, tensor in tensors.items():
        assert torch.equal(checkpoint[name].load(), tensor)
        buffer = bytearray(3)
        checkpoint[name].read_into(memoryview(buffer), 1)
        assert bytes(buffer) == tensor.contiguous().reshape(-1).view(torch.uint8)[1:4].numpy().tobytes()
    assert len(checkpoint.shards) == shards
    assert all(file.endswith(".safetensors") for file in checkpoint.shards)
    assert checkpoint.identity == Checkpoint.open(path, allow_pickle=True).identity


def test_safetensors_are_preferred_to_pickled_weights(tmp_path: Path, write: Write, llama: Llama) -> None:
    path = pickled(tmp_path / "c", {"other": torch.ones(1)})
    assert set(Checkpoint.open(write(path, llama()), allow_pickle=True)) == set(llama())


class Harmful:
    """What a pickled file can hold: code that runs when it is loaded."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(Path(tempfile.gettempdir()) / "harm-was-done"),)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_pickled_code_is_never_run(tmp_path: Path) -> None:
    for number, content in enumerate(({"a": Harmful()}, {"a": 1}, [torch.ones(1)], {"a": {"b": torch.ones(1)}}, {})):
        path = pickled(tmp_path / str(number), content)
        with pytest.raises(CheckpointError) as caught:
            Checkpoint.open(path, allow_pickle=True)
        assert str(path) in str(caught.value)
    assert not (Path(tempfile.gettempdir()) / "harm-was-done").exists()
    for number, content in enumerate((b"", b"\x80\x04", b"PK\x03\x04" + bytes(50), b"x" * 100)):
        path = pickled(tmp_path / f"damaged-{number}", {"a": torch.ones(1)})
        (path / "pytorch_model.bin").write_bytes(content)
        with pytest.raises(CheckpointError, match="weights only"):
            Checkpoint.open(path, allow_pickle=True)
