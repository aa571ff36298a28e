"""`--verify`: are the files of a merged checkpoint as they were written?"""

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
    typer.Option("--verify", help="Read every file of a merged checkpoint again, and compare it with its SHA256SUMS."),
]


def verify_all(refs: Iterable[str], console: Console) -> "dict[str, Verified]":
    """Reference -> comparison with SHA256SUMS, of directories of merged checkpoints whose files are all as written.

    Raises CheckpointError that names every other file, and for what is no directory or has no SHA256SUMS.
    """
    from vlsurgery.surgery.writer.checksums import verify

    found = {}
    for ref in refs:
        if not Path(ref).is_dir():
            raise CheckpointError(f"{ref}: no such directory. --verify takes directories of merged checkpoints.")
        found[ref] = verify(Path(ref), console.progress)
    faults = [f"{ref}: {each.fault}." for ref, each in found.items() if each.fault]
    if faults:
        console.emit(json.dumps({"verified": {ref: asdict(each) for ref, each in found.items()}}, indent=1))
        raise CheckpointError(f"{' '.join(faults)} Merge again, or take these files from where they came.")
    return found
