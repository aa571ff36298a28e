"""The output directory of a merge: complete under its name, or absent."""

import errno
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from vlsurgery.surgery.errors import SurgeryError, TargetError
from vlsurgery.surgery.runtime.progress import Notify, no_notify
from vlsurgery.surgery.writer.journal import JOURNAL, Journal

RECIPE: Final = "recipe.yaml"
WEIGHTS: Final = (".safetensors", ".bin")
# Files by which a directory is known to be a merge's.
KNOWN_BY: Final = (RECIPE, JOURNAL)
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
        for left in (partial_of(out), former_of(out)):
            if left.exists() and not _is_ours(left):
                raise TargetError(f"{left}: is in the way, and not left by a merge of ours. Move or remove it.")
        real.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(real.parent).free + _taken(partial_of(out))
    if free < needed:
        raise TargetError(
            f"{out}: the merge needs {in_words(needed)}, but only {in_words(free)} are free there. Make room, or give "
            "a directory on another disk with -o."
        )


@contextmanager
def target(out: Path, order: str, needed: int, note: Notify = no_notify) -> Iterator[tuple[Path, Journal]]:
    """A directory beside `out` to write into, renamed to `out` when the block succeeds; and its journal.

    order: the digest of recipe, plan and inputs. Files that an earlier run of the same order finished are still there
    and in the journal; files of another order are removed. needed: bytes that the merge takes in all. note: is told
    when something was removed.

    When the block fails, `out` is as it was; the directory is kept if a file in it is finished, else removed. A former
    merge under `out` is replaced by two renames. Raises TargetError for what the disk refuses, and when another process
    writes there.
    """
    real, partial, former = Path(os.path.realpath(out)), partial_of(out), former_of(out)
    with _faults(out, needed):
        journal = Journal.claim(partial, note)
        try:
            with _keeping(partial, journal), _faults(out, needed):
                if former.exists() and not real.exists():
                    os.rename(former, real)  # a merge was killed between its two renames
                _begin(partial, journal, order, note)
                yield partial, journal
                for folder in (partial, *(path for path in partial.rglob("*") if path.is_dir())):
                    _sync(folder)
                _swap(partial, real, former)
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


def in_words(nbytes: int) -> str:
    """A size as people read it: "13.48 GB", "0.3 MB", "512 bytes"."""
    if nbytes < 100_000:
        return f"{nbytes} bytes"
    return f"{nbytes / 1e9:.2f} GB" if nbytes >= 1e9 else f"{nbytes / 1e6:.1f} MB"


def _homes(folder: Path) -> set[Path]:
    """The directories of a checkpoint's weights: its own, and those that its links lead to (as in a Hub cache)."""
    links = (file for file in folder.glob("*") if file.is_symlink() and file.name.endswith(WEIGHTS))
    return {Path(os.path.realpath(folder)), *(Path(os.path.realpath(link)).parent for link in links)}


def _replaceable(out: Path) -> bool:
    """Whether a directory may be replaced: it is empty, or a finished merge. A case holds a recipe too, and is kept."""
    if not out.is_dir():
        return False
    names = {entry.name for entry in out.iterdir()}
    return not names or (_is_ours(out) and "config.json" in names and "case.json" not in names)


def _is_ours(folder: Path) -> bool:
    """Whether a merge made the directory: it holds a recipe or a journal, or nothing yet."""
    recipe = folder / RECIPE
    if (folder / JOURNAL).is_file():
        return True
    if not recipe.is_file():
        return folder.is_dir() and not any(folder.iterdir())
    return MARK.search(recipe.read_bytes()[:10_000]) is not None


def _begin(partial: Path, journal: Journal, order: str, note: Notify) -> None:
    """Resume the same order, or empty the directory for another one."""
    if journal.order == order:
        return
    if any(entry.name != JOURNAL for entry in partial.iterdir()):
        note(f"{partial}: was left by another merge, or by another version; begun afresh.")
    journal.finished.clear()
    _empty(partial)
    journal.begin(order)


@contextmanager
def _keeping(partial: Path, journal: Journal) -> Iterator[None]:
    """After a fault, keep the directory and say so if a file in it is finished; else remove it."""
    try:
        yield
    except BaseException as error:
        if not journal.finished:
            _discard(partial)
        elif isinstance(error, SurgeryError):
            raise type(error)(
                f"{error} Finished files ({len(journal.finished)}) are kept in {partial}; the same command goes on "
                "from them."
            ) from error
        raise


def _empty(folder: Path) -> None:
    """Remove what is in the directory, except the files in KNOWN_BY."""
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry.name not in KNOWN_BY:
            entry.unlink()


def _discard(folder: Path) -> None:
    """Remove the directory, recipe and journal last: if this is interrupted, the rest is still known to be a merge's,
    and no other process begins in it."""
    if not folder.exists():
        return
    _empty(folder)
    for name in KNOWN_BY:
        (folder / name).unlink(missing_ok=True)
    try:
        folder.rmdir()
    except OSError as error:
        # Another process began there meanwhile, and owns it now.
        if error.errno != errno.ENOTEMPTY:
            raise


def _swap(partial: Path, out: Path, former: Path) -> None:
    """Replace `out` by `partial`. When that fails half-way, the former `out` is restored."""
    if not out.exists():
        os.rename(partial, out)
        return
    _discard(former)
    try:
        os.rename(out, former)
        os.rename(partial, out)
    except BaseException:
        if not out.exists():
            os.rename(former, out)
        raise
    _discard(former)


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
