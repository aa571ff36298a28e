"""The directory that a merge writes: complete under its name, or not there at all."""

import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from surgery.errors import SurgeryError, TargetError

RECIPE: Final = "recipe.yaml"
MARK: Final = re.compile(rb"^schema: vlsurgery/recipe/\d+", re.MULTILINE)


def check_target(out: Path, inputs: Iterable[Path], needed: int) -> None:
    """Refuse a target before anything is written.

    inputs: directories that are read. needed: bytes that will be written. Raises TargetError when `out` lies in an
    input or holds one, exists and is not a former merge of ours, can't be made, or when the disk has no room.
    """
    real = Path(os.path.realpath(out))
    for path in inputs:
        source = Path(os.path.realpath(path))
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
        out.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(out.parent).free
    if free < needed:
        raise TargetError(
            f"{out}: the merge needs {needed / 1e9:.2f} GB, but only {free / 1e9:.2f} GB are free there. Make room, or "
            "give a directory on another disk with -o."
        )


@contextmanager
def target(out: Path, marker: str) -> Iterator[Path]:
    """A directory beside `out` to write into; it becomes `out` when the block ends well, and vanishes otherwise.

    marker: the recipe's text, the first file written: by it the directory is known as ours should the process be
    killed. A former merge under `out` is replaced by two renames and stays as it was until then. Raises TargetError
    for what the disk refuses.
    """
    real, partial, former = Path(os.path.realpath(out)), partial_of(out), former_of(out)
    with _faults(out):
        if former.exists() and not real.exists():
            os.rename(former, real)  # a merge was killed between its two renames
        _discard(partial)
        partial.mkdir()
        try:
            (partial / RECIPE).write_text(marker, encoding="utf-8")
            yield partial
            _sync(partial)
            _swap(partial, real, former)
        finally:
            _discard(partial)
        _sync(real.parent)


def partial_of(out: Path) -> Path:
    """Where a merge is written until it is complete: OUT.partial beside OUT."""
    real = Path(os.path.realpath(out))
    return real.with_name(real.name + ".partial")


def former_of(out: Path) -> Path:
    """Where the merge that is being replaced waits for the moment between two renames."""
    real = Path(os.path.realpath(out))
    return real.with_name(real.name + ".former")


def _replaceable(out: Path) -> bool:
    """An empty directory, or one that holds our recipe beside weights. A case also holds a recipe, and much more."""
    if not out.is_dir():
        return False
    names = {entry.name for entry in out.iterdir()}
    return not names or (_is_ours(out) and "config.json" in names and "case.json" not in names)


def _is_ours(folder: Path) -> bool:
    """Whether a merge of ours made the directory: it holds our recipe, or nothing yet."""
    recipe = folder / RECIPE
    if not recipe.is_file():
        return folder.is_dir() and not any(folder.iterdir())
    return MARK.search(recipe.read_bytes()[:10_000]) is not None


def _discard(folder: Path) -> None:
    """Remove a directory of ours, its recipe last: interrupted, what is left is still known as ours."""
    if not folder.exists():
        return
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry.name != RECIPE:
            entry.unlink()
    shutil.rmtree(folder)


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
def _faults(out: Path) -> Iterator[None]:
    """What the operating system refuses, as an error that names the target. Reading raises errors of its own."""
    try:
        yield
    except SurgeryError:
        raise
    except OSError as error:
        reason = error.strerror or error
        raise TargetError(f"{out}: can't be written ({reason}). Give another directory with -o.") from error
