"""Files from elsewhere, read without waiting and without end."""

import errno
import os
import stat
from pathlib import Path


def read_regular(path: Path, limit: int) -> bytes:
    """The bytes of a regular file of at most `limit` bytes.

    Raises OSError for a pipe, a device or a socket, which might never end or never begin, and for a larger file.
    """
    # Not blocking: to open a pipe that nobody writes to would wait for ever.
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with open(handle, "rb") as file:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file; copy what it gives into one", str(path))
        # A read takes room for as much as it may bring, so it is asked for no more than there is.
        data = file.read(min(status.st_size, limit) + 1)
        if status.st_size < len(data) <= limit:  # the file has grown since, or it says no size
            data += file.read(limit + 1 - len(data))
    if len(data) > limit:
        raise OSError(errno.EFBIG, f"larger than {limit / 1e6:g} MB, the most that is read", str(path))
    return data
