"""The output directory of a merge: complete under its name, or absent."""

import errno
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from vlsurgery.surgery.errors import SurgeryError, TargetError
from vlsurgery.surgery.runtime.atomic_file import new_file
from vlsurgery.surgery.runtime.byte_counts import in_words
from vlsurgery.surgery.runtime.progress import Notify, no_notify
from vlsurgery.surgery.writer.journal import JOURNAL, Journal
from vlsurgery.surgery.writer.leftovers import remove_files, strangers, written_by_us

RECIPE: Final = "recipe.yaml"
CASE: Final = "case.json"
WEIGHTS: Final = (".safetensors", ".bin")
# What the journal of a former merge holds, which is put into it before it is renamed and then removed.
FORMER: Final = b'{"former": true}\n'
MARK: Final = re.compile(rb"^schema: vlsurgery/recipe/\d+", re.MULTILINE)


def check_target(out: Path, inputs: Iterable[Path], needed: int) -> None:
    """Raise TargetError, before anything is written, for a target that can't or must not be written.

    inputs: directories that are read. needed: bytes that the merge takes. It is refused when `out` lies in an input or
    holds one (links are followed), exists and is not a former merge, can't be made, or when the disk is too full.
    """
    real = Path(os.path.realpath(out))
    for path in inputs:
        for source in _homes(path):
            if real.is_relative_to(source) or source.is_relative_to(real):
                raise TargetError(f"{out}: would write over the checkpoint {path}. Give another directory with -o.")
    with _faults(out):
        if out.exists() and not _replaceable(out):
            raise TargetError(
                f"{out}: exists and is not a merge of ours. Give another directory with -o, or remove it."
            )
        _check_left(partial_of(out), _is_partial)
        _check_left(former_of(out), _is_former)
        real.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(real.parent).free + _taken(partial_of(out))
    if free < needed:
        raise TargetError(
            f"{out}: the merge needs {in_words(needed)}, but only {in_words(free)} are free there. Make room, or give "
            "a directory on another disk with -o."
        )


@contextmanager
def target(
    out: Path, order: str, files: Iterable[str], needed: int, note: Notify = no_notify
) -> Iterator[tuple[Path, Journal]]:
    """A directory beside `out` to write into, renamed to `out` when the block succeeds; and its journal.

    order: the digest of recipe, plan and inputs. Files that an earlier run of the same order finished are still there
    and in the journal; files of another order are removed. files: the names that this one writes. needed: bytes that
    the merge takes in all. note: is told when something was removed or moved aside.

    When the block fails, `out` is as it was; the directory is kept if a file in it is finished, else removed. A former
    merge under `out` is replaced by two renames; what it did not write itself is moved to OUT-1, OUT-2, ... Raises
    TargetError for what the disk refuses, when another process writes there, and when somebody else's files are in the
    directory beside `out`.
    """
    real, partial, former = Path(os.path.realpath(out)), partial_of(out), former_of(out)
    with _faults(out, needed):
        journal = Journal.claim(partial, note)
        try:
            with _keeping(partial, journal), _faults(out, needed):
                if _is_former(former) and not os.path.lexists(real):
                    os.rename(former, real)  # a merge was killed between its two renames
                    (real / JOURNAL).unlink()
                _begin(partial, journal, order, files, note)
                yield partial, journal
                for folder in (partial, *(path for path in partial.rglob("*") if path.is_dir())):
                    _sync(folder)
                _swap(partial, real, former, note)
            # Until here the journal's lock kept other processes out.
            (real / JOURNAL).unlink()
            _sync(real.parent)
        finally:
            journal.close()


def partial_of(out: Path) -> Path:
    """Where a merge is written until it is complete: OUT.partial beside OUT."""
    real = Path(os.path.realpath(out))
    return real.with_name(real.name + ".partial")


def former_of(out: Path) -> Path:
    """Where a former merge is kept between the two renames that replace it."""
    real = Path(os.path.realpath(out))
    return real.with_name(real.name + ".former")


def _homes(folder: Path) -> set[Path]:
    """The directories of a checkpoint's weights: its own, and those that its links lead to (as in a Hub cache)."""
    links = (file for file in folder.glob("*") if file.is_symlink() and file.name.endswith(WEIGHTS))
    return {Path(os.path.realpath(folder)), *(Path(os.path.realpath(link)).parent for link in links)}


def _replaceable(out: Path) -> bool:
    """Whether a directory may be replaced: it is empty, or a finished merge. A case holds a recipe too, and is kept."""
    if not out.is_dir():
        return False
    names = {entry.name for entry in out.iterdir()}
    if not names:
        return True
    recipe = out / RECIPE
    ours = _is_file(recipe) and MARK.search(recipe.read_bytes()[:10_000]) is not None
    return ours and "config.json" in names and CASE not in names


def _check_left(folder: Path, is_ours: Callable[[Path], bool]) -> None:
    """Raise TargetError where something else than a directory that our merge left is at its place."""
    if os.path.lexists(folder) and not is_ours(folder):
        raise TargetError(f"{folder}: is in the way, and not left by a merge of ours. Move or remove it.")


def _is_partial(folder: Path) -> bool:
    """Whether an unfinished merge of ours left the directory: it holds a journal, or nothing yet."""
    return _is_own_directory(folder) and (_is_file(folder / JOURNAL) or not any(folder.iterdir()))


