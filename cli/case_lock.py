"""The lock on a case: one command at a time writes into it."""

import os
from pathlib import Path

from vlsurgery.surgery.errors import TargetError
from vlsurgery.surgery.runtime.atomic_file import remove_left
from vlsurgery.surgery.runtime.locks import lock


class CaseLock:
    """Keeps other processes out of a case's folder from `claim` until `close`, or until the process ends.

    The folder itself is locked, so that no file is left in it, and a folder that is moved aside stays locked. Where
    the system has no such locks, nobody is kept out.
    """

    def __init__(self) -> None:
        self._held: dict[tuple[int, int], int] = {}

    def claim(self, folder: Path) -> None:
        """Lock the folder; one that is missing can't be locked yet, and one that is held already is left as it is.

        Raises TargetError, at once, where another command works in it. Removes what a command that was killed left
        half written.
        """
        while (descriptor := _opened(folder)) is not None:
            status = os.fstat(descriptor)
            key = (status.st_dev, status.st_ino)
            if key in self._held:
                os.close(descriptor)
                return
            if lock(descriptor) == "taken":
                os.close(descriptor)
                raise TargetError(
                    f"{folder}: another vlsurgery command is working in this case. Wait until it is done, or give "
                    "another folder with --case."
                )
            if _is_still(folder, status):
                self._held[key] = descriptor
                remove_left(folder)
                return
            os.close(descriptor)  # It was moved aside in between.

    def close(self) -> None:
        """Let other processes in."""
        while self._held:
            os.close(self._held.popitem()[1])


def _opened(folder: Path) -> int | None:
    """The descriptor of a folder; None where there is none, or the system opens no folders (Windows)."""
    if not hasattr(os, "O_DIRECTORY"):
        return None
    try:
        return os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return None  # Whoever opens the case there says what is wrong.


def _is_still(folder: Path, status: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.stat(folder), status)
    except FileNotFoundError:
        return False
