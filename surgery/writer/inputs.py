"""A check that the checkpoints which a merge reads have not changed since they were opened."""

import os
from collections.abc import Iterable
from pathlib import Path

from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.checkpoint.lora.adapter import Adapter
from vlsurgery.surgery.errors import CheckpointError


def check_unchanged(checkpoints: Iterable[Checkpoint]) -> None:
    """Raise CheckpointError for the first weight file whose size or modification time (at a URL, its version) changed
    since it was opened, or which vanished."""
    for checkpoint in checkpoints:
        if checkpoint.remote is not None:
            checkpoint.remote.check_unchanged("merged")
        for header in checkpoint.shards.values() if checkpoint.remote is None else ():
            if header.entries:
                # A pickled shard has another name than its file.
                _check_file(checkpoint[header.entries[0].name].shard, header.size, header.mtime_ns)
        adapter = checkpoint.adapter
        if adapter is not None and Adapter.open(adapter.path, adapter.pickled).stamp != adapter.stamp:
            raise CheckpointError(f"{adapter.path}: the adapter changed {_AGAIN}")


_AGAIN = "while it was being merged. Merge again once nothing writes to it."


def _check_file(path: Path, size: int, mtime_ns: int) -> None:
    try:
        found = os.stat(path)
    except OSError as error:
        raise CheckpointError(
            f"{path}: can't be read any more ({error.strerror or error}): it went away while it was being merged."
        ) from error
    if found.st_size != size:
        raise CheckpointError(f"{path}: had {size} bytes, and has {found.st_size} now: it changed {_AGAIN}")
    if found.st_mtime_ns != mtime_ns:
        raise CheckpointError(f"{path}: was written to: it changed {_AGAIN}")
