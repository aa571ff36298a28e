"""Writing a planned checkpoint: its shards filled, noted and resumed after a fault, and the files beside them."""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Final

from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.checkpoint.digests import file_digest
from vlsurgery.surgery.checkpoint.shards import INDEX
from vlsurgery.surgery.errors import CheckpointError
from vlsurgery.surgery.runtime.atomic_file import new_file
from vlsurgery.surgery.runtime.progress import Notify, Progress, no_notify, no_progress
from vlsurgery.surgery.runtime.worker_pool import cores, map_ordered
from vlsurgery.surgery.writer.checksums import SUMS, sums_text
from vlsurgery.surgery.writer.filling import Fill, FilledShard
from vlsurgery.surgery.writer.inputs import check_unchanged
from vlsurgery.surgery.writer.journal import JOURNAL, Journal
from vlsurgery.surgery.writer.leftovers import remove_attempts
from vlsurgery.surgery.writer.output_directory import RECIPE, check_target, target
from vlsurgery.surgery.writer.pipeline import Piece
from vlsurgery.surgery.writer.shard_plan import CONFIG, Shard, ShardPlan, plan_shards

__all__ = ["Piece", "ShardPlan", "plan_shards", "write"]

# Bytes that file systems allocate at a time, and bytes of a line of SHA256SUMS, about.
DISK_BLOCK_BYTES: Final = 4096
CHECKSUM_LINE_BYTES: Final = 128


def write(
    plan: ShardPlan,
    out: Path,
    fill: Fill,
    texts: Mapping[str, str],
    inputs: Iterable[Checkpoint] = (),
    progress: Progress = no_progress,
    note: Notify = no_notify,
    *,
    pool: ThreadPoolExecutor,
) -> tuple[dict[str, str], set[str]]:
    """Write a planned checkpoint to the directory `out`; returns file name -> SHA-256 of every shard, and the names of
    tensors of which copied entries are NaN or infinite.

    fill: fills the shards that are still to be written. texts: further files, recipe.yaml and README.md. inputs: the
    checkpoints that are read, which must not be overwritten and must not change. note: is told what an earlier run
    left, and what became of it. pool: hashes what an earlier run finished.

    Whatever goes wrong, kill -9 included, `out` is as it was, and the same call resumes behind the last finished shard;
    its bytes are those of an uninterrupted run. The call is the same where the recipe's text, the plan, the inputs'
    stamps (no file of theirs was written in between) and the versions of this program and torch are.

    Raises TargetError for what the disk refuses and what must not be written over, CheckpointError when an input
    changes or goes away.
    """
    read = [plan.like, *(each for each in inputs if each is not plan.like)]
    needed = _needed(plan, texts)
    check_target(out, [folder for checkpoint in read for folder in checkpoint.folders], needed)
    digest = _plan_digest(plan, texts[RECIPE], read)
    with target(out, digest, _names(plan, texts), needed, note) as (folder, journal):
        rest = _resume(plan, folder, journal, pool, progress, note)
        fill(rest, folder, partial(_finish, folder, journal, read))
        check_unchanged(read)
        remove_attempts(folder, [shard.file for shard in plan.shards])
        _write_files(plan, folder, texts, journal.finished)
        flawed = {name for shard in plan.shards for name in journal.non_finite[shard.file]}
        return {shard.file: journal.finished[shard.file] for shard in plan.shards}, flawed


def _names(plan: ShardPlan, texts: Mapping[str, str]) -> set[str]:
    """Every file that the merge writes."""
    return {*(shard.file for shard in plan.shards), *plan.extra, *texts, CONFIG, INDEX, SUMS}


