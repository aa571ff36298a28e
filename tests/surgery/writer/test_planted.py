"""Links, and other people's files, at the places that a merge writes to: nothing of theirs is emptied or changed."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from torch import Tensor

from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.errors import TargetError
from vlsurgery.surgery.merge.recipe import Recipe
from vlsurgery.surgery.merge.run import run_merge
from vlsurgery.surgery.runtime import atomic_file
from vlsurgery.surgery.writer import output_directory
from vlsurgery.surgery.writer.journal import JOURNAL
from vlsurgery.surgery.writer.leftovers import remove_files, strangers
from vlsurgery.surgery.writer.output_directory import FORMER

Write = Callable[..., Path]
Llama = Callable[..., dict[str, Tensor]]
Tree = dict[str, bytes]


def tree(folder: Path) -> Tree:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class Room:
    def __init__(self, folder: Path, recipe: Recipe) -> None:
        self.folder, self.recipe, self.out = folder, recipe, folder / "out"

    def merge(self) -> None:
        run_merge(self.recipe, self.out)

    def somebodys(self, name: str, *extra: str) -> Path:
        """A directory with our recipe in it, as a case has, and a file that was worked on."""
        place = self.folder / name
        place.mkdir()
        (place / "recipe.yaml").write_text(self.recipe.text())
        for each in ("thesis.tex", "config.json", *extra):
            (place / each).write_text("years of work")
        return place


@pytest.fixture
def room(tmp_path: Path, write: Write, llama: Llama) -> Room:
    paths = {role: write(tmp_path / role, llama(seed)) for seed, role in enumerate(("base", "adapted"))}
    opened = {role: Checkpoint.open(path) for role, path in paths.items()}
    return Room(tmp_path, Recipe.of(opened, {"default": {"base": 0.5}}))


@pytest.mark.parametrize("name", ["out.partial", "out.former"])
@pytest.mark.parametrize("extra", [("case.json",), (JOURNAL,), ("case.json", JOURNAL), ()])
@pytest.mark.parametrize("again", [False, True])
def test_a_planted_link_to_a_directory(room: Room, name: str, extra: tuple[str, ...], again: bool) -> None:
    if again:
        room.merge()
    place = room.somebodys("elsewhere", *extra)
    (room.folder / name).symlink_to(place)
    before = tree(room.folder)
    with pytest.raises(TargetError, match=re.escape(name)):
        room.merge()
    assert tree(room.folder) == before


@pytest.mark.parametrize("name", ["out.partial", "out.former"])
@pytest.mark.parametrize("extra", [("case.json",), ("case.json", JOURNAL), ()])
def test_a_directory_of_the_users_by_our_name(room: Room, name: str, extra: tuple[str, ...]) -> None:
    """Also a case with a journal in it, and a merge that the user kept under this name."""
    room.merge()
    place = room.somebodys(name, *extra)
    before = tree(place)
    with pytest.raises(TargetError, match=re.escape(name)):
        room.merge()
    assert tree(place) == before


def test_what_the_user_put_into_an_unfinished_merge_is_kept(room: Room) -> None:
    partial = room.folder / "out.partial"
    partial.mkdir()
    (partial / JOURNAL).write_text('{"order": "x", "files": ["model.safetensors"]}\n')
    (partial / "model.safetensors.partial").write_bytes(b"half")
    (partial / "notes.txt").write_text("mine")
    with pytest.raises(TargetError, match=r"out\.partial: holds notes\.txt, which no merge of ours wrote"):
        room.merge()
    assert (partial / "notes.txt").read_text() == "mine"
    (partial / "notes.txt").unlink()
    room.merge()
    assert not partial.exists()


@pytest.mark.parametrize("name", ["model.safetensors", "model.safetensors.partial", "config.json"])
def test_links_in_an_unfinished_merge_are_not_written_through(room: Room, name: str) -> None:
    partial, victim = room.folder / "out.partial", room.folder / "victim"
    victim.write_text("precious")
    partial.mkdir()
    (partial / JOURNAL).write_text('{"order": "x", "files": ["model.safetensors", "config.json"]}\n')
    (partial / name).symlink_to(victim)
    with pytest.raises(TargetError, match="which no merge of ours wrote"):
        room.merge()
    assert victim.read_text() == "precious"


def test_a_linked_journal(room: Room) -> None:
    partial, victim = room.folder / "out.partial", room.folder / "victim"
    victim.write_text("precious")
    partial.mkdir()
    (partial / JOURNAL).symlink_to(victim)
    with pytest.raises(TargetError, match="in the way"):
        room.merge()
    (partial / JOURNAL).unlink()
    (partial / JOURNAL).hardlink_to(victim)
    with pytest.raises(TargetError, match="another name leads to the same file"):
        room.merge()
    assert victim.read_text() == "precious"


def test_a_directory_of_another_user(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever owns the directory could change the merge afterwards."""
    partial = room.folder / "out.partial"
    partial.mkdir()
    monkeypatch.setattr(output_directory, "_owner", lambda folder: os.lstat(folder).st_uid + 1)
    with pytest.raises(TargetError, match="in the way"):
        room.merge()
    assert partial.exists()


def test_killed_while_a_former_merge_was_removed(room: Room) -> None:
    """What is left of it is removed by the next merge; what the user had added is moved aside."""
    room.merge()
    before = tree(room.out)
    former = room.folder / "out.former"
    former.mkdir()
    (former / JOURNAL).write_bytes(FORMER)
    (former / "notes.txt").write_text("mine")
    room.merge()
    assert tree(room.out) == before
    assert tree(room.folder / "out-1") == {"notes.txt": b"mine"}
    assert not former.exists()


def test_removing_never_leaves_the_directory(tmp_path: Path) -> None:
    outside, folder = tmp_path / "outside", tmp_path / "folder"
    outside.mkdir()
    folder.mkdir()
    (outside / "a").write_text("precious")
    (folder / "sub").symlink_to(outside)
    assert strangers(folder, ["sub/a"]) == ["sub"]
    remove_files(folder, ["sub/a"])
    assert (outside / "a").read_text() == "precious"


def test_the_owner_is_asked_of_the_file_system(tmp_path: Path) -> None:
    assert output_directory._owner(tmp_path) == os.lstat(tmp_path).st_uid
    assert not list(tmp_path.iterdir())
    assert atomic_file.NO_FOLLOW
