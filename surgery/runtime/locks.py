"""Locks that keep other processes out. The system releases them when a process dies."""

import errno
from typing import Literal

try:
    import fcntl
except ImportError:  # Windows has no such locks.
    fcntl = None  # type: ignore[assignment]

# What a file system without locks answers; a network file system doesn't lock directories (EBADF).
NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK, errno.EBADF)


def lock(descriptor: int) -> Literal["ours", "taken", "no locks"]:
    """Lock an open file or directory until it is closed: `ours`, or what hinders it. Never waits."""
    if fcntl is None:
        return "no locks"
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return "taken"
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        return "no locks"
    return "ours"
