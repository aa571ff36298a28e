"""Two commands never write into one case at a time."""

import subprocess
import sys
from pathlib import Path

import pytest

from vlsurgery.cli.case_lock import CaseLock
from vlsurgery.surgery.errors import TargetError
from vlsurgery.surgery.runtime import locks

HOLD = """
import sys
from pathlib import Path
from vlsurgery.cli.case_lock import CaseLock
lock = CaseLock()
lock.claim(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def test_another_process_is_refused_until_the_first_ends_even_by_a_kill(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    first = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert first.stdout is not None
    assert first.stdout.readline() == b"held\n"
    lock = CaseLock()
    with pytest.raises(TargetError, match="another vlsurgery command is working in this case"):
        lock.claim(tmp_path)
    first.kill()
    first.communicate()
    lock.claim(tmp_path)
    lock.close()


def test_a_folder_that_is_moved_aside_stays_locked_and_its_successor_is_locked_too(tmp_path: Path) -> None:
    first, second = CaseLock(), CaseLock()
    (tmp_path / "case").mkdir()
    first.claim(tmp_path / "case")
    first.claim(tmp_path / "case")
    (tmp_path / "case").rename(tmp_path / "case-1")
    (tmp_path / "case").mkdir()
    first.claim(tmp_path / "case")
    for name in ("case", "case-1"):
        with pytest.raises(TargetError, match="another vlsurgery command"):
            second.claim(tmp_path / name)
    first.close()
    second.claim(tmp_path / "case")
    second.close()


def test_what_is_missing_or_no_folder_is_for_others_to_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    lock = CaseLock()
    lock.claim(tmp_path / "missing")
    lock.claim(tmp_path / "file")
    monkeypatch.setattr(locks, "fcntl", None)
    lock.claim(tmp_path)
    lock.close()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
