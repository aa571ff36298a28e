"""Closed streams, full ones, and names that are no text: one line, and exit code 2."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = f"{sys.executable} -m vlsurgery.cli.main"


def shell(command: str, folder: Path) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(["sh", "-c", command], cwd=folder, capture_output=True, check=False, timeout=60)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("--version >&-", b"error: standard output is closed"),
        ("anatomy nowhere >&-", b"error: standard output is closed"),
        ("--version >/dev/full", b"error: standard output: No space left on device"),
        ("anatomy nowhere 2>&-", b""),
        ("anatomy nowhere 0>&- 2>&-", b""),
    ],
)
def test_a_stream_that_is_closed_or_full(tmp_path: Path, command: str, said: bytes) -> None:
    ran = shell(f"{PROGRAM} {command}", tmp_path)
    assert ran.returncode == 2
    assert ran.stderr.startswith(said)
    assert ran.stderr.count(b"\n") == bool(said)
    assert not ran.stdout


def test_names_that_are_no_text(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path) + b"/a\xff"
    os.mkdir(folder)
    for command, place in ((b"anatomy " + folder, tmp_path), (b"anatomy .", folder)):
        ran = shell(PROGRAM + " " + os.fsdecode(command), Path(os.fsdecode(place)))
        assert ran.returncode == 2
        assert b"not UTF-8" in ran.stderr
        assert ran.stderr.count(b"\n") == 1
