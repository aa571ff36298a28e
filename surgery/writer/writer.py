"""Writing a planned checkpoint: its shards filled, noted and resumed after a fault, and the files beside them."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Final

from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.checkpoint.shards import INDEX
from vlsurgery.surgery.errors import CheckpointError
from vlsurgery.surgery.runtime.progress import Notify, Progress, no_notify, no_progress
from vlsurgery.surgery.writer.checksums import SUMS, sums_text
from vlsurgery.surgery.writer.filling import Fill
from vlsurgery.surgery.writer.inputs import check_unchanged
from vlsurgery.surgery.writer.leftovers import remove_attempts
from vlsurgery.surgery.writer.output_directory import RECIPE, check_target, target
from vlsurgery.surgery.writer.pipeline import Piece
from vlsurgery.surgery.writer.resuming import finish, resume, write_file
from vlsurgery.surgery.writer.shard_plan import CONFIG, ShardPlan, plan_shards

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
        rest = resume(plan.shards, folder, journal, pool, progress, note)
        fill(rest, folder, partial(finish, folder, journal, partial(check_unchanged, read)))
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


def _write_files(plan: ShardPlan, folder: Path, texts: Mapping[str, str], shards: Mapping[str, str]) -> None:
    """Write everything beside the shards; config.json and the index last, since a directory without them is not taken
    for a checkpoint."""
    digests, config = dict(shards), plan.like.path / CONFIG
    for name, source in plan.extra.items():
        if name != CONFIG:
            digests[name] = write_file(folder / name, _blocks(source))
    for name, text in texts.items():
        digests[name] = write_file(folder / name, [text.encode()])
    last = {CONFIG: b"".join(_blocks(config)) if plan.config is None else plan.config.encode()}
    if plan.index is not None:
        last[INDEX] = plan.index.encode()
    digests |= {name: hashlib.sha256(content).hexdigest() for name, content in last.items()}
    write_file(folder / SUMS, [sums_text(digests).encode("utf-8", "surrogateescape")])
    for name, content in last.items():
        write_file(folder / name, [content])


def _blocks(source: Path) -> Iterator[bytes]:
    """Yield a file's content. Raises CheckpointError, not OSError, which would name the target."""
    try:
        with source.open("rb") as file:
            while block := file.read(1 << 20):
                yield block
    except OSError as error:
        raise CheckpointError(f"{source}: can't be read ({error.strerror or error}).") from error
