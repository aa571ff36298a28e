"""SHA256SUMS: the SHA-256 of every file of a merge as it was written, in the format of `sha256sum`."""

import os
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vlsurgery.surgery.checkpoint.digests import file_digest
from vlsurgery.surgery.checkpoint.shards import check_name
from vlsurgery.surgery.errors import CheckpointError
from vlsurgery.surgery.runtime.bounded_json import MAX_BYTES
from vlsurgery.surgery.runtime.progress import Progress, no_progress
from vlsurgery.surgery.runtime.regular_file import read_regular
from vlsurgery.surgery.runtime.worker_pool import cores, map_ordered
from vlsurgery.surgery.writer.journal import JOURNAL

SUMS: Final = "SHA256SUMS"

_LINE: Final = re.compile(r"(?P<escaped>\\?)(?P<digest>[0-9a-f]{64}) [ *](?P<name>.+)")
_ESCAPES: Final = {"\\": "\\\\", "\n": "\\n", "\r": "\\r"}
_ESCAPED: Final = {escape: letter for letter, escape in _ESCAPES.items()}


@dataclass(frozen=True)
class Verified:
    """How a directory compares with its SHA256SUMS: names of files, sorted.

    differ: other bytes than were written. missing: listed and absent. unlisted: present and not listed.
    """

    agree: tuple[str, ...]
    differ: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    unlisted: tuple[str, ...] = ()

    @property
    def fault(self) -> str | None:
        """Every file that is not as it was written, in words; None where all are."""
        groups = {"other bytes than were written": self.differ, "missing": self.missing, "not listed": self.unlisted}
        found = [f"{', '.join(names)} ({what})" for what, names in groups.items() if names]
        return "; ".join(found) or None


def verify(folder: Path, progress: Progress = no_progress) -> Verified:
    """Hash every file of a merged checkpoint and compare it with SHA256SUMS; hidden directories are left out.

    Raises CheckpointError when SHA256SUMS is missing or no such list, or when a file can't be read.
    """
    listed = listed_sums(folder)
    there = _files(folder)
    known = sorted(name for name in there & listed.keys() if (folder / name).is_file())  # a pipe would never end
    with ThreadPoolExecutor(cores()) as pool:
        digests = map_ordered(pool, lambda name: file_digest(folder / name), known, 2 * cores())
        found = dict(zip(known, progress(digests, f"verifying {folder.name}", len(known)), strict=True))
    return compare(found | dict.fromkeys(there - found.keys(), ""), listed)


def compare(found: Mapping[str, str], listed: Mapping[str, str]) -> Verified:
    """How files compare with a list of them; both name -> SHA-256."""
    known = sorted(found.keys() & listed.keys())
    return Verified(
        agree=tuple(name for name in known if found[name] == listed[name]),
        differ=tuple(name for name in known if found[name] != listed[name]),
        missing=tuple(sorted(listed.keys() - found.keys())),
        unlisted=tuple(sorted(found.keys() - listed.keys())),
    )


def sums_text(digests: Mapping[str, str]) -> str:
    """The list of name -> SHA-256 that `sha256sum -c` reads, sorted by name."""
    return "".join(_line(name, digest) for name, digest in sorted(digests.items()))


def _line(name: str, digest: str) -> str:
    escaped = "".join(_ESCAPES.get(letter, letter) for letter in name)
    return f"{'' if escaped == name else chr(92)}{digest}  {escaped}\n"


def listed_sums(folder: Path) -> dict[str, str]:
    """Name -> SHA-256, as a merge's list says. Raises CheckpointError where there is none, or it is no such list."""
    path = folder / SUMS
    try:
        text = read_regular(path, MAX_BYTES).decode("utf-8", "surrogateescape").replace("\r\n", "\n")
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{folder}: no {SUMS} in it, so nothing to compare it with. Merges that vlsurgery writes have one."
        ) from error
    except OSError as error:
        raise CheckpointError(f"{path}: can't be read ({error.strerror or error}).") from error
    listed = {}
    for number, line in enumerate(text.removesuffix("\n").split("\n"), 1):
        match = _LINE.fullmatch(line)
        if match is None:
            raise CheckpointError(
                f"{path}: line {number} is not a SHA-256 and a file's name. Take the list that came with the files."
            )
        name = re.sub(r"\\.", lambda escape: _ESCAPED.get(escape[0], escape[0]), match["name"])
        listed[check_name(folder, name if match["escaped"] else match["name"])] = match["digest"]
    return listed


def _files(folder: Path) -> set[str]:
    """Every file of a directory by its relative name, without SHA256SUMS and the journal."""
    found = set()
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found |= {str((Path(place) / name).relative_to(folder)) for name in files}
    return found - {SUMS, JOURNAL}