def _is_former(folder: Path) -> bool:
    """Whether the directory is a merge that was being replaced."""
    journal = folder / JOURNAL
    return _is_own_directory(folder) and _is_file(journal) and journal.read_bytes()[: len(FORMER) + 1] == FORMER


def _is_own_directory(folder: Path) -> bool:
    """Whether this is a directory, no link to one and no case, of the user whose files new ones here are."""
    try:
        found = os.lstat(folder)
    except FileNotFoundError:
        return False
    return stat.S_ISDIR(found.st_mode) and not os.path.lexists(folder / CASE) and found.st_uid == _owner(folder.parent)


def _owner(folder: Path) -> int:
    """Whose a new file in the directory is. Asked of the file system: some give all files to one user."""
    probe = folder / f".{secrets.token_hex(8)}.partial"
    descriptor = new_file(probe)
    try:
        return os.fstat(descriptor).st_uid
    finally:
        os.close(descriptor)
        probe.unlink()


def _is_file(path: Path) -> bool:
    """Whether this is a regular file, and no link to one."""
    return path.is_file() and not path.is_symlink()


def _begin(partial: Path, journal: Journal, order: str, files: Iterable[str], note: Notify) -> None:
    """Resume the same order, or empty the directory for another one. Raises TargetError for somebody else's files."""
    others = strangers(partial, journal.files)
    if others:
        raise TargetError(
            f"{partial}: holds {', '.join(others[:3])}{' and others' if others[3:] else ''}, which no merge of ours "
            "wrote. Move the directory away, or give another one with -o."
        )
    if journal.order == order:
        return
    if any(entry.name != JOURNAL for entry in partial.iterdir()):
        note(f"{partial}: was left by another merge, or by another version; begun afresh.")
    journal.finished.clear()
    remove_files(partial, journal.files)
    journal.begin(order, files)


@contextmanager
def _keeping(partial: Path, journal: Journal) -> Iterator[None]:
    """After a fault, keep the directory and say so if a file in it is finished; else remove it."""
    try:
        yield
    except BaseException as error:
        if not journal.finished:
            remove_files(partial, journal.files)
            _remove_if_empty(partial)
        elif isinstance(error, SurgeryError):
            raise type(error)(
                f"{error} Finished files ({len(journal.finished)}) are kept in {partial}; the same command goes on "
                "from them."
            ) from error
        raise


def _remove_if_empty(folder: Path) -> None:
    """Remove a directory that holds nothing but its journal, the journal last: if this is interrupted, the directory
    is still known to be a merge's, and no other process begins in it."""
    if any(entry.name != JOURNAL for entry in folder.iterdir()):
        return
    (folder / JOURNAL).unlink(missing_ok=True)
    try:
        folder.rmdir()
    except OSError as error:
        # Another process began there meanwhile, and owns it now.
        if error.errno != errno.ENOTEMPTY:
            raise


def _swap(partial: Path, out: Path, former: Path, note: Notify) -> None:
    """Replace `out` by `partial`. When that fails half-way, the former `out` is restored."""
    _check_left(former, _is_former)
    if not os.path.lexists(out):
        os.rename(partial, out)
        return
    _retire(former, out, note)
    marker = out / JOURNAL
    marker.unlink(missing_ok=True)  # a merge was killed behind its renames
    try:
        with os.fdopen(new_file(marker), "r+b") as file:
            file.write(FORMER)
        os.rename(out, former)
        os.rename(partial, out)
    except BaseException:
        if not os.path.lexists(out):
            os.rename(former, out)
        marker.unlink(missing_ok=True)
        raise
    _retire(former, out, note)


def _retire(former: Path, out: Path, note: Notify) -> None:
    """Remove what a former merge wrote, and move aside what it did not: the user's files, and files that the user
    changed."""
    if not former.exists():
        return
    remove_files(former, written_by_us(former))
    _remove_if_empty(former)
    if not former.exists():
        return
    number = 1
    while os.path.lexists(aside := out.with_name(f"{out.name}-{number}")):
        number += 1
    kept = sorted(entry.name for entry in former.iterdir() if entry.name != JOURNAL)
    os.rename(former, aside)
    (aside / JOURNAL).unlink(missing_ok=True)
    note(f"{aside}: has what was in {out} and not as the merge before wrote it: {', '.join(kept)}")


def _sync(folder: Path) -> None:
    """Flush a directory's entries to the disk: otherwise a power cut can lose a renamed file."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _faults(out: Path, needed: int = 0) -> Iterator[None]:
    """Raise what the operating system refuses as a TargetError. Faults of reading raise their own errors before."""
    try:
        yield
    except OSError as error:
        raise TargetError(
            f"{out}: can't be written ({error.strerror or error}). {_advice(out, error, needed)}"
        ) from error


def _advice(out: Path, error: OSError, needed: int) -> str:
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return "Give another directory with -o."
    partial = partial_of(out)
    free = shutil.disk_usage(partial.parent).free
    more = max(0, needed - _taken(partial))
    missing = f": {in_words(more - free)} are missing" if more > free else ""
    return (
        f"{in_words(more)} are still to be written, and {in_words(free)} are free there{missing}. Make room and give "
        "the same command again, or give a directory on another disk with -o."
    )


def _taken(folder: Path) -> int:
    """Bytes that a directory's files take on the disk, reserved ones included."""
    if not folder.exists():
        return 0
    return sum(file.stat().st_blocks * 512 for file in folder.rglob("*") if file.is_file())
