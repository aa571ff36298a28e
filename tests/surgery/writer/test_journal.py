"""The journal tells what is finished, never more; and one process at a time writes in it."""

import errno
import fcntl
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from vlsurgery.surgery.errors import TargetError
from vlsurgery.surgery.runtime import locks
from vlsurgery.surgery.writer.journal import JOURNAL, Journal

LINES = st.dictionaries(st.text(min_size=1, max_size=8), st.text(max_size=8), max_size=6)


def journalled(folder: Path, files: dict[str, str]) -> bytes:
    journal = Journal.claim(folder)
    journal.begin("order")
    for file, digest in files.items():
        journal.add(file, digest)
    journal.close()
    return (folder / JOURNAL).read_bytes()


@settings(max_examples=50, deadline=None)
@given(files=LINES, data=st.data())
def test_cut_off_anywhere_it_tells_what_came_before(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, str], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("journal")
    whole = journalled(folder, files)
    cut = data.draw(st.integers(0, len(whole)))
    (folder / JOURNAL).write_bytes(
        whole[:cut] + data.draw(st.sampled_from([b"", b'{"fi', b"\xff\n", b"[]\n", b"\0" * 9]))
    )
    journal = Journal.claim(folder)
    lines = whole[:cut].count(b"\n")
    assert journal.order == ("order" if lines else None)
    assert list(journal.finished.items()) == list(files.items())[: max(0, lines - 1)]
    if lines:
        journal.add("later", "digest")
    journal.close()
    again = Journal.claim(folder)
    assert again.finished == journal.finished
    again.close()


def test_what_is_added_up_over_files_is_kept(tmp_path: Path) -> None:
    journal = Journal.claim(tmp_path)
    journal.begin("order")
    journal.add("a", "1", sums=(0.1, 1e-300))
    journal.add("b", "2", ["flawed"])
    journal.close()
    again = Journal.claim(tmp_path)
    assert again.sums == {"a": (0.1, 1e-300), "b": ()}
    assert again.non_finite == {"a": [], "b": ["flawed"]}
    again.begin("another")
    assert not again.sums
    again.close()


def test_a_new_order_forgets_the_old_one(tmp_path: Path) -> None:
    journalled(tmp_path, {"a": "1"})
    journal = Journal.claim(tmp_path)
    journal.begin("another")
    journal.close()
    assert (tmp_path / JOURNAL).read_text() == '{"order": "another"}\n'


def test_a_second_one_is_refused_until_the_first_lets_go(tmp_path: Path) -> None:
    first = Journal.claim(tmp_path / "out.partial")
    with pytest.raises(TargetError, match=r"out\.partial: another process is merging"):
        Journal.claim(tmp_path / "out.partial")
    first.close()
    Journal.claim(tmp_path / "out.partial").close()


def test_a_directory_that_was_renamed_is_not_the_one_to_claim(tmp_path: Path) -> None:
    """Whoever finishes renames the directory while holding it: the next one makes its own."""
    first = Journal.claim(tmp_path / "out.partial")
    (tmp_path / "out.partial").rename(tmp_path / "out")
    second = Journal.claim(tmp_path / "out.partial")
    assert (tmp_path / "out.partial" / JOURNAL).exists()
    second.close()
    first.close()


@pytest.mark.parametrize("system", ["without flock", "without locks on this file system"])
def test_without_locks_people_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, system: str) -> None:
    def none(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    notes: list[str] = []
    if system == "without flock":
        monkeypatch.setattr(locks, "fcntl", None)
    else:
        monkeypatch.setattr(fcntl, "flock", none)
    Journal.claim(tmp_path, notes.append).close()
    assert "has no locks" in notes[0]


@pytest.mark.parametrize("link", ["soft", "hard"])
def test_a_journal_that_is_a_link_is_refused(tmp_path: Path, link: str) -> None:
    victim = tmp_path / "thesis.tex"
    victim.write_text("years of work")
    folder = tmp_path / "out.partial"
    folder.mkdir()
    (folder / JOURNAL).symlink_to(victim) if link == "soft" else (folder / JOURNAL).hardlink_to(victim)
    with pytest.raises(OSError, match="link" if link == "soft" else "another name"):
        Journal.claim(folder)
    assert victim.read_text() == "years of work"


@pytest.mark.parametrize(
    "line", [b"{}", b'{"order": "a", "files": 5}', b'{"order": 1}', b'{"order": "a", "files": [[]]}']
)
def test_a_strange_journal_is_no_bug(tmp_path: Path, line: bytes) -> None:
    (tmp_path / JOURNAL).write_bytes(line + b"\n")
    Journal.claim(tmp_path).close()
