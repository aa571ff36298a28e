"""Directories for as long as what uses them is there, in the system's folder for such.

A process that is killed leaves its own behind. Each holds a file that its process keeps locked, so that a later one
finds those that nobody uses any more, and removes them.
"""

import os
import shutil
import tempfile
import weakref
from pathlib import Path
from typing import Final

from vlsurgery.surgery.runtime.locks import lock

PREFIX: Final = "vlsurgery-copies-"
LOCK: Final = ".lock"

# Of this process: the directory, and the open file that is locked in it.
_held: dict[Path, int] = {}


class ScratchFolder:
    """A new directory of this user's alone, removed when this object is no longer used. path: where it is."""

    def __init__(self) -> None:
        if not _held:
            _remove_left()
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX))
        # Locked before it has its name: what has no such file is nobody's to remove.
        unnamed = self.path / f"{LOCK}.new"
        _held[self.path] = os.open(unnamed, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        lock(_held[self.path])
        unnamed.rename(self.path / LOCK)
        weakref.finalize(self, _remove, self.path)


def remove_scratch_folders() -> None:
    """Remove all of this process's: before it ends in a way in which nothing else would."""
    for path in list(_held):
        _remove(path)


def _remove(path: Path) -> None:
    descriptor = _held.pop(path, None)
    if descriptor is not None:
        shutil.rmtree(path, ignore_errors=True)
        os.close(descriptor)


def _remove_left() -> None:
    """Remove what processes of this user that are gone have left."""
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        try:
            descriptor = os.open(path / LOCK, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
        except OSError:
            continue  # Another user's, or one that is being made.
        try:
            if lock(descriptor) == "ours":
                shutil.rmtree(path, ignore_errors=True)
        finally:
            os.close(descriptor)
