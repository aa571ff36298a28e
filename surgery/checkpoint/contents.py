"""What is in a checkpoint's files to the last byte: the SHA-256 of every file of weights, taken and compared."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from vlsurgery.surgery.checkpoint.checkpoint import Checkpoint
from vlsurgery.surgery.checkpoint.digests import file_digests
from vlsurgery.surgery.checkpoint.remote.remote_file import RemoteFile
from vlsurgery.surgery.errors import CheckpointError
from vlsurgery.surgery.runtime.progress import Progress, no_progress


def take_contents(
    checkpoints: Mapping[str, Checkpoint],
    progress: Progress = no_progress,
    reread: bool = False,
    at_urls: bool = False,
) -> dict[str, dict[str, str]]:
    """Role -> name of a file of weights -> its SHA-256, of all files of all checkpoints; an adapter's are among them.

    Reads every byte of files that were not hashed before, or that changed since; with `reread`, of all. Checkpoints at
    URLs are left out, as all of their weights would have to be fetched for it: `at_urls` does that. Raises
    CheckpointError for a file that can't be read, and for a checkpoint of which only the headers were fetched.
    """
    taken = {role: each for role, each in checkpoints.items() if each.remote is None or at_urls}
    files = {role: checkpoint.weight_files for role, checkpoint in taken.items()}
    every = [file for each in files.values() for file in each.values()]
    here = file_digests((file for file in every if isinstance(file, Path)), progress, reread)
    away = [file for file in every if isinstance(file, RemoteFile)]
    shown = progress((file.digest() for file in away), "hashing weights", len(away)) if away else ()
    fetched = dict(zip(away, shown, strict=True))
    return {
        role: {name: here[file] if isinstance(file, Path) else fetched[file] for name, file in each.items()}
        for role, each in files.items()
    }


def check_contents(
    checkpoints: Mapping[str, Checkpoint],
    recorded: Mapping[str, Mapping[str, str]],
    progress: Progress = no_progress,
    reread: bool = False,
) -> None:
    """Compare checkpoints with the contents that were recorded of them, role -> name -> SHA-256.

    Raises CheckpointError that names the first checkpoint with other bytes, its files that differ, and what to do.
    """
    present = take_contents({role: checkpoints[role] for role in recorded}, progress, reread, at_urls=True)
    for role, known in recorded.items():
        differing = [name for name in {**known, **present[role]} if known.get(name) != present[role].get(name)]
        if differing:
            raise CheckpointError(
                f"{role} ({checkpoints[role].ref}): {', '.join(differing)}: not the bytes that were measured: the "
                "SHA-256 is another one, whatever the file's modification time says. Put back the file that was there, "
                "or measure this one: vlsurgery diff BASE ADAPTED [SAFETY]."
            )


def contents_digest(contents: Mapping[str, str]) -> str:
    """One SHA-256 for all files of a checkpoint."""
    return hashlib.sha256(json.dumps(sorted(contents.items())).encode()).hexdigest()
