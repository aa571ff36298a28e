"""Shards one after another under their names and in the journal, so that a run goes on where one before it stopped."""

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from vlsurgery.surgery.checkpoint.digests import file_digest
from vlsurgery.surgery.runtime.atomic_file import new_file
from vlsurgery.surgery.runtime.progress import Notify, Progress
from vlsurgery.surgery.runtime.worker_pool import cores, map_ordered
from vlsurgery.surgery.writer.filling import FilledShard
from vlsurgery.surgery.writer.journal import JOURNAL, Journal
from vlsurgery.surgery.writer.leftovers import remove_attempts
from vlsurgery.surgery.writer.shard_plan import Shard


def resume(
    shards: Sequence[Shard], folder: Path, journal: Journal, pool: ThreadPoolExecutor, progress: Progress, note: Notify
) -> list[Shard]:
    """The shards that are still to be written. Those that an earlier run finished are kept where they still have the
    SHA-256 in the journal; everything else that it left is removed."""
    claimed = [shard.file for shard in shards if (folder / shard.file).is_file() and shard.file in journal.finished]
    digests = map_ordered(pool, lambda file: file_digest(folder / file), claimed, cores())
    found = (
        dict(zip(claimed, progress(digests, "checking finished shards", len(claimed)), strict=True)) if claimed else {}
    )
    for file in list(journal.finished):
        if found.get(file) != journal.finished[file]:
            note(f"{folder / file}: is not as it was finished; it is written again.")
            del journal.finished[file]
    if journal.finished:
        note(f"{folder}: {len(journal.finished)} of {len(shards)} shards were finished before, and are kept.")
    for path in folder.rglob("*"):
        name = str(path.relative_to(folder))
        if not path.is_dir() and name != JOURNAL and name not in journal.finished:
            path.unlink()
    return [shard for shard in shards if shard.file not in journal.finished]


def finish(folder: Path, journal: Journal, check_inputs: Callable[[], None], filled: FilledShard) -> None:
    """Give a filled shard its name and note it in the journal. check_inputs: raises where what it was made of changed
    since."""
    check_inputs()
    os.replace(folder / filled.written, folder / filled.file)
    journal.add(filled.file, filled.digest, filled.non_finite, filled.sums)
    remove_attempts(folder, [filled.file])


def write_file(path: Path, blocks: Iterable[bytes]) -> str:
    """Write a small file to the disk. Returns its SHA-256."""
    digest = hashlib.sha256()
    path.parent.mkdir(parents=True, exist_ok=True)
    with os.fdopen(new_file(path), "r+b") as file:
        for block in blocks:
            digest.update(block)
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()
