"""Faults of stores and of what lies in them: told in one line that names the URL, and never filled in."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.checkpoint.remote import fsspec_store, store
from vlsurgery.surgery.checkpoint.remote.store import UnreachableError
from vlsurgery.surgery.errors import CheckpointError

Write = Callable[..., Path]
Llama = Callable[..., dict[str, Tensor]]
Upload = Callable[[Path], str]
Folders = Callable[[str], dict[str, Path]]


@pytest.fixture(autouse=True)
def no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "WAIT_SECONDS", 0.0)


class Broken:
    """A store whose replies a test spoils: `spoil` is given each, and gives another or raises."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[bytes], bytes]) -> None:
        self.asked = 0
        whole = fsspec_store.FsspecStore.read

        def read(held: Any, name: str, start: int, stop: int, expected: Any) -> bytes:
            self.asked += 1
            return spoil(whole(held, name, start, stop, expected))

        monkeypatch.setattr(fsspec_store.FsspecStore, "read", read)


def fail(error: Exception) -> Callable[[bytes], bytes]:
    def spoil(data: bytes) -> bytes:
        raise error

    return spoil


@pytest.mark.parametrize(
    ("spoil", "asked", "said"),
    [
        (lambda data: data[:-1], 3, r"bytes \d+ to \d+: can't be had \(15 bytes came of 16: cut off, .*, 3 times\)"),
        (lambda data: data[:0], 3, "0 bytes came of 16"),
        (fail(OSError("connection reset")), 3, r"connection reset, 3 times\). Check the URL"),
        (fail(RuntimeError("a library's own")), 3, "a library's own"),
        (fail(PermissionError("Access Denied")), 1, "no access .Access Denied.* Give credentials by environment"),
        (fail(FileNotFoundError("gone")), 1, "went away after it was found"),
    ],
)
def test_a_reply_that_is_short_or_fails_is_asked_for_again_and_then_told(
    folders: Folders,
    upload: Upload,
    monkeypatch: pytest.MonkeyPatch,
    spoil: Callable[[bytes], bytes],
    asked: int,
    said: str,
) -> None:
    checkpoint = Checkpoint.open(upload(folders("single")["base"]))
    broken = Broken(monkeypatch, spoil)
    with pytest.raises(CheckpointError, match=rf"^memory://\S+/base/model\.safetensors: .*{said}"):
        checkpoint["model.norm.weight"].read(0, 4)
    assert broken.asked == asked


