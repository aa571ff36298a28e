"""The journal of an unfinished merge: which files are finished; and the lock that keeps other processes out."""

import json
import os
from collections.abc import Iterable
from io import FileIO
from pathlib import Path
from typing import Any, Final

from vlsurgery.surgery.errors import TargetError
from vlsurgery.surgery.runtime.atomic_file import open_own
from vlsurgery.surgery.runtime.bounded_json import parse_json
from vlsurgery.surgery.runtime.locks import lock
from vlsurgery.surgery.runtime.progress import Notify, no_notify

JOURNAL: Final = ".vlsurgery-journal"


class Journal:
    """A file of JSON lines in the directory of an unfinished merge: the digest of its plan, then a line per finished
    file. While it is open, no other process can open it.

    order: the digest of recipe, plan and inputs; None where nothing was begun. files: the names that the order writes;
    what else is in the directory is somebody else's. finished: file -> SHA-256, noted when its bytes were written. A
    power cut can lose those bytes: hash the file again before trusting it. non_finite: finished file -> its tensors of
    which copied entries are NaN or infinite. sums: finished file -> the numbers that are added up over all files.
    """

    def __init__(self, file: FileIO) -> None:
        self._file = file
        self.order: str | None = None
        self.files: frozenset[str] = frozenset()
        self.finished: dict[str, str] = {}
        self.non_finite: dict[str, list[str]] = {}
        self.sums: dict[str, tuple[float, ...]] = {}
        self._read()

    @classmethod
    def claim(cls, folder: Path, note: Notify = no_notify) -> "Journal":
        """Open and lock the journal of the directory `folder`; both are made where they are missing.

        note: is told where there are no locks, so that people must keep each other out.

        Raises TargetError when another process has it open, or when the directory is a link. A journal that is a link
        is not opened (OSError).
        """
        path = folder / JOURNAL
        while True:
            check_real_directory(folder)
            folder.mkdir(exist_ok=True)
            try:
                file = FileIO(open_own(path), "a+b")
            except FileNotFoundError:
                continue  # the directory was renamed in between
            try:
                if _locked(file, folder, note):
                    return cls(file)
            except BaseException:
                file.close()
                raise
            file.close()

    def begin(self, order: str, files: Iterable[str] = ()) -> None:
        """Empty the journal and begin another order, which writes these files."""
        self._file.truncate(0)
        self.finished.clear()
        self.non_finite.clear()
        self.sums.clear()
        self.order, self.files = order, frozenset(files)
        self._append({"order": order, **({"files": sorted(self.files)} if self.files else {})})

    def add(self, file: str, digest: str, non_finite: Iterable[str] = (), sums: Iterable[float] = ()) -> None:
        """Note that a file is finished; its bytes are written already."""
        names, numbers = sorted(non_finite), tuple(sums)
        more = {"non_finite": names, "sums": numbers}
        self._append({"file": file, "sha256": digest} | {key: value for key, value in more.items() if value})
        self.finished[file], self.non_finite[file], self.sums[file] = digest, names, numbers

    def close(self) -> None:
        """Release the lock."""
        self._file.close()

    def _append(self, line: dict[str, Any]) -> None:
        text = json.dumps(line).encode() + b"\n"
        if self._file.write(text) != len(text):
            raise OSError(f"{JOURNAL}: a line was cut off")

    def _read(self) -> None:
        """Read every valid line, and truncate the file behind the last one."""
        self._file.seek(0)
        good = 0
        for line in self._file.readall().splitlines(keepends=True):
            if not self._take(line):
                break
            good += len(line)
        self._file.truncate(good)

    def _take(self, line: bytes) -> bool:
        """Read one line. Returns whether it is a valid one."""
        try:
            entry = parse_json(line) if line.endswith(b"\n") else None
        except ValueError:
            return False
        match entry:
            case {"order": str(order), "files": list(files)} if self.order is None:
                self.order, self.files = order, frozenset(map(str, files))
            case {"order": str(order)} if self.order is None:
                self.order = order
            case {"file": str(file), "sha256": str(digest), **more} if self.order is not None:
                self.finished[file] = digest
                self.non_finite[file] = list(map(str, _listed(more, "non_finite")))
                self.sums[file] = tuple(each for each in _listed(more, "sums") if isinstance(each, float))
            case _:
                return False
        return True


def _listed(line: dict[Any, Any], key: str) -> list[Any]:
    """A line's list under a key; empty where it has none."""
    value = line.get(key)
    return value if isinstance(value, list) else []


def check_real_directory(folder: Path) -> None:
    """Raise TargetError where a link is in the place of a directory that is written into."""
    if folder.is_symlink():
        raise TargetError(f"{folder}: is a link, and not left by a merge of ours. Move or remove it.")


def _locked(file: FileIO, folder: Path, note: Notify) -> bool:
    """Lock a journal. Returns whether it is still the one in `folder`, now that no other process can rename it."""
    match lock(file.fileno()):
        case "taken":
            raise TargetError(
                f"{folder}: another process is merging into it. Wait until it is done, or give another directory "
                "with -o."
            )
        case "no locks":
            note(f"{folder}: its file system has no locks; see to it that nobody else merges into it.")
    path = folder / JOURNAL
    return path.exists() and os.path.samestat(path.stat(), os.fstat(file.fileno()))
