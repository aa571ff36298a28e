"""Faults that a user can mend. Everything else is a bug and shows its traceback."""

from vlsurgery.surgery.runtime.visible import visible


class SurgeryError(Exception):
    """One line that names the fault, what was expected and found, and the next step. Exit code 2."""

    exit_code = 2

    def __str__(self) -> str:
        """The line, in which control and direction characters of names and values from files are spelt as escapes."""
        return " ".join(visible(super().__str__()).splitlines())


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
