"""Small files are whole or as they were, and nothing is written through a link."""

import errno
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from vlsurgery.surgery.runtime.atomic_file import remove_left, replacing, write_text
from vlsurgery.surgery.runtime.json_lines import append_lines, whole_lines


def test_links_planted_under_any_former_name_are_not_written_through(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    for name in ("diff.json", "diff.json.partial"):
        (tmp_path / name).symlink_to(victim)
    write_text(tmp_path / "diff.json", "new")
    assert victim.read_text() == "precious"
    assert (tmp_path / "diff.json").read_text() == "new"
    assert not (tmp_path / "diff.json").is_symlink()
    assert (tmp_path / "diff.json.partial").is_symlink()


def test_many_at_once_leave_one_whole_text(tmp_path: Path) -> None:
    texts = [str(number) * 100_000 for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda text: write_text(tmp_path / "file", text), texts * 4))
    assert (tmp_path / "file").read_text() in texts
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("fault", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_fault_leaves_the_old_text_and_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: BaseException
) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def fail(_: int) -> None:
        raise fault

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(type(fault)) as caught:
        write_text(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    if isinstance(caught.value, OSError):
        assert caught.value.filename == str(path)


def test_the_new_file_has_the_suffix_and_the_usual_rights(tmp_path: Path) -> None:
    with replacing(tmp_path / "log.eval") as fresh:
        assert fresh.suffix == ".eval"
        fresh.write_bytes(b"x")
    (tmp_path / "plain").touch()
    assert (tmp_path / "log.eval").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("kind", ["soft", "hard", "fifo", "nowhere"])
def test_lines_are_added_to_regular_files_of_one_name(tmp_path: Path, kind: str) -> None:
    victim, path = tmp_path / "victim", tmp_path / "history.jsonl"
    victim.write_text("precious")
    match kind:
        case "soft":
            path.symlink_to(victim)
        case "hard":
            path.hardlink_to(victim)
        case "nowhere":
            path.symlink_to(tmp_path / "nowhere")
        case "fifo":
            os.mkfifo(path)
    with pytest.raises(OSError, match="history") as caught:
        append_lines(path, "line\n")
    assert caught.value.filename == str(path)
    assert victim.read_text() == "precious"
    assert not (tmp_path / "nowhere").exists()


def test_lines_are_added(tmp_path: Path) -> None:
    append_lines(tmp_path / "file", "1\n")
    append_lines(tmp_path / "file", "2\n")
    assert (tmp_path / "file").read_text() == "1\n2\n"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b'{"a": 1}\n{"b": "\xc3', b'{"a": 1}\n3\n'),
        (b'{"a": ', b"3\n"),
        (b'{"a": 1}\n{"b": 2}', b'{"a": 1}\n{"b": 2}\n3\n'),
        (b'{"a": 1}\n{"b": "' + b"x" * 200_000, b'{"a": 1}\n3\n'),
    ],
)
def test_a_line_that_a_kill_cut_off_is_not_read_and_goes_with_the_next_append(
    tmp_path: Path, before: bytes, after: bytes
) -> None:
    path = tmp_path / "history.jsonl"
    path.write_bytes(before)
    assert whole_lines(before) == after.split(b"\n")[:-2]
    append_lines(path, "3\n")
    assert path.read_bytes() == after


def test_an_append_that_fails_half_way_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "history.jsonl"
    append_lines(path, "1\n")
    write = os.write
    room = [2]

    def full(descriptor: int, content: bytes) -> int:
        if not room:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, content[: room.pop()])

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space left") as caught:
        append_lines(path, "23456\n")
    assert caught.value.filename == str(path)
    assert path.read_bytes() == b"1\n"


def test_new_files_of_killed_processes_go_and_those_being_written_stay(tmp_path: Path) -> None:
    """So do files of other names, and links, whose targets are somebody else's."""
    left = tmp_path / ".0123456789abcdef.partial.json"
    left.write_text("half")
    (tmp_path / "precious").write_text("mine")
    (tmp_path / ".0123456789abcdee.partial.json").symlink_to(tmp_path / "precious")
    (tmp_path / ".mine.partial.json").touch()
    with replacing(tmp_path / "probe.json") as fresh:
        fresh.write_text("{}")
        remove_left(tmp_path)
        assert fresh.exists()
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"precious", ".0123456789abcdee.partial.json", ".mine.partial.json", "probe.json"}
