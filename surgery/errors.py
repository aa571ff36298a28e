"""Faults that a user can mend. Everything else is a bug and shows its traceback."""

from typing import Final

MAX_LINE: Final = 990  # characters of an error


class SurgeryError(Exception):
    """One line that names the fault, what was expected and found, and the next step. Exit code 2."""

    exit_code = 2

    def __str__(self) -> str:
        """The line, in which control and direction characters of names and values from files are spelt as escapes. Of
        one that is too long the middle is left out, where such names and values stand."""
        line = "".join(map(_spelt, " ".join(super().__str__().splitlines())))
        return line if len(line) <= MAX_LINE else f"{line[: MAX_LINE // 2]} … {line[-MAX_LINE // 2 + 3 :]}"


def _spelt(letter: str) -> str:
    return letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii")


class CheckpointError(SurgeryError):
    """A checkpoint can't be read: not one, truncated, corrupt, incomplete, quantised, or pickled."""


class AlignmentError(SurgeryError):
    """Checkpoints have too little in common, or tensors of one site differ where they must not."""


class RecipeError(SurgeryError):
    """A recipe, a coefficient or a setting is not valid."""


class TargetError(SurgeryError):
    """A case or an output directory can't be written, or holds something else."""


class LimitNotMet(SurgeryError):
    """A limit that the user set was not met. Exit code 3."""

    exit_code = 3
