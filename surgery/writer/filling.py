"""How the shards of a planned checkpoint are filled: in this process one behind another, or by an engine's workers."""

import errno
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path

from vlsurgery.surgery.checkpoint import LazyTensor
from vlsurgery.surgery.checkpoint.headers import Entry
from vlsurgery.surgery.runtime.atomic_file import new_file
from vlsurgery.surgery.runtime.engine import Engine, SetUp
from vlsurgery.surgery.runtime.progress import Progress
from vlsurgery.surgery.writer.leftovers import UNFINISHED, attempt_at
from vlsurgery.surgery.writer.pipeline import Piece, WritePipeline
from vlsurgery.surgery.writer.shard_plan import Shard

# Gives a tensor's pieces in order; together they have exactly its planned bytes.
Produce = Callable[[LazyTensor], Iterator[Piece]]


@dataclass(frozen=True)
class FilledShard:
    """A shard whose bytes are on the disk, under another name than its own.

    file: its own name. written: the name that it has. digest: its SHA-256. non_finite: names of its tensors of which
    copied entries are NaN or infinite. sums: what its maker adds up over all shards, kept for a run that goes on from
    it. All plain data: it comes from another process.
    """

    file: str
    written: str
    digest: str
    non_finite: tuple[str, ...]
    sums: tuple[float, ...] = ()


# Fills the shards in a directory, and calls the function with each as soon as it is on the disk.
Fill = Callable[[Sequence[Shard], Path, Callable[[FilledShard], None]], None]


def fill_here(
    produce: Produce,
    pool: ThreadPoolExecutor,
    non_finite: Collection[str],
    progress: Progress,
    shards: Sequence[Shard],
    folder: Path,
    done: Callable[[FilledShard], None],
) -> None:
    """Fill shards one behind another in this process, without a pause between two.

    produce: gives the pieces of each tensor of `like`. It is called in this thread, in the order of the files, as soon
    as there is memory for more; the pieces are made in `pool`. non_finite: names of tensors that hold NaN or infinite
    values; the pieces add them as they are made.
    """
    for shard in shards:
        _reserve(_partial(folder / shard.file), shard.nbytes)
    members = [(shard, *each) for shard in shards for each in zip(shard.tensors, shard.entries, strict=True)]
    shown = progress(members, "writing weights", len(members))
    with WritePipeline(pool) as pipeline:
        for shard, in_shard in groupby(shown, key=lambda member: member[0]):
            path = _partial(folder / shard.file)
            finished = partial(_finished, shard, path.relative_to(folder), non_finite, done)
            pipeline.add(path, shard.header, _pieces(in_shard, produce), finished)
        pipeline.drain()


def fill_by(
    engine: Engine,
    worker_in: Callable[[Path], SetUp[str, FilledShard]],
    progress: Progress,
    shards: Sequence[Shard],
    folder: Path,
    done: Callable[[FilledShard], None],
) -> None:
    """Fill each shard by a worker of an engine, the largest first.

    worker_in: gives the workers' set-up for the directory; a worker is given the name of a shard's file.
    """
    files = [shard.file for shard in sorted(shards, key=lambda shard: -shard.nbytes)]
    with closing(engine.map(worker_in(folder), files)) as filled:
        for each in progress(filled, "writing weights", len(files)):
            done(each)


def write_shard(
    shard: Shard, folder: Path, produce: Produce, pool: ThreadPoolExecutor, non_finite: Collection[str]
) -> FilledShard:
    """Write one shard, in a file that no other attempt at it touches: the process may be one of several that are at it,
    where the others are thought to be dead. As `fill_here` else."""
    path = attempt_at(folder / shard.file)
    filled: list[FilledShard] = []
    members = [(shard, *each) for each in zip(shard.tensors, shard.entries, strict=True)]
    try:
        _reserve(path, shard.nbytes)
        with WritePipeline(pool) as pipeline:
            finished = partial(_finished, shard, path.relative_to(folder), non_finite, filled.append)
            pipeline.add(path, shard.header, _pieces(members, produce), finished)
            pipeline.drain()
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return filled[0]


def _finished(
    shard: Shard, written: Path, non_finite: Collection[str], done: Callable[[FilledShard], None], digest: str
) -> None:
    flawed = tuple(tensor.name for tensor in shard.tensors if tensor.name in non_finite)
    done(FilledShard(shard.file, str(written), digest, flawed))


def _partial(path: Path) -> Path:
    """A shard's name until it is finished."""
    return path.with_name(path.name + UNFINISHED)


def _reserve(path: Path, size: int) -> None:
    """Make a file of `size` bytes, allocated on the disk where the file system can do that."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with os.fdopen(new_file(path), "r+b") as file:
        file.truncate(size)
        if hasattr(os, "posix_fallocate"):
            try:
                os.posix_fallocate(file.fileno(), 0, size)
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                    raise


def _pieces(members: Iterable[tuple[Shard, LazyTensor, Entry]], produce: Produce) -> Iterator[Piece]:
    """Yield the pieces of consecutive tensors, and check that they are as long as planned."""
    for _, tensor, entry in members:
        made = 0
        for piece in produce(tensor):
            made += piece.nbytes
            if made > entry.nbytes:
                break
            yield piece
        if made != entry.nbytes:
            raise AssertionError(f"{tensor.name}: pieces of {made} bytes, {entry.nbytes} planned")