def _needed(plan: ShardPlan, texts: Mapping[str, str]) -> int:
    """Bytes that the merge takes on the disk, in whole blocks."""
    written = [*texts.values(), plan.index or ""]
    sizes = [
        *(shard.nbytes for shard in plan.shards),
        *(file.stat().st_size for file in plan.extra.values()),
        *(len(text.encode()) for text in written),
        CHECKSUM_LINE_BYTES * (len(plan.shards) + len(plan.extra) + len(written)),
    ]
    return sum(-(-size // DISK_BLOCK_BYTES) * DISK_BLOCK_BYTES for size in sizes)


def _plan_digest(plan: ShardPlan, recipe: str, inputs: Sequence[Checkpoint]) -> str:
    """The digest of everything that must be equal for a run to resume another one."""
    layout = [[shard.file, hashlib.sha256(shard.header).hexdigest()] for shard in plan.shards]
    programs = [version("vlsurgery"), version("torch")]
    stamps = [checkpoint.stamp for checkpoint in inputs]
    return hashlib.sha256(json.dumps([programs, recipe, layout, plan.index, stamps]).encode()).hexdigest()


def _resume(
    plan: ShardPlan, folder: Path, journal: Journal, pool: ThreadPoolExecutor, progress: Progress, note: Notify
) -> list[Shard]:
    """The shards that are still to be written. Those that an earlier run finished are kept where they still have the
    SHA-256 in the journal; everything else that it left is removed."""
    claimed = [
        shard.file for shard in plan.shards if (folder / shard.file).is_file() and shard.file in journal.finished
    ]
    digests = map_ordered(pool, lambda file: file_digest(folder / file), claimed, cores())
    found = (
        dict(zip(claimed, progress(digests, "checking finished shards", len(claimed)), strict=True)) if claimed else {}
    )
    for file in list(journal.finished):
        if found.get(file) != journal.finished[file]:
            note(f"{folder / file}: is not as it was finished; it is written again.")
            del journal.finished[file]
    if journal.finished:
        note(f"{folder}: {len(journal.finished)} of {len(plan.shards)} shards were finished before, and are kept.")
    for path in folder.rglob("*"):
        name = str(path.relative_to(folder))
        if not path.is_dir() and name != JOURNAL and name not in journal.finished:
            path.unlink()
    return [shard for shard in plan.shards if shard.file not in journal.finished]


def _finish(folder: Path, journal: Journal, inputs: Sequence[Checkpoint], filled: FilledShard) -> None:
    """Give a filled shard its name and note it in the journal, once its inputs are known to be unchanged."""
    check_unchanged(inputs)
    os.replace(folder / filled.written, folder / filled.file)
    journal.add(filled.file, filled.digest, filled.non_finite)
    remove_attempts(folder, [filled.file])


def _write_files(plan: ShardPlan, folder: Path, texts: Mapping[str, str], shards: Mapping[str, str]) -> None:
    """Write everything beside the shards; config.json and the index last, since a directory without them is not taken
    for a checkpoint."""
    digests, config = dict(shards), plan.like.path / CONFIG
    for name, source in plan.extra.items():
        if name != CONFIG:
            digests[name] = _write(folder / name, _blocks(source))
    for name, text in texts.items():
        digests[name] = _write(folder / name, [text.encode()])
    last = {CONFIG: b"".join(_blocks(config)) if plan.config is None else plan.config.encode()}
    if plan.index is not None:
        last[INDEX] = plan.index.encode()
    digests |= {name: hashlib.sha256(content).hexdigest() for name, content in last.items()}
    _write(folder / SUMS, [sums_text(digests).encode("utf-8", "surrogateescape")])
    for name, content in last.items():
        _write(folder / name, [content])


def _write(path: Path, blocks: Iterable[bytes]) -> str:
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


def _blocks(source: Path) -> Iterator[bytes]:
    """Yield a file's content. Raises CheckpointError, not OSError, which would name the target."""
    try:
        with source.open("rb") as file:
            while block := file.read(1 << 20):
                yield block
    except OSError as error:
        raise CheckpointError(f"{source}: can't be read ({error.strerror or error}).") from error
