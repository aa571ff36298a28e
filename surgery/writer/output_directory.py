"""The directory that a merge writes: complete under its name, or not there at all."""

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
# A directory of ours is known as such by either; the journal also by name alone.
KNOWN_BY: Final = (RECIPE, JOURNAL)
MARK: Final = re.compile(rb"^schema: vlsurgery/recipe/\d+", re.MULTILINE)


def check_target(out: Path, inputs: Iterable[Path], needed: int) -> None:
    """Refuse a target before anything is written.

    inputs: directories that are read. needed: bytes that the merge takes. Raises TargetError when `out` lies in an
    input or holds one (where links lead, too), exists and is not a former merge of ours, can't be made, or when the
    disk has no room.
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
    """A directory beside `out` to write into, which becomes `out` when the block ends well, and its journal.

    order: a digest of the order. What an earlier run of the same order finished is still there, and in the journal;
    what another order left is removed. needed: bytes that the merge takes in all. note: is told when something was
    removed.

    When the block fails, `out` is as it was; the directory stays if a file of it is finished, and goes if none is. A
    former merge under `out` is replaced by two renames. Raises TargetError for what the disk refuses, and when another
    process writes there.
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
            # Until here it told others that somebody is at work.
            (real / JOURNAL).unlink()
            _sync(real.parent)
        finally:
            journal.close()


def partial_of(out: Path) -> Path:
    """Where a merge is written until it is complete: OUT.partial beside OUT."""
    real = Path(os.path.realpath(out))
    return real.with_name(real.name + ".partial")


def former_of(out: Path) -> Path:
    """Where the merge that is being replaced waits for the moment between two renames."""
    real = Path(os.path.realpath(out))
    return real.with_name(real.name + ".former")


def in_words(nbytes: int) -> str:
    """A size as people read it: "13.48 GB", "0.3 MB", "512 bytes"."""
    if nbytes < 100_000:
        return f"{nbytes} bytes"
    return f"{nbytes / 1e9:.2f} GB" if nbytes >= 1e9 else f"{nbytes / 1e6:.1f} MB"


def _homes(folder: Path) -> set[Path]:
    """Where a checkpoint's weights really are: its directory, and those that links in it lead to (a Hub cache's)."""
    links = (file for file in folder.glob("*") if file.is_symlink() and file.name.endswith(WEIGHTS))
    return {Path(os.path.realpath(folder)), *(Path(os.path.realpath(link)).parent for link in links)}


def _replaceable(out: Path) -> bool:
    """An empty directory, or one that holds our recipe beside weights. A case also holds a recipe, and much more."""
    if not out.is_dir():
        return False
    names = {entry.name for entry in out.iterdir()}
    return not names or (_is_ours(out) and "config.json" in names and "case.json" not in names)


def _is_ours(folder: Path) -> bool:
    """Whether a merge of ours made the directory: it holds our recipe or a journal, or nothing yet."""
    recipe = folder / RECIPE
    if (folder / JOURNAL).is_file():
        return True
    if not recipe.is_file():
        return folder.is_dir() and not any(folder.iterdir())
    return MARK.search(recipe.read_bytes()[:10_000]) is not None


def _begin(partial: Path, journal: Journal, order: str, note: Notify) -> None:
    """Go on with the same order, or make the directory ready for another one."""
    if journal.order == order:
        return
    if any(entry.name != JOURNAL for entry in partial.iterdir()):
        note(f"{partial}: was left by another merge, or by another version; begun afresh.")
    journal.finished.clear()
    _empty(partial)
    journal.begin(order)


@contextmanager
def _keeping(partial: Path, journal: Journal) -> Iterator[None]:
    """After a fault, keep a directory in which something is finished, and say so; remove any other."""
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
    """Remove what is in a directory of ours, but for what it is known by."""
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry.name not in KNOWN_BY:
            entry.unlink()


def _discard(folder: Path) -> None:
    """Remove a directory of ours, its recipe and its journal last: interrupted, what is left is still known as ours,
    and nobody else begins in it."""
    if not folder.exists():
        return
    _empty(folder)
    for name in KNOWN_BY:
        (folder / name).unlink(missing_ok=True)
    try:
        folder.rmdir()
    except OSError as error:
        # Somebody else began there in this moment: it is theirs now.
        if error.errno != errno.ENOTEMPTY:
            raise


def _swap(partial: Path, out: Path, former: Path) -> None:
    """Put `partial` in the place of `out`. What was there comes back when that fails half-way."""
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
    """Make names durable: without it a power cut can lose a file that was renamed."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _faults(out: Path, needed: int = 0) -> Iterator[None]:
    """What the operating system refuses, as an error that names the target. Reading raises errors of its own."""
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
    """Bytes of the disk that the files of a directory take, reserved ones included."""
    if not folder.exists():
        return 0
    return sum(file.stat().st_blocks * 512 for file in folder.rglob("*") if file.is_file())
