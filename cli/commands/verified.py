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
    """How each directory of a merged checkpoint compares with its SHA256SUMS; all of them as they were written.

    Raises CheckpointError with every file that is not, for a directory without such a list, and for what is none.
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
