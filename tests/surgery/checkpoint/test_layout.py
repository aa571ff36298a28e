"""The files of everyday checkpoints: stale indexes, links into caches, dead links, pointers, other formats."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from torch import Tensor

from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.checkpoint.shards import INDEX, SINGLE
from vlsurgery.surgery.errors import CheckpointError

Write = Callable[..., Path]
Llama = Callable[..., dict[str, Tensor]]


@pytest.fixture
def whole(tmp_path: Path, write: Write, llama: Llama) -> Path:
    return write(tmp_path / "whole", llama())


def refused(path: Path, *words: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        Checkpoint.open(path)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    "index", ['{"weight_map": {"lm_head.weight": "model-00002-of-00002.safetensors"}}', "{", '{"weight_map": {}}']
)
def test_a_whole_file_wins_over_a_stale_index_which_is_noted(whole: Path, index: str) -> None:
    names = set(Checkpoint.open(whole))
    (whole / INDEX).write_text(index)
    checkpoint = Checkpoint.open(whole)
    assert set(checkpoint) == names
    (note,) = checkpoint.notes
    assert f"{INDEX} is stale" in note
    assert SINGLE in note


def test_an_index_of_the_whole_file_is_no_stale_one(whole: Path) -> None:
    names = dict.fromkeys(Checkpoint.open(whole), SINGLE)
    (whole / INDEX).write_text(json.dumps({"weight_map": names}))
    assert Checkpoint.open(whole).notes == ()
    (whole / INDEX).write_text(json.dumps({"weight_map": {**names, "more": SINGLE}}))
    refused(whole, "'more'", "does not hold it")


@pytest.mark.parametrize("disk", ["cache", "blobs on another disk", "each blob on another disk"])
def test_links_into_the_blobs_of_any_hub_cache_are_inside(whole: Path, tmp_path: Path, disk: str) -> None:
    blobs, other = tmp_path / "hub" / "models--o--n" / "blobs", tmp_path / "disk"
    blobs.parent.mkdir(parents=True)
    other.mkdir()
    if disk == "blobs on another disk":
        blobs.symlink_to(other)
    else:
        blobs.mkdir()
    target = other / "e3b0" if disk == "each blob on another disk" else blobs / "e3b0"
    shutil.move(whole / SINGLE, target)
    if target.parent == other:
        (blobs / "e3b0").symlink_to(target)
    (whole / SINGLE).symlink_to(blobs / "e3b0")
    assert len(Checkpoint.open(whole))


def test_a_dead_link_says_what_it_linked_to(whole: Path, tmp_path: Path) -> None:
    (whole / SINGLE).unlink()
    (whole / SINGLE).symlink_to("../../blobs/gone")
    refused(whole, str(whole / SINGLE), "a link to ../../blobs/gone", "missing", "Download it again")
    (whole / SINGLE).unlink()
    shard = "model-00001-of-00001.safetensors"
    (whole / INDEX).write_text(json.dumps({"weight_map": {"a": shard}}))
    (whole / shard).symlink_to(tmp_path / "gone")
    refused(whole, shard, "a link to", "missing")
    (whole / "config.json").unlink()
    (whole / "config.json").symlink_to(tmp_path / "gone.json")
    refused(whole, "config.json", "gone.json", "missing")
    (tmp_path / "linked").symlink_to(tmp_path / "nowhere")
    refused(tmp_path / "linked", "a link to", "nowhere", "missing")


@pytest.mark.parametrize("file", [SINGLE, "config.json", INDEX])
def test_git_lfs_pointers_are_named(whole: Path, file: str) -> None:
    if file == INDEX:
        (whole / SINGLE).unlink()
    (whole / file).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 988097824\n")
    refused(whole, file, "Git LFS pointer", "git lfs pull")


@pytest.mark.parametrize(("file", "word"), [("model-q4.gguf", "GGUF"), ("weights.npz", "MLX"), ("x.distcp", "sharded")])
def test_other_formats_are_named(whole: Path, file: str, word: str) -> None:
    (whole / SINGLE).rename(whole / file)
    refused(whole, file, word, "safetensors")
