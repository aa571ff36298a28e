"""The user's choice of a text stack, where two containers of layers look like a checkpoint's."""

from collections.abc import Iterable, Sequence

from vlsurgery.surgery.architecture.decoder_stack import numbered
from vlsurgery.surgery.architecture.naming import unwrapped
from vlsurgery.surgery.checkpoint.checkpoint import Checkpoint
from vlsurgery.surgery.errors import AlignmentError


def choose_text_stacks(checkpoints: Iterable[Checkpoint], names: Sequence[str]) -> None:
    """Take a container of one of these names for the text stack, in every checkpoint that holds one.

    The others are as they were: a base often has one stack where the model made from it has two. Raises AlignmentError
    for a name that no checkpoint holds, and where one checkpoint holds two of them.
    """
    opened = list(checkpoints) if names else []
    held = [containers(checkpoint) for checkpoint in opened]
    for name in names:
        if not any(_plain(name) in each for each in held):
            known = ", ".join(sorted(set().union(*held))) or "none"
            raise AlignmentError(f"--text-stack {name}: no checkpoint has layers of that name; they have {known}.")
    for checkpoint, each in zip(opened, held, strict=True):
        fitting = [name for name in names if _plain(name) in each]
        if len(fitting) > 1:
            raise AlignmentError(
                f"{checkpoint.ref}: holds {' and '.join(fitting)}. Give --text-stack for one of them alone."
            )
        if fitting:
            checkpoint.text_stack = fitting[0]


def containers(checkpoint: Checkpoint) -> set[str]:
    """The names of a checkpoint's containers of numbered layers, without the segments of training frameworks."""
    return set(numbered(unwrapped(name) for name in checkpoint))


def _plain(container: str) -> str:
    return unwrapped(f"{container}.").removesuffix(".")
