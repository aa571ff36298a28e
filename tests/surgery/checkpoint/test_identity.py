"""Identity is content: copies agree, other weights differ, and times mean nothing."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies as st
from safetensors.torch import save_file
from torch import Tensor

from vlsurgery.surgery.checkpoint import Checkpoint, digests
from vlsurgery.surgery.checkpoint.contents import check_contents, contents_digest, take_contents
from vlsurgery.surgery.checkpoint.digests import file_digests
from vlsurgery.surgery.checkpoint.identity import BLOCK_BYTES, MAX_WHOLE_BYTES, spaced_blocks
from vlsurgery.surgery.errors import CheckpointError

Write = Callable[..., Path]
Llama = Callable[..., dict[str, Tensor]]
Flip = Callable[[Path, int], None]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of hashes that believes in files of any age."""
    monkeypatch.setattr(digests, "user_cache_path", lambda name: tmp_path / "cache" / name)
    monkeypatch.setattr(digests, "MIN_AGE", 0.0)
    return tmp_path / "cache" / "vlsurgery" / digests.CACHE


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of which a sample is read: 64 tensors in 16 MiB."""
    folder = tmp_path_factory.mktemp("long")
    generator = torch.Generator().manual_seed(0)
    tensors = {f"model.layers.{n}.weight": torch.randn(256, 256, generator=generator) for n in range(64)}
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    save_file(tensors, folder / "model.safetensors")
    assert (folder / "model.safetensors").stat().st_size > 3 * MAX_WHOLE_BYTES
    return folder


def between_samples(checkpoint: Checkpoint) -> int:
    """The place of a byte of a tensor that no sampled block holds."""
    (header,) = checkpoint.shards.values()
    taken = set(spaced_blocks(header.size)) | {
        (entry.offset + entry.nbytes // 2) // BLOCK_BYTES for entry in header.entries
    }
    return next(block for block in range(2, header.size // BLOCK_BYTES) if block not in taken) * BLOCK_BYTES + 7


def test_a_copy_is_the_same_checkpoint_whenever_it_was_made(tmp_path: Path, write: Write, llama: Llama) -> None:
    first = Checkpoint.open(write(tmp_path / "a", llama(), shards=3))
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    for file in (tmp_path / "b").iterdir():
        os.utime(file, ns=(0, 0))
    copy = Checkpoint.open(tmp_path / "b")
    assert first.identity.startswith("sha256:")
    assert copy.identity == first.identity
    assert copy.stamp != first.stamp
    assert copy.is_known_as(copy.stamp)
    assert not copy.is_known_as(first.stamp)
    (tmp_path / "b" / "config.json").write_text(json.dumps({"model_type": "llama", "more": 1}))
    assert Checkpoint.open(tmp_path / "b").identity == first.identity


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_of_a_short_checkpoint_every_byte_counts(
    flip: Flip, tmp_path_factory: pytest.TempPathFactory, write: Write, llama: Llama, data: st.DataObject
) -> None:
    folder = write(tmp_path_factory.mktemp("short"), llama(), shards=2)
    first = Checkpoint.open(folder)
    identity = first.identity
    file = data.draw(st.sampled_from(sorted(folder.glob("*.safetensors"))))
    entry = data.draw(st.sampled_from(first.shards[file.name].entries))
    flip(file, entry.offset + data.draw(st.integers(0, entry.nbytes - 1)))
    assert Checkpoint.open(folder).identity != identity


@pytest.mark.parametrize("only", [0, 31, 63])
def test_of_a_long_one_a_single_tensor_that_was_trained_is_found(tmp_path: Path, long: Path, only: int) -> None:
    first = Checkpoint.open(long)
    shutil.copytree(long, tmp_path / "trained")
    entry = first[f"model.layers.{only}.weight"].entry
    with (tmp_path / "trained" / "model.safetensors").open("r+b") as file:
        file.seek(entry.offset)
        file.write((first[entry.name].load() * 1.0001).numpy().tobytes())
    assert Checkpoint.open(tmp_path / "trained").identity != first.identity


@given(size=st.integers(1, 1 << 40), count=st.integers(0, 300))
def test_spaced_blocks_rise_from_the_first_to_the_last(size: int, count: int) -> None:
    blocks = spaced_blocks(size, count)
    last = (size - 1) // BLOCK_BYTES
    assert blocks[0] == 0
    assert blocks[-1] == last
    assert list(blocks) == sorted(set(blocks))
    assert len(blocks) <= (last + 1 if size <= MAX_WHOLE_BYTES else max(2, count))
    gaps = {after - before for before, after in pairwise(blocks)}
    assert not gaps or max(gaps) - min(gaps) <= 1


def test_a_byte_that_no_sample_holds_is_found_by_its_contents(tmp_path: Path, long: Path, flip: Flip) -> None:
    shutil.copytree(long, tmp_path / "model")
    first = Checkpoint.open(tmp_path / "model")
    identity = first.identity
    contents = take_contents({"base": first})["base"]
    file = tmp_path / "model" / "model.safetensors"
    assert contents == {file.name: hashlib.sha256(file.read_bytes()).hexdigest()}
    check_contents({"base": first}, {"base": contents})
    flip(file, between_samples(first))
    changed = Checkpoint.open(tmp_path / "model")
    assert changed.identity == identity
    assert changed.stamp == first.stamp, "the modification time was kept"
    for reread in (False, True):
        with pytest.raises(CheckpointError, match=r"^base \(.*\): model\.safetensors: not the bytes.*vlsurgery diff"):
            check_contents({"base": changed}, {"base": contents}, reread=reread)


def test_contents_name_what_was_added_and_what_is_gone(tmp_path: Path, write: Write, llama: Llama) -> None:
    checkpoint = Checkpoint.open(write(tmp_path, llama(), shards=2))
    contents = take_contents({"x": checkpoint})["x"]
    assert sorted(contents) == sorted(checkpoint.shards)
    first, second = contents
    with pytest.raises(CheckpointError, match=f": {first}:"):
        check_contents({"x": checkpoint}, {"x": {second: contents[second]}})
    with pytest.raises(CheckpointError, match=": other:"):
        check_contents({"x": checkpoint}, {"x": {**contents, "other": "0" * 64}})
    assert contents_digest(dict(reversed(contents.items()))) == contents_digest(contents)


def test_a_file_is_hashed_once_and_again_when_it_was_touched(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, read = tmp_path / "file", []
    whole = digests.file_digest
    monkeypatch.setattr(digests, "file_digest", lambda path: (read.append(path), whole(path))[1])
    for content in (b"before", b"beyond"):
        file.write_bytes(content)
        os.utime(file, ns=(0, 0))
        for _ in range(2):
            assert file_digests([file]) == {file: hashlib.sha256(content).hexdigest()}
    assert len(read) == 2
    file_digests([file], reread=True)
    assert len(read) == 3
    cache.write_bytes(b"\xff\x00 damaged\n" + cache.read_bytes().split(b"\n")[-2][:-10])
    assert file_digests([file]) == {file: hashlib.sha256(b"beyond").hexdigest()}
    assert len(read) == 4


def test_a_file_of_this_moment_is_not_trusted(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "MIN_AGE", 2.0)
    (tmp_path / "file").write_bytes(b"new")
    file_digests([tmp_path / "file"])
    assert not cache.exists()


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path: Path, cache: Path) -> None:
    cache.parent.parent.parent.mkdir(exist_ok=True)
    cache.parent.parent.write_text("in the way")
    (tmp_path / "file").write_bytes(b"x")
    assert file_digests([tmp_path / "file"]) == {tmp_path / "file": hashlib.sha256(b"x").hexdigest()}
    with pytest.raises(CheckpointError, match=r"gone.*can't be read"):
        file_digests([tmp_path / "gone"])


def test_pickled_weights_have_an_identity_of_their_bytes_too(tmp_path: Path, write: Write, llama: Llama) -> None:
    tensors = {**llama(), "model.long.weight": torch.zeros(3, MAX_WHOLE_BYTES // 4)}
    write(tmp_path / "a", llama())
    (tmp_path / "a" / "model.safetensors").unlink()
    file = tmp_path / "a" / "pytorch_model.bin"
    torch.save(tensors, file)
    first = Checkpoint.open(tmp_path / "a", allow_pickle=True)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert Checkpoint.open(tmp_path / "b", allow_pickle=True).identity == first.identity
    assert list(take_contents({"a": first})["a"]) == [file.name]
    tensors["model.long.weight"][1, 12345] = 1  # The archive's own checksum of the tensor tells.
    identity = first.identity
    torch.save(tensors, file)
    assert Checkpoint.open(tmp_path / "a", allow_pickle=True).identity != identity


def test_an_adapter_is_its_weights_and_settings(tmp_path: Path, write: Write, llama: Llama) -> None:
    write(tmp_path / "base", llama())
    adapter, name = tmp_path / "adapter", "model.layers.0.self_attn.q_proj"
    adapter.mkdir()
    factors = {
        f"base_model.model.{name}.lora_{part}.weight": torch.ones(shape)
        for part, shape in (("A", (2, 16)), ("B", (16, 2)))
    }
    settings = {"peft_type": "LORA", "lora_alpha": 4, "r": 2, "target_modules": ["q_proj"]}

    def made(folder: Path) -> Checkpoint:
        save_file(factors, folder / "adapter_model.safetensors")
        (folder / "adapter_config.json").write_text(json.dumps(settings))
        return Checkpoint.open(f"{tmp_path / 'base'}+{folder}")

    first = made(adapter)
    known = {first.identity}
    shutil.copytree(tmp_path, tmp_path / "copy")
    assert Checkpoint.open(f"{tmp_path / 'copy' / 'base'}+{tmp_path / 'copy' / 'adapter'}").identity in known
    assert made(adapter).identity in known, "the same bytes, written again"
    contents = take_contents({"x": first})["x"]
    assert sorted(contents) == ["adapter_config.json", "adapter_model.safetensors", "model.safetensors"]
    settings["lora_alpha"] = 8
    known.add(made(adapter).identity)
    factors[next(iter(factors))][0, 0] = 2
    known.add(made(adapter).identity)
    known.add(Checkpoint.open(tmp_path / "base").identity)
    assert len(known) == 4
    with pytest.raises(CheckpointError, match=r": adapter_model\.safetensors, adapter_config\.json: not the bytes"):
        check_contents({"x": first}, {"x": contents})
