"""Files that are written whole or not at all, and never through a link."""

import errno
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from vlsurgery.surgery.runtime.locks import lock

# Windows has neither; there, links need a privilege.
NO_FOLLOW: Final = getattr(os, "O_NOFOLLOW", 0)
NO_WAIT: Final = getattr(os, "O_NONBLOCK", 0)
BINARY: Final = getattr(os, "O_BINARY", 0)
# The names that `replacing` gives its new files.
LEFT: Final = re.compile(r"\.[0-9a-f]{16}\.partial(\..{0,31})?")


def write_text(path: Path, text: str) -> None:
    """Write a small file atomically: a reader sees the old text or the whole new one, never half.

    Raises OSError that names the file.
    """
    content = text.encode()
    with replacing(path) as fresh, fresh.open("r+b") as file:
        file.write(content)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A new empty file beside `path`, with the same suffix, which takes its place when the block succeeds; its bytes
    are on the disk by then. When the block fails, the new file is removed.

    Its name is nobody's: two processes never share it, and nobody can have put a link there. A link at `path` is
    replaced itself, and not what it leads to. Raises OSError that names `path`.
    """
    fresh = path.with_name(f".{secrets.token_hex(8)}.partial{path.suffix[:32]}")
    try:
        with _locked(new_file(fresh)):
            try:
                yield fresh
                with fresh.open("rb+") as file:
                    os.fsync(file.fileno())
                os.replace(fresh, path)
            finally:
                fresh.unlink(missing_ok=True)
    except OSError as error:
        # A write names no file, and nobody knows the new file's name.
        raise type(error)(error.errno, error.strerror or str(error), str(path)) from error


def remove_left(folder: Path) -> None:
    """Remove the new files that processes left in a folder when they were killed. One that a process is writing is
    locked, and stays."""
    for path in folder.iterdir():
        if not LEFT.fullmatch(path.name) or not stat.S_ISREG(path.lstat().st_mode):
            continue
        try:
            descriptor = os.open(path, os.O_RDWR | NO_FOLLOW | NO_WAIT | BINARY)
        except OSError:
            continue  # It has been put in its place, or it is not ours to open.
        try:
            if lock(descriptor) == "ours":
                path.unlink(missing_ok=True)
        finally:
            os.close(descriptor)


@contextmanager
def _locked(descriptor: int) -> Iterator[None]:
    """Keep a new file locked, where the system has locks: `remove_left` then leaves it. It is closed at the end."""
    held = lock(descriptor) == "ours"
    if not held:
        os.close(descriptor)  # Windows renames no open file.
    try:
        yield
    finally:
        if held:
            os.close(descriptor)


def new_file(path: Path) -> int:
    """The descriptor of a new file, open for reading and writing. Raises FileExistsError where anything is there
    already, be it a link to nowhere."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | NO_FOLLOW | BINARY, 0o666)


def open_own(path: Path) -> int:
    """The descriptor of a file that we add to, made where it is missing.

    Raises OSError that names the file where it is a link, has another name too (a hard link), or is no regular file:
    writing there would change something else.
    """
    if path.is_symlink():
        raise OSError(errno.EPERM, "it is a link, and links are not written through", str(path))
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | NO_FOLLOW | NO_WAIT | BINARY, 0o666)
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        os.close(descriptor)
        what = "another name leads to the same file" if stat.S_ISREG(found.st_mode) else "it is no regular file"
        raise OSError(errno.EPERM, what, str(path))
    return descriptor
