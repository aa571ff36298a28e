"""Writing around the page cache: what is written once and not read again should push nothing else out of memory.

The page cache takes a copy of every byte and a fresh page for it, which costs the processor more than a merge's
arithmetic does. Direct writes go from our memory to the disk; the price is that memory, place and length must be
multiples of a page. So data lies in memory as it will lie in the file, relative to a page, and only what it has of its
first and its last page goes through the cache. File systems that know no direct writes get ordinary ones.
"""

import errno
import os
import threading
from pathlib import Path
from typing import Final

# What place, length and address of a direct write are multiples of: no disk in use has larger blocks.
PAGE: Final = 4096

# Bytes after which what went through the page cache is sent to the disk and taken out of the cache. Without that, a
# merge would push its own inputs out of memory, and leave all of its writing to the last fsync.
FLUSH: Final = 1 << 27


class DirectFile:
    """A file that is there and long enough, and is being written; every method may be called from any thread."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("r+b", buffering=0)
        self._direct = _open_direct(path)
        self._cached = 0
        self._lock = threading.Lock()

    def write(self, data: memoryview, offset: int) -> None:
        """Write `data`, whose address and `offset` are the same number of bytes beyond a page's start."""
        stop = offset + len(data)
        first, last = -(-offset // PAGE) * PAGE, stop // PAGE * PAGE
        done = offset
        if self._direct is not None and first < last:
            self._through_cache(data[: first - offset], offset)
            done = self._around_cache(self._direct, data[first - offset : last - offset], first)
        self._through_cache(data[done - offset :], done)

    def sync(self) -> None:
        """Wait until everything that was written is on the disk, and let go of its pages."""
        os.fsync(self._file.fileno())
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    def close(self) -> None:
        self._file.close()
        if self._direct is not None:
            os.close(self._direct)
            self._direct = None

    def _around_cache(self, descriptor: int, data: memoryview, offset: int) -> int:
        """Write whole pages; up to which byte of the file that went. Where it ends early, ordinary writes go on."""
        done = 0
        while done < len(data):
            try:
                done += os.pwrite(descriptor, data[done:], offset + done)
            except OSError as error:
                # The file system let us open it so, and can't, or not at a place where a full disk cut a write short.
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
            due = self._cached >= FLUSH
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
