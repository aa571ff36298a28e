"""Under the target's name there is the old or the whole new checkpoint, whatever happens."""

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pytest
import torch
from torch import Tensor

from vlsurgery.surgery.checkpoint import TORCH_NAMES, Checkpoint, LazyTensor
from vlsurgery.surgery.checkpoint.shards import INDEX
from vlsurgery.surgery.errors import TargetError
from vlsurgery.surgery.merge.recipe import Recipe
from vlsurgery.surgery.merge.run import run_merge
from vlsurgery.surgery.runtime.progress import no_progress
from vlsurgery.surgery.writer import Piece, ShardPlan, plan_shards, write as write_planned
from vlsurgery.surgery.writer.filling import fill_here
from vlsurgery.surgery.writer.journal import JOURNAL
from vlsurgery.surgery.writer.output_directory import FORMER, check_target, former_of, partial_of

T = TypeVar("T")
Write = Callable[..., Path]
Llama = Callable[..., dict[str, Tensor]]


class Room(NamedTuple):
    """A folder with two checkpoints and the recipe that merges them."""

    folder: Path
    recipe: Recipe

    @property
    def out(self) -> Path:
        return self.folder / "out"

    def names(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir())


@pytest.fixture
def room(tmp_path: Path, write: Write, llama: Llama) -> Room:
    paths = {"base": write(tmp_path / "base", llama(1)), "adapted": write(tmp_path / "adapted", llama(2), shards=3)}
    checkpoints = {role: Checkpoint.open(path) for role, path in paths.items()}
    return Room(tmp_path, Recipe.of(checkpoints, {"default": {"base": 0.5}}))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def interrupt_after(count: int) -> Callable[..., Iterable[Any]]:
    def progress(items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
        for number, item in enumerate(items):
            if number == count:
                raise KeyboardInterrupt
            yield item

    return progress


@pytest.mark.parametrize("count", [0, 1, 7])
def test_ctrl_c_in_the_first_shard_leaves_nothing(room: Room, count: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_merge(room.recipe, room.out, interrupt_after(count))
    assert room.names() == ["adapted", "base"]


@pytest.mark.parametrize("count", [0, 7, 20])
def test_ctrl_c_leaves_a_former_merge_as_it_was(room: Room, count: int) -> None:
    run_merge(room.recipe, room.out)
    before = contents(room.out)
    with pytest.raises(KeyboardInterrupt):
        run_merge(room.recipe.model_copy(update={"seed": 1}), room.out, interrupt_after(count))
    assert contents(room.out) == before


def test_a_former_merge_is_replaced(room: Room) -> None:
    run_merge(room.recipe, room.out)
    (room.out / "left.txt").write_text("from before")
    run_merge(room.recipe.model_copy(update={"coefficients": {"default": {"base": 0.25}}}), room.out)
    assert Recipe.load(room.out / "recipe.yaml").coefficients == {"default": {"base": 0.25}}
    assert not (room.out / "left.txt").exists()


def test_what_the_user_put_into_a_former_merge_is_moved_aside(room: Room) -> None:
    """Files that were added, and files that were changed, also a linked one and a whole directory."""
    run_merge(room.recipe, room.out)
    before = contents(room.out)
    (room.out / "notes" / "deep").mkdir(parents=True)
    (room.out / "notes" / "deep" / "mine.txt").write_text("months of work")
    (room.out / "README.md").write_text("my own card")
    (room.out / "link").symlink_to(room.folder / "base")
    made = run_merge(room.recipe, room.out)
    assert contents(room.out) == before
    aside = room.folder / "out-1"
    assert {path.name for path in aside.iterdir()} == {"notes", "README.md", "link"}
    assert (aside / "notes" / "deep" / "mine.txt").read_text() == "months of work"
    assert (aside / "README.md").read_text() == "my own card"
    assert (room.folder / "base" / "config.json").exists()
    assert any("out-1" in note and "README.md, link, notes" in note for note in made.notes)


def test_a_former_merge_without_a_list_of_its_files_is_moved_aside_whole(room: Room) -> None:
    run_merge(room.recipe, room.out)
    (room.out / "SHA256SUMS").unlink()
    before = contents(room.out)
    run_merge(room.recipe, room.out)
    assert contents(room.folder / "out-1") == before


def test_a_whole_merge_that_was_killed_goes_on(room: Room) -> None:
    """kill -9 between two tensors of a later shard, once the first is finished: nothing under the final name, and the
    same command finishes it."""
    script = (
        "import os, sys, time\nfrom pathlib import Path\nfrom vlsurgery.surgery.merge.run import run_merge\n"
        "from vlsurgery.surgery.merge.recipe import Recipe\n"
        "def track(items, label, total=None):\n"
        "    for number, item in enumerate(items):\n"
        "        if number == 17:\n"
        "            while 'sha256' not in Path(sys.argv[3]).read_text(): time.sleep(.01)\n"
        "            os.kill(os.getpid(), 9)\n"
        "        yield item\n"
        "run_merge(Recipe.load(Path(sys.argv[1])), Path(sys.argv[2]), track)\n"
    )
    room.recipe.save(room.folder / "order.yaml")
    places = [room.folder / "order.yaml", room.out, partial_of(room.out) / JOURNAL]
    code = subprocess.run([sys.executable, "-c", script, *places], check=False, timeout=60).returncode
    assert code == -9
    assert not room.out.exists()
    assert partial_of(room.out).exists()
    assert "finished before" in run_merge(room.recipe, room.out).notes[0]
    assert not partial_of(room.out).exists()
    run_merge(room.recipe, room.folder / "whole")
    assert contents(room.out) == contents(room.folder / "whole")


def test_killed_between_the_two_renames_the_former_merge_comes_back(room: Room) -> None:
    run_merge(room.recipe, room.out)
    before = contents(room.out)
    (room.out / JOURNAL).write_bytes(FORMER)
    os.rename(room.out, former_of(room.out))
    with pytest.raises(KeyboardInterrupt):
        run_merge(room.recipe, room.out, interrupt_after(3))
    assert contents(room.out) == before
    assert not former_of(room.out).exists()


def test_a_failing_second_rename_puts_the_former_merge_back(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    run_merge(room.recipe, room.out)
    before, rename = contents(room.out), os.rename

    def fail(source: Path, goal: Path) -> None:
        if Path(source).name == "out.partial":
            raise OSError(errno.EIO, "Input/output error")
        rename(source, goal)

    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(TargetError, match=r"Input/output error.*kept in .*out\.partial; the same command goes on"):
        run_merge(room.recipe, room.out)
    monkeypatch.undo()
    assert contents(room.out) == before
    run_merge(room.recipe, room.out)
    assert contents(room.out) == before
    assert room.names() == ["adapted", "base", "out"]


def test_a_directory_that_holds_something_else_is_refused(room: Room) -> None:
    room.out.mkdir()
    (room.out / "thesis.tex").write_text("years of work")
    with pytest.raises(TargetError, match="exists and is not a merge of ours"):
        run_merge(room.recipe, room.out)
    (room.out / "recipe.yaml").write_text("flour: 500 g")
    with pytest.raises(TargetError, match="not a merge of ours"):
        run_merge(room.recipe, room.out)
    assert (room.out / "thesis.tex").read_text() == "years of work"


def test_a_case_is_never_taken_for_a_former_merge(room: Room) -> None:
    """A case also holds our recipe; replacing it would lose every finding."""
    room.out.mkdir()
    for name, text in {"recipe.yaml": room.recipe.text(), "case.json": "{}", "config.json": "{}"}.items():
        (room.out / name).write_text(text)
    with pytest.raises(TargetError, match="not a merge of ours"):
        run_merge(room.recipe, room.out)
    assert (room.out / "case.json").exists()


@pytest.mark.parametrize("left", ["out.partial", "out.former"])
def test_a_neighbour_by_our_name_that_is_not_ours_is_left_alone(room: Room, left: str) -> None:
    (room.folder / left).mkdir()
    (room.folder / left / "precious").write_text("x")
    with pytest.raises(TargetError, match="in the way"):
        run_merge(room.recipe, room.out)
    assert (room.folder / left / "precious").exists()


def test_an_empty_directory_is_a_fine_target(room: Room) -> None:
    room.out.mkdir()
    run_merge(room.recipe, room.out)
    assert Checkpoint.open(room.out)


@pytest.mark.parametrize("place", ["base", "adapted", "adapted/inside", ".", "link"])
def test_inputs_are_never_written_over(room: Room, place: str) -> None:
    (room.folder / "link").symlink_to(room.folder / "base")
    before = contents(room.folder)
    with pytest.raises(TargetError, match="would write over"):
        run_merge(room.recipe, room.folder / place)
    assert contents(room.folder) == before


def test_a_file_in_the_way_is_refused(room: Room) -> None:
    room.out.write_text("x")
    with pytest.raises(TargetError, match="not a merge of ours"):
        run_merge(room.recipe, room.out)
    with pytest.raises(TargetError, match="can't be written"):
        run_merge(room.recipe, room.out / "below")


def test_an_unwritable_target_is_named(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, **_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(TargetError, match=r"out: can't be written \(Permission denied\)"):
        run_merge(room.recipe, room.out)
    monkeypatch.undo()
    assert room.names() == ["adapted", "base"]


def test_a_disk_without_room_is_told_before_anything_is_written(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1))  # type: ignore[attr-defined]
    with pytest.raises(TargetError, match=r"needs .* bytes, but only 1 bytes are free"):
        run_merge(room.recipe, room.out)
    assert room.names() == ["adapted", "base"]


def test_a_disk_that_fills_up_leaves_the_target_as_it_was(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    run_merge(room.recipe, room.out)
    before = contents(room.out)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(TargetError, match="No space left"):
        run_merge(room.recipe, room.out)
    monkeypatch.undo()
    assert contents(room.out) == before


def test_links_into_a_cache_are_inputs_too(room: Room) -> None:
    """A snapshot in a Hub cache is full of links into blobs/: neither may be written into, nor over."""
    cache = room.folder / "models--x"
    blobs, snapshot = cache / "blobs", cache / "snapshots" / ("0" * 40)
    shutil.move(room.folder / "adapted", blobs)
    snapshot.mkdir(parents=True)
    for blob in blobs.iterdir():
        (snapshot / blob.name).symlink_to(blob)
    for out in (blobs, blobs / "new", cache, snapshot / "new"):
        with pytest.raises(TargetError, match="would write over"):
            check_target(out, [snapshot], 0)
    check_target(room.out, [snapshot], 0)


def test_the_plan_is_the_layout_of_like(tmp_path: Path, write: Write, llama: Llama) -> None:
    like = Checkpoint.open(write(tmp_path / "like", llama(), shards=3))
    whole = plan_shards(like)
    assert [shard.file for shard in whole.shards] == list(like.shards)
    assert [tensor.name for tensor in whole.tensors] == list(like)
    less = plan_shards(like, ["lm_head.weight"])
    assert {tensor.name for tensor in whole.tensors} - {tensor.name for tensor in less.tensors} == {"lm_head.weight"}
    assert less.nbytes < whole.nbytes


@pytest.mark.parametrize("code", ["F32", "BF16", "F16"])
def test_another_dtype_is_planned_for_floats_and_stated_in_the_config(
    tmp_path: Path, write: Write, llama: Llama, code: str
) -> None:
    config = {"torch_dtype": "float32", "text_config": {"dtype": "float16", "dtypes": ["x"]}, "vision_config": {}}
    tensors = {**llama(dtype=torch.float16), "position_ids": torch.arange(5)}
    like = Checkpoint.open(write(tmp_path / "like", tensors, config, shards=2))
    order = plan_shards(like, dtype=code)
    assert {name: entry.safetensors_dtype for name, entry in order.entries.items()} == {
        name: "I64" if name == "position_ids" else code for name in like
    }
    write_zeros(order, tmp_path / "out")
    result, name = Checkpoint.open(tmp_path / "out"), TORCH_NAMES[code]
    assert {name: tensor.entry for name, tensor in result.items()} == order.entries
    assert result.shapes == like.shapes
    assert result.config == {**config, "torch_dtype": name, "text_config": {"dtype": name, "dtypes": ["x"]}}
    index = json.loads((tmp_path / "out" / INDEX).read_text())
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in result.values())


def test_a_config_that_says_the_dtype_already_keeps_its_bytes(tmp_path: Path, write: Write, llama: Llama) -> None:
    path = write(tmp_path / "like", llama(), {"torch_dtype": "bfloat16"})
    write_zeros(plan_shards(Checkpoint.open(path), dtype="BF16"), tmp_path / "out")
    assert (tmp_path / "out" / "config.json").read_bytes() == (path / "config.json").read_bytes()


def write_zeros(order: ShardPlan, out: Path, more: int = 0) -> None:
    def zeros(tensor: LazyTensor) -> Iterator[Piece]:
        yield Piece(order.entries[tensor.name].nbytes + more, lambda _: None)

    with ThreadPoolExecutor(1) as pool:
        fill = partial(fill_here, zeros, pool, (), no_progress)
        write_planned(order, out, fill, {"recipe.yaml": "schema: vlsurgery/recipe/1\n"}, pool=pool)


@pytest.mark.parametrize("more", [-1, 1])
def test_too_few_or_too_many_bytes_are_a_bug_not_a_checkpoint(room: Room, more: int) -> None:
    with pytest.raises(AssertionError, match="planned"):
        write_zeros(plan_shards(Checkpoint.open(room.folder / "adapted")), room.out, more)
    assert room.names() == ["adapted", "base"]
