"""`--verify`: are the files of a checkpoint as they were written, or as a case measured them?"""

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vlsurgery.cli.console import Console
from vlsurgery.surgery.errors import CheckpointError

if TYPE_CHECKING:
    from vlsurgery.surgery.writer.checksums import Verified

VerifyOption = Annotated[
    bool,
    typer.Option(
        "--verify",
        help="Read every file again, and compare it with the SHA256SUMS of a merge, else with what the case measured.",
    ),
]


def verify_all(refs: Iterable[str], console: Console, case: Path, allow_pickle: bool) -> "dict[str, Verified]":
    """Reference -> comparison of the directory with its SHA256SUMS, or without such a list with the contents that the
    case recorded. All files are as they should be.

    Raises CheckpointError that names every other file, and for what is no directory or is compared with nothing.
    """
    from vlsurgery.surgery.writer.checksums import SUMS, verify

    found = {}
    for ref in refs:
        if not Path(ref).is_dir():
            raise CheckpointError(f"{ref}: no such directory. --verify takes directories of checkpoints.")
        listed = (Path(ref) / SUMS).is_file()
        found[ref] = verify(Path(ref), console.progress) if listed else _by_case(ref, console, case, allow_pickle)
    faults = [f"{ref}: {each.fault}." for ref, each in found.items() if each.fault]
    if faults:
        console.emit(json.dumps({"verified": {ref: asdict(each) for ref, each in found.items()}}, indent=1))
        raise CheckpointError(
            f"{' '.join(faults)} Merge again, or take these files from where they came; a checkpoint that changed on "
            "purpose is measured again by vlsurgery diff."
        )
    return found


def _by_case(ref: str, console: Console, folder: Path, allow_pickle: bool) -> "Verified":
    from vlsurgery.cli.workflow.case import FILE, Case
    from vlsurgery.surgery.checkpoint import Checkpoint
    from vlsurgery.surgery.checkpoint.contents import take_contents
    from vlsurgery.surgery.writer.checksums import SUMS, compare

    checkpoint = Checkpoint.open(ref, allow_pickle=allow_pickle)
    recorded = Case.open(folder).contents_of(checkpoint) if (folder / FILE).is_file() else None
    if recorded is None:
        raise CheckpointError(
            f"{ref}: no {SUMS} in it, and no case at {folder} that measured it, so nothing to compare it with. Merges "
            "that vlsurgery writes have such a list; a case that knows the checkpoint is named with --case."
        )
    return compare(take_contents({ref: checkpoint}, console.progress, reread=True)[ref], recorded)
