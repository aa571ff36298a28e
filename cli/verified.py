"""`--verify`: are the files of a merged checkpoint as they were written?"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from cli.console import Console
from surgery.errors import CheckpointError

if TYPE_CHECKING:
    from surgery.checkpoint import Checkpoint
    from surgery.sums import Verified

VerifyOption = Annotated[
    bool,
    typer.Option("--verify", help="Read every file of a merged checkpoint again, and compare it with its SHA256SUMS."),
]


def verify_all(checkpoints: "Iterable[Checkpoint]", console: Console) -> "dict[str, Verified]":
    """How each compares with its SHA256SUMS, by the name that the user gave it.

    Raises CheckpointError for one that has no such list, or of which only the headers were fetched.
    """
    from surgery.sums import verify

    found = {}
    for checkpoint in checkpoints:
        if checkpoint.headers_only:
            raise CheckpointError(
                f"{checkpoint.ref}: only its headers were fetched. Download it, and give its directory to --verify."
            )
        found[checkpoint.ref] = verify(checkpoint.path, console.track)
    return found


def show_verified(verified: "Mapping[str, Verified]", console: Console) -> None:
    """Say that all is well, or raise CheckpointError with every file that is not as it was written."""
    for ref, each in verified.items():
        if each.fault is None:
            console.show(f"{ref}: all {len(each.agree)} files are as they were written")
    faults = [f"{ref}: {each.fault}" for ref, each in verified.items() if each.fault]
    if faults:
        raise CheckpointError(f"{'. '.join(faults)}. Merge again, or take these files from where they came.")
