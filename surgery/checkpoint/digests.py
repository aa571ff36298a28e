"""The SHA-256 of whole files, and a cache that spares hashing a file twice.

The cache knows a file by device, inode, size, modification time and change time. The last can't be set: a file that is
written again and given its old modification time is hashed again.
"""

import hashlib
import os
import re
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from platformdirs import user_cache_path

from vlsurgery.surgery.errors import CheckpointError
from vlsurgery.surgery.runtime.progress import Progress, no_progress
from vlsurgery.surgery.runtime.worker_pool import cores, map_ordered, worker_pool

CACHE: Final = "hashes.txt"
# A longer cache is begun anew; a line takes about 150 bytes.
MAX_CACHE_BYTES: Final = 1 << 23
# A file that changed less than so many seconds before it was hashed is not kept: a clock that ticks coarsely could give
# the next change the same time.
MIN_AGE: Final = 2.0

_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


def file_digest(path: Path) -> str:
    """The SHA-256 of a file, as hex. Raises CheckpointError that names it."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(f"{path}: can't be read ({error.strerror or error}).") from error


def file_digests(paths: Iterable[Path], progress: Progress = no_progress, reread: bool = False) -> dict[Path, str]:
    """Path -> SHA-256 of every file, hashed in a thread per core.

    reread: read every byte again, instead of trusting the cache for files that were hashed before and did not change.
    The cache is in the user's cache directory; where that can't be written, every file is read.

    Raises CheckpointError that names a file that can't be read.
    """
    before = {path: _key(path) for path in dict.fromkeys(paths)}
    known = {} if reread else _load()
    found = {path: known[key] for path, key in before.items() if key in known}
    missing = [path for path in before if path not in found]
    if missing:
        with worker_pool() as pool:
            made = map_ordered(pool, file_digest, missing, 2 * cores())
            found |= zip(missing, progress(made, "hashing weights", len(missing)), strict=True)
        _store({key: found[path] for path in missing if (key := before[path]) is not None and _key(path) == key})
    return {path: found[path] for path in before}


def stat_key(status: os.stat_result) -> str | None:
    """What tells a file from every other one and from its own later states; None where the system can't tell: the file
    changed just now, or Windows, where a change leaves no time that can't be set."""
    if os.name == "nt" or time.time() - status.st_ctime < MIN_AGE:
        return None
    return f"{status.st_dev}:{status.st_ino}:{status.st_size}:{status.st_mtime_ns}:{status.st_ctime_ns}"


def _key(path: Path) -> str | None:
    try:
        return stat_key(path.stat())
    except OSError as error:
        raise CheckpointError(f"{path}: can't be read ({error.strerror or error}).") from error


def _file() -> Path:
    return user_cache_path("vlsurgery") / CACHE


def _load() -> dict[str | None, str]:
    """The cache, key -> SHA-256; lines that are damaged are left out."""
    try:
        text = _file().read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    found: dict[str | None, str] = {}
    for line in text.splitlines():
        key, _, digest = line.partition(" ")
        if _DIGEST.fullmatch(digest):
            found[key] = digest
    return found


def _store(digests: Mapping[str, str]) -> None:
    """Append to the cache, in one write, so that processes don't mix their lines."""
    if not digests:
        return
    file = _file()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.exists() and file.stat().st_size > MAX_CACHE_BYTES:
            file.unlink()
        with file.open("ab", buffering=0) as out:
            out.write("".join(f"{key} {digest}\n" for key, digest in digests.items()).encode())
    except OSError:
        return  # No place for a cache: the next run hashes again.
