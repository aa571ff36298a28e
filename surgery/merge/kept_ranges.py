"""Ranges of a site that were fetched from a store, kept on this machine until the site is merged."""

import errno
import os
import shutil
import tempfile
import threading
from pathlib import Path
from typing import IO, Final

import numpy as np

# Bytes that are left free beside what is kept, for what the merge itself writes meanwhile.
FREE_BYTES: Final = 1 << 30


class KeptRanges:
    """A nameless file in a directory, in which the rows of ranges lie from the first time that they are read.

    A method that sees a site whole before it merges it would fetch all of it twice otherwise. Where the disk has no
    room, nothing is kept, and the range is fetched again.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: IO[bytes] | None = None
        self._places: dict[tuple[int, int], int] = {}
        self._end = 0
        self._lock = threading.Lock()

    def read_into(self, rows: np.ndarray, start: int) -> bool:
        """Fill rows with those that were kept of the range from `start` on; False where they were not."""
        place = self._places.get((start, rows.shape[1]))
        if place is None or self._file is None:
            return False
        for row in rows:
            view, done = row.view(np.uint8).data, 0
            while done < len(view):
                got = os.preadv(self._file.fileno(), [view[done:]], place + done)
                if not got:
                    raise EOFError(f"{self._folder}: what was kept of a site is cut off")
                done += got
            place += len(view)
        return True

    def keep(self, rows: np.ndarray, start: int) -> None:
        """Keep the rows of the range from `start` on."""
        with self._lock:
            if self._file is None:
                self._file = tempfile.TemporaryFile(dir=self._folder, prefix=".vlsurgery-")  # noqa: SIM115
            place = self._end
            self._end += rows.nbytes
        if shutil.disk_usage(self._folder).free < rows.nbytes + FREE_BYTES:
            return
        try:
            at = place
            for row in rows:
                view = row.view(np.uint8).data
                while len(view):
                    written = os.pwrite(self._file.fileno(), view, at)
                    view, at = view[written:], at + written
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                return
            raise
        self._places[start, rows.shape[1]] = place
