"""Directories that go with what uses them, or with the next process where theirs was killed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vlsurgery.surgery.runtime import scratch_folder
from vlsurgery.surgery.runtime.scratch_folder import LOCK, PREFIX, ScratchFolder, remove_scratch_folders

KILLED = "from vlsurgery.surgery.runtime.scratch_folder import ScratchFolder as S; import os; s = S(); os._exit(1)"


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The system's folder for such, empty."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(scratch_folder, "_held", {})
    return tmp_path


def test_one_goes_when_it_is_no_longer_used(place: Path) -> None:
    first, second = ScratchFolder(), ScratchFolder()
    assert first.path.stat().st_mode & 0o077 == 0
    del first
    assert list(place.iterdir()) == [second.path]
    remove_scratch_folders()
    assert not list(place.iterdir())


def test_what_a_killed_process_left_is_removed_and_nothing_else(place: Path) -> None:
    used = ScratchFolder()
    environment = {**os.environ, "TMPDIR": str(place)}
    subprocess.run([sys.executable, "-P", "-c", KILLED], env=environment, check=False)
    (place / f"{PREFIX}being-made").mkdir()
    (place / "vlsurgery-other").mkdir()
    (place / "vlsurgery-other" / LOCK).touch()
    assert len(list(place.iterdir())) == 4
    scratch_folder._remove_left()
    assert {path.name for path in place.iterdir()} == {used.path.name, f"{PREFIX}being-made", "vlsurgery-other"}
