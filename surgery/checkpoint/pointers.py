"""Git LFS pointers: the small text files that stand for weights until `git lfs pull` fetches them."""

from pathlib import Path
from typing import Final

from vlsurgery.surgery.errors import CheckpointError

START: Final = b"version https://git-lfs.github.com/spec/"

# Git LFS bounds a pointer by this.
MAX_POINTER_BYTES: Final = 1024


def refuse_pointer(file: Path) -> None:
    """Raise CheckpointError where `file` is a Git LFS pointer in place of what it stands for, or can't be read."""
    try:
        if not file.is_file() or file.stat().st_size > MAX_POINTER_BYTES:
            return
        with file.open("rb") as opened:
            start = opened.read(len(START))
    except OSError as error:
        raise CheckpointError(f"{file}: can't be read ({error.strerror or error}).") from error
    if start == START:
        raise CheckpointError(
            f"{file}: a Git LFS pointer: the file that it stands for was not downloaded. Run `git lfs pull` in "
            f"{file.parent}, or download the checkpoint again."
        )