def test_a_fault_that_goes_away_is_not_told(folders: Folders, upload: Upload, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folders("single")["base"]
    checkpoint, faults = Checkpoint.open(upload(path)), [OSError("once"), OSError("twice")]

    def spoil(data: bytes) -> bytes:
        if faults:
            raise faults.pop()
        return data

    Broken(monkeypatch, spoil)
    tensor = Checkpoint.open(path)["model.norm.weight"].load()
    assert checkpoint["model.norm.weight"].load().equal(tensor)


def test_a_request_that_hangs_is_given_up(folders: Folders, upload: Upload, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint, released = Checkpoint.open(upload(folders("single")["base"])), threading.Event()
    Broken(monkeypatch, lambda data: data[: released.wait(60) * len(data)])
    monkeypatch.setattr(store, "REQUEST_SECONDS", 0.05)
    with pytest.raises(UnreachableError, match=r"nothing in 0\.05 seconds, 3 times"):
        checkpoint["model.norm.weight"].load()
    released.set()


def test_an_object_that_was_cut_off_is_no_zeros(folders: Folders, upload: Upload, files: Any) -> None:
    url = upload(folders("single")["base"])
    checkpoint = Checkpoint.open(url)
    place = url.removeprefix("memory:/") + "/model.safetensors"
    files.pipe_file(place, files.cat_file(place)[:-40])
    last = max(checkpoint.values(), key=lambda tensor: tensor.offset)
    with pytest.raises(CheckpointError, match="cut off, or changed after it was found"):
        last.load()
    with pytest.raises(CheckpointError, match=r"^memory://\S+/base/model\.safetensors: .*truncated"):
        Checkpoint.open(url)


def spoilt(files: Any, url: str, **contents: bytes | None) -> str:
    """The checkpoint with some of its files replaced, or taken away."""
    for name, content in contents.items():
        place = f"{url.removeprefix('memory:/')}/{name}"
        if content is None:
            files.rm_file(place)
        else:
            files.pipe_file(place, content)
    return url


INDEX, SINGLE, SHARD = "model.safetensors.index.json", "model.safetensors", "model-00001-of-00003.safetensors"


def index_of(file: str) -> bytes:
    return json.dumps({"weight_map": {"model.norm.weight": file}}).encode()


@pytest.mark.parametrize(
    ("layout", "contents", "said"),
    [
        ("single", {"config.json": None}, "no config.json beside the weights"),
        ("single", {"config.json": b"{"}, r"/base/config\.json: not valid JSON"),
        ("single", {"adapter_config.json": b"{}"}, "holds a whole model and an adapter_config.json"),
        ("single", {SINGLE: None, "adapter_config.json": b"{}"}, "a LoRA adapter, not a whole model"),
        ("single", {SINGLE: None, "pytorch_model.bin": b"x"}, r"only pickled weights \(pytorch_model.bin\).* at a URL"),
        ("single", {SINGLE: None, "x.safetensors": b"x"}, "its only weight file is x.safetensors"),
        ("single", {SINGLE: None, "x.gguf": b"x"}, r"x\.gguf: GGUF weights"),
        ("single", {SINGLE: None}, "not a checkpoint: neither"),
        ("single", {SINGLE: b"version https://git-lfs.github.com/spec/v1\n"}, "a Git LFS pointer"),
        ("single", {SINGLE: b"\xff" * 16}, "not a safetensors file, or truncated"),
        ("sharded", {SHARD: None}, rf"shard {SHARD} is missing"),
        ("sharded", {INDEX: index_of("../model.safetensors")}, "names a shard outside of the checkpoint"),
        ("sharded", {INDEX: index_of("/etc/passwd")}, "names a shard outside of the checkpoint"),
        ("sharded", {INDEX: index_of(SHARD)}, "places tensor 'model.norm.weight' in"),
    ],
)
def test_faults_are_those_of_a_directory_and_name_the_url(
    folders: Folders,
    upload: Upload,
    files: Any,
    layout: str,
    contents: dict[str, bytes | None],
    said: str,
) -> None:
    url = spoilt(files, upload(folders(layout)["base"]), **contents)
    with pytest.raises(CheckpointError, match=said) as caught:
        Checkpoint.open(url, allow_pickle=True)
    assert str(caught.value).startswith(url)
    assert "vlsurgery-" not in str(caught.value)


def test_a_stale_index_is_left_aside(folders: Folders, upload: Upload, files: Any) -> None:
    path = folders("single")["base"]
    url = spoilt(files, upload(path), **{INDEX: index_of("elsewhere.safetensors")})
    checkpoint = Checkpoint.open(url)
    assert "is stale" in checkpoint.notes[0]
    assert checkpoint.identity == Checkpoint.open(path).identity


@pytest.mark.parametrize(
    ("ref", "said"),
    [
        ("memory://nowhere/model", "nothing is there"),
        ("nonsense://bucket/model", "no protocol nonsense:// is known"),
        ("file:///models/llama", "Give its path, without file://"),
        ("hf://org/name", "Give org/name or org/name@revision"),
        ("s3:///", "names no place"),
        ("https://me:hunter2@host/model", "the URL holds a user with a password"),
        ("https://me:hun/ter2@host/hunter2", "the URL holds a user with a password"),
        ("https://hunter2@host/model", "the URL holds a user with a password"),
        ("s3://AKIA:hunter2@bucket/model", "the URL holds a user with a password"),
        ("https://host/model?X-Amz-Signature=hunter2", "or a query"),
        ("s3://bucket/model?versionId=hunter2", "or a query"),
        ("https://host/model#hunter2", "or a query"),
    ],
)
def test_a_url_that_is_refused_is_told_without_its_secret(ref: str, said: str) -> None:
    with pytest.raises(CheckpointError, match=said) as caught:
        Checkpoint.open(ref)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("protocol", "how"), [("s3", r"vlsurgery\[s3\]"), ("gs", r"vlsurgery\[gcs\]"), ("abfs", "adlfs")]
)
def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, protocol: str, how: str) -> None:
    def without(url: str, **_: Any) -> Any:
        raise ImportError("Install adlfs to access Azure")

    monkeypatch.setattr("fsspec.core.url_to_fs", without)
    with pytest.raises(CheckpointError, match=rf"{protocol}:// needs a package that is not installed.*{how}"):
        Checkpoint.open(f"{protocol}://bucket/model")


def test_a_directory_whose_name_is_a_url_wins(
    tmp_path: Path, write: Write, llama: Llama, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "s3:" / "bucket" / "model", llama())
    assert Checkpoint.open("s3://bucket/model").remote is None


def test_a_file_is_no_folder(folders: Folders, upload: Upload) -> None:
    url = upload(folders("single")["base"])
    with pytest.raises(CheckpointError, match=r"is a file\. Give the folder"):
        Checkpoint.open(f"{url}/model.safetensors")


def test_a_checkpoint_on_disk_brings_in_nothing_for_urls(tmp_path: Path, write: Write, llama: Llama) -> None:
    script = (
        "import sys; from vlsurgery.surgery.checkpoint import Checkpoint; Checkpoint.open(sys.argv[1]).identity; "
        "print(sorted({'fsspec', 'httpx', 'torch'} & set(sys.modules)))"
    )
    words = [sys.executable, "-P", "-c", script, str(write(tmp_path / "model", llama()))]
    assert subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip() == "[]"
