"""Standard input, output and error as the program finds them: closed ones, and names that are no text."""

import os
import sys
from collections.abc import Sequence
from typing import Final

from vlsurgery.surgery.errors import SurgeryError

DESCRIPTORS: Final = (0, 1, 2)


def fill_closed_streams() -> list[int]:
    """Open the null device in place of each standard stream that was closed, and return which were.

    Otherwise the next file that is opened takes the stream's number, and what is printed goes into it.
    """
    closed = [number for number in DESCRIPTORS if not _is_open(number)]
    for number in closed:
        descriptor = os.open(os.devnull, os.O_RDWR)
        if descriptor != number:
            os.dup2(descriptor, number)
            os.close(descriptor)
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
    return closed


def check_output_open(closed: Sequence[int]) -> None:
    """Raise SurgeryError where results have nowhere to go."""
    if 1 in closed:
        raise SurgeryError("standard output is closed, so results have nowhere to go. Send it to a file or /dev/null.")


def check_words(words: Sequence[str]) -> None:
    """Raise SurgeryError where an argument or the working directory is not text: no JSON file could hold it."""
    for word in (*words, os.getcwd()):
        try:
            word.encode("utf-8")
        except UnicodeEncodeError as error:
            raise SurgeryError(
                f"{word!r}: not UTF-8, so no result could name it. Rename the file or folder."
            ) from error
        if "\0" in word:
            raise SurgeryError(f"{word!r}: a NUL is in it, which no file's name has.")


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True
