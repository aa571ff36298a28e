"""Under the target's name there is the old or the whole new checkpoint, whatever happens."""

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pytest
from torch import Tensor

from surgery.checkpoint import Checkpoint, LazyTensor
from surgery.coefficients import uniform
from surgery.errors import TargetError
from surgery.operation import operate
from surgery.recipe import Recipe
from surgery.target import former_of, partial_of
from surgery.writer import plan, write

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
    return Room(tmp_path, Recipe.of(checkpoints, uniform(base=0.5)))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def interrupt_after(count: int) -> Callable[..., Iterable[Any]]:
    def track(items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:  # noqa: ARG001
        for number, item in enumerate(items):
            if number == count:
                raise KeyboardInterrupt
            yield item

    return track


@pytest.mark.parametrize("count", [0, 1, 7, 20])
def test_ctrl_c_leaves_nothing_under_the_final_name(room: Room, count: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        operate(room.recipe, room.out, interrupt_after(count))
    assert room.names() == ["adapted", "base"]


@pytest.mark.parametrize("count", [0, 7, 20])
def test_ctrl_c_leaves_a_former_merge_as_it_was(room: Room, count: int) -> None:
    operate(room.recipe, room.out)
    before = contents(room.out)
    with pytest.raises(KeyboardInterrupt):
        operate(room.recipe.model_copy(update={"seed": 1}), room.out, interrupt_after(count))
    assert contents(room.out) == before
    assert room.names() == ["adapted", "base", "out"]


def test_a_former_merge_is_replaced(room: Room) -> None:
    operate(room.recipe, room.out)
    (room.out / "left.txt").write_text("from before")
    operate(room.recipe.model_copy(update={"coefficients": {"default": {"base": 0.25}}}), room.out)
    assert Recipe.load(room.out / "recipe.yaml").coefficients == {"default": {"base": 0.25}}
    assert room.names() == ["adapted", "base", "out"]
    assert not (room.out / "left.txt").exists()


def test_killed_in_the_middle_the_next_run_clears_up(room: Room) -> None:
    """kill -9 between any two tensors: nothing under the final name, and the same command succeeds."""
    script = (
        "import os, sys\nfrom pathlib import Path\nfrom surgery.operation import operate\n"
        "from surgery.recipe import Recipe\n"
        "def track(items, label, total=None):\n"
        "    for number, item in enumerate(items):\n"
        "        if number == 9: os.kill(os.getpid(), 9)\n"
        "        yield item\n"
        "operate(Recipe.load(Path(sys.argv[1])), Path(sys.argv[2]), track)\n"
    )
    room.recipe.save(room.folder / "order.yaml")
    code = subprocess.run([sys.executable, "-c", script, room.folder / "order.yaml", room.out], check=False).returncode
    assert code == -9
    assert not room.out.exists()
    assert partial_of(room.out).exists()
    operate(room.recipe, room.out)
    assert not partial_of(room.out).exists()
    assert len(Checkpoint.open(room.out)) == len(Checkpoint.open(room.folder / "adapted"))


def test_killed_between_the_two_renames_the_former_merge_comes_back(room: Room) -> None:
    operate(room.recipe, room.out)
    before = contents(room.out)
    os.rename(room.out, former_of(room.out))
    with pytest.raises(KeyboardInterrupt):
        operate(room.recipe, room.out, interrupt_after(3))
    assert contents(room.out) == before
    assert not former_of(room.out).exists()


def test_a_failing_second_rename_puts_the_former_merge_back(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    operate(room.recipe, room.out)
    before, rename = contents(room.out), os.rename

    def fail(source: Path, goal: Path) -> None:
        if Path(source).name == "out.partial":
            raise OSError(errno.EIO, "Input/output error")
        rename(source, goal)

    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(TargetError, match="Input/output error"):
        operate(room.recipe, room.out)
    monkeypatch.undo()
    assert contents(room.out) == before
    assert room.names() == ["adapted", "base", "out"]


def test_a_directory_that_holds_something_else_is_refused(room: Room) -> None:
    room.out.mkdir()
    (room.out / "thesis.tex").write_text("years of work")
    with pytest.raises(TargetError, match="exists and is not a merge of ours"):
        operate(room.recipe, room.out)
    (room.out / "recipe.yaml").write_text("flour: 500 g")
    with pytest.raises(TargetError, match="not a merge of ours"):
        operate(room.recipe, room.out)
    assert (room.out / "thesis.tex").read_text() == "years of work"


def test_a_case_is_never_taken_for_a_former_merge(room: Room) -> None:
    """A case also holds our recipe; replacing it would lose every finding."""
    room.out.mkdir()
    for name, text in {"recipe.yaml": room.recipe.text(), "case.json": "{}", "config.json": "{}"}.items():
        (room.out / name).write_text(text)
    with pytest.raises(TargetError, match="not a merge of ours"):
        operate(room.recipe, room.out)
    assert (room.out / "case.json").exists()


@pytest.mark.parametrize("left", ["out.partial", "out.former"])
def test_a_neighbour_by_our_name_that_is_not_ours_is_left_alone(room: Room, left: str) -> None:
    (room.folder / left).mkdir()
    (room.folder / left / "precious").write_text("x")
    with pytest.raises(TargetError, match="in the way"):
        operate(room.recipe, room.out)
    assert (room.folder / left / "precious").exists()


def test_an_empty_directory_is_a_fine_target(room: Room) -> None:
    room.out.mkdir()
    operate(room.recipe, room.out)
    assert Checkpoint.open(room.out)


@pytest.mark.parametrize("place", ["base", "adapted", "adapted/inside", ".", "link"])
def test_inputs_are_never_written_over(room: Room, place: str) -> None:
    (room.folder / "link").symlink_to(room.folder / "base")
    before = contents(room.folder)
    with pytest.raises(TargetError, match="would write over"):
        operate(room.recipe, room.folder / place)
    assert contents(room.folder) == before


def test_a_file_in_the_way_is_refused(room: Room) -> None:
    room.out.write_text("x")
    with pytest.raises(TargetError, match="not a merge of ours"):
        operate(room.recipe, room.out)
    with pytest.raises(TargetError, match="can't be written"):
        operate(room.recipe, room.out / "below")


def test_an_unwritable_target_is_named(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, **_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(TargetError, match=r"out: can't be written \(Permission denied\)"):
        operate(room.recipe, room.out)
    monkeypatch.undo()
    assert room.names() == ["adapted", "base"]


def test_a_disk_without_room_is_told_before_anything_is_written(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1))  # type: ignore[attr-defined]
    with pytest.raises(TargetError, match=r"needs .* GB, but only 0\.00 GB are free"):
        operate(room.recipe, room.out)
    assert room.names() == ["adapted", "base"]


def test_a_disk_that_fills_up_leaves_the_target_as_it_was(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    operate(room.recipe, room.out)
    before = contents(room.out)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(TargetError, match="No space left"):
        operate(room.recipe, room.out)
    monkeypatch.undo()
    assert contents(room.out) == before
    assert room.names() == ["adapted", "base", "out"]


def test_the_plan_is_the_layout_of_like(tmp_path: Path, write: Write, llama: Llama) -> None:
    like = Checkpoint.open(write(tmp_path / "like", llama(), shards=3))
    whole = plan(like)
    assert [shard.file for shard in whole.shards] == list(like.shards)
    assert [tensor.name for tensor in whole.tensors] == list(like)
    less = plan(like, ["lm_head.weight"])
    assert {tensor.name for tensor in whole.tensors} - {tensor.name for tensor in less.tensors} == {"lm_head.weight"}
    assert less.nbytes < whole.nbytes


def test_too_few_bytes_are_a_bug_not_a_checkpoint(room: Room) -> None:
    def short(tensor: LazyTensor) -> Iterator[memoryview]:
        yield memoryview(bytes(tensor.nbytes - 1))

    like = Checkpoint.open(room.folder / "adapted")
    with pytest.raises(AssertionError, match="planned"):
        write(plan(like), room.out, short, {"recipe.yaml": room.recipe.text()})
    assert room.names() == ["adapted", "base"]
