"""Files of JSON, an object a line, that grow: an append is there whole, or it never was.

A process that is killed, or a disk that is full, can cut the last line off. Nobody reads such a line, and the next
append takes it away.
"""

import json
import os
from io import FileIO
from pathlib import Path
from typing import Final

from vlsurgery.surgery.runtime.atomic_file import open_own

BLOCK: Final = 1 << 16


def whole_lines(content: bytes) -> list[bytes]:
    """The lines of a file, without one at its end that was cut off."""
    lines = content.split(b"\n")
    if not lines[-1].strip() or _is_cut(lines[-1]):
        lines.pop()
    return lines


def append_lines(path: Path, text: str) -> None:
    """Add whole lines, and have them on the disk on return. When that fails, the file is as long as it was.

    Raises OSError that names the file, as `open_own`.
    """
    descriptor = open_own(path)
    try:
        with os.fdopen(descriptor, "r+b", buffering=0) as file:
            last = _last_line(file)
            end = file.seek(0, os.SEEK_END) - (len(last) if _is_cut(last) else 0)
            file.truncate(end)
            gap = b"\n" if last and not _is_cut(last) else b""
            try:
                _write(descriptor, gap + text.encode())
                os.fsync(descriptor)
            except BaseException:
                file.truncate(end)
                raise
    except OSError as error:
        raise type(error)(error.errno, error.strerror or str(error), str(path)) from error


def _last_line(file: FileIO) -> bytes:
    """What is behind the last line's end: nothing, unless a write was cut off. Reads from the end, in blocks."""
    place, found = file.seek(0, os.SEEK_END), b""
    while place and b"\n" not in found:
        size = min(place, BLOCK)
        place = file.seek(place - size)
        found = file.read(size) + found
    return found[found.rfind(b"\n") + 1 :]


def _is_cut(line: bytes) -> bool:
    """Whether the last line of a file, which has no line's end, is no whole object."""
    if not line.strip():
        return False
    try:
        json.loads(line)
    except ValueError:
        return True
    except RecursionError:
        return False
    return False


def _write(descriptor: int, content: bytes) -> None:
    """Write all of it: a write on a disk that is almost full takes a part."""
    while content:
        content = content[os.write(descriptor, content) :]
