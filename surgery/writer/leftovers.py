"""Which files of a directory a merge wrote, and which are somebody else's. Links are never followed."""

import os
import re
import secrets
import stat
from collections.abc import Collection
from pathlib import Path
from typing import Final

from vlsurgery.surgery.checkpoint.digests import file_digest
from vlsurgery.surgery.errors import CheckpointError
from vlsurgery.surgery.writer.checksums import SUMS, listed_sums
from vlsurgery.surgery.writer.journal import JOURNAL

# A shard's ending until it is finished. A worker's attempt at one has a token before it: no two share a file.
UNFINISHED: Final = ".partial"
TOKEN: Final = re.compile(r"\.[0-9a-f]{16}$", re.ASCII)
# Files up to here are compared by content, larger ones only where they were written to after the list of hashes.
COMPARED_BYTES: Final = 1 << 26


def attempt_at(path: Path) -> Path:
    """A name for one attempt at writing a file, which nobody else has."""
    return path.with_name(f"{path.name}.{secrets.token_hex(8)}{UNFINISHED}")


def remove_attempts(folder: Path, files: Collection[str]) -> None:
    """Remove what attempts at these files left in a directory. One that is still written to goes on without a name."""
    for home in {Path(name).parent for name in files}:
        for path in (folder / home).iterdir() if (folder / home).is_dir() else ():
            is_attempt = _attempted(str(path.relative_to(folder))) in files
            if is_attempt and _is_regular(path) and not _through_link(folder, path):
                path.unlink(missing_ok=True)


def _attempted(name: str) -> str | None:
    """The file that an attempt of this name was at; None where it is no attempt's name."""
    stem = name.removesuffix(UNFINISHED)
    return TOKEN.sub("", stem) if stem != name and TOKEN.search(stem) else None


def strangers(folder: Path, files: Collection[str]) -> list[str]:
    """The names in a directory that are none of `files`, finished or not, and not the journal; sorted. A link is
    always one of them, and so is a directory that holds no file of `files`."""
    known = {JOURNAL, *files, *(name + UNFINISHED for name in files)}
    homes = {str(parent) for name in files for parent in Path(name).parents}
    found = []
    for place, folders, names in os.walk(folder):
        here = Path(place).relative_to(folder)
        found += [str(here / name) for name in folders if not _is_home(folder, here / name, homes)]
        found += [
            str(here / name)
            for name in names
            if not (str(here / name) in known or _attempted(str(here / name)) in files)
            or not _is_regular(Path(place, name))
        ]
        folders[:] = [name for name in folders if _is_home(folder, here / name, homes)]
    return sorted(found)


def remove_files(folder: Path, files: Collection[str]) -> None:
    """Remove these files, finished or not, and directories that are empty then. What has another kind now stays, and
    so does all else."""
    remove_attempts(folder, files)
    for name in files:
        for path in (folder / name, folder / (name + UNFINISHED)):
            if _is_regular(path) and not _through_link(folder, path):
                path.unlink()
    homes = {parent for name in files for parent in Path(name).parents if parent != Path()}
    for home in sorted(homes, key=lambda parent: len(parent.parts), reverse=True):
        path = folder / home
        if path.is_dir() and not path.is_symlink() and not _through_link(folder, path) and not any(path.iterdir()):
            path.rmdir()


def written_by_us(folder: Path) -> list[str]:
    """The files of a finished merge that are as it wrote them, by its SHA256SUMS, and the list itself, last. Empty
    where there is no such list."""
    sums = folder / SUMS
    if not _is_regular(sums):
        return []
    try:
        listed = listed_sums(folder)
    except CheckpointError:
        return []  # Not our list, so nothing is known to be ours.
    written = os.lstat(sums).st_mtime_ns
    names = [name for name, digest in listed.items() if _is_as_written(folder, name, digest, written)]
    return [*names, SUMS]


def _is_as_written(folder: Path, name: str, digest: str, written: int) -> bool:
    path = folder / name
    if not _is_regular(path) or _through_link(folder, path):
        return False
    found = os.lstat(path)
    trusted = found.st_size > COMPARED_BYTES and found.st_mtime_ns <= written
    return trusted or file_digest(path) == digest


def _is_home(folder: Path, name: Path, homes: Collection[str]) -> bool:
    return str(name) in homes and not (folder / name).is_symlink()


def _is_regular(path: Path) -> bool:
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _through_link(folder: Path, path: Path) -> bool:
    """Whether a directory between `folder` and a path in it is a link."""
    return any(parent.is_symlink() for parent in path.parents if parent != folder and parent.is_relative_to(folder))
