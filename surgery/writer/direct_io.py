"""Direct writes, past the page cache: what is written once and not read again evicts nothing from memory.

The page cache copies every byte, which costs a merge a quarter of its writing time. A direct write wants address,
offset and length to be multiples of a page, so data lies in memory at the same offset in a page as in the file; its
first and last page, where they are not whole, go through the cache. Where the file system has no direct writes, all
of it does.
"""

import errno
import os
import threading
from pathlib import Path
from typing import Final

# Bytes that address, offset and length of a direct write are multiples of: no disk in use has larger blocks.
PAGE: Final = 4096

# Bytes written through the page cache after which they are sent to the disk and dropped from the cache. Otherwise a
# merge would evict its own inputs, and leave all of its writing to the last fsync.
FLUSH_BYTES: Final = 1 << 27


class DirectFile:
    """An existing file, long enough already, open for writing; every method may be called from any thread."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("r+b", buffering=0)
        self._direct = _open_direct(path)
        self._cached = 0
        self._lock = threading.Lock()

    def write(self, data: memoryview, offset: int) -> None:
        """Write `data` at `offset`; its address and `offset` are the same modulo a page."""
        stop = offset + len(data)
        first, last = -(-offset // PAGE) * PAGE, stop // PAGE * PAGE
        done = offset
        if self._direct is not None and first < last:
            self._through_cache(data[: first - offset], offset)
            done = self._around_cache(self._direct, data[first - offset : last - offset], first)
        self._through_cache(data[done - offset :], done)

    def sync(self) -> None:
        """Wait until everything that was written is on the disk, and drop its pages from the cache."""
        os.fsync(self._file.fileno())
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    def close(self) -> None:
        self._file.close()
        if self._direct is not None:
            os.close(self._direct)
            self._direct = None

    def _around_cache(self, descriptor: int, data: memoryview, offset: int) -> int:
        """Write whole pages directly. Returns the offset behind the last byte written: less than all where the file
        system refuses, and the rest goes through the cache."""
        done = 0
        while done < len(data):
            try:
                done += os.pwrite(descriptor, data[done:], offset + done)
            except OSError as error:
                # Some file systems open for direct writes and refuse them, or refuse after a full disk cut one short.
                if error.errno != errno.EINVAL:
                    raise
                break
        return offset + done

    def _through_cache(self, data: memoryview, offset: int) -> None:
        done = 0
        while done < len(data):
            done += os.pwrite(self._file.fileno(), data[done:], offset + done)
        with self._lock:
            self._cached += len(data)
            due = self._cached >= FLUSH_BYTES
            if due:
                self._cached = 0
        if due:
            self.sync()


def _open_direct(path: Path) -> int | None:
    """A descriptor for direct writes; None where the system or the file system has none."""
    if not hasattr(os, "O_DIRECT"):
        return None
    try:
        return os.open(path, os.O_WRONLY | os.O_DIRECT)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return None
