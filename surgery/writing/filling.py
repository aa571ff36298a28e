"""Filling files in parallel: pieces are made on all cores, written in place, and hashed in order on the way."""

import hashlib
import mmap
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from surgery.workers import cores

# Pieces of up to so many bytes together, and so many pieces, are handed over at once: that costs more than making a
# small one.
BATCH: Final = 1 << 22
MEMBERS: Final = 1 << 10
# Bytes under way at most, unless a single piece needs more.
HELD: Final = 1 << 28
# Bytes after which a file's new pages are sent to the disk and taken out of the page cache. Without that, a merge would
# push its own inputs out of memory, and leave all of its writing to the last fsync.
FLUSH: Final = 1 << 27
# Such stretches that wait for the disk at most.
BEHIND: Final = 2
# Where a piece begins in its buffer: vector instructions and every dtype are content with it.
ALIGNMENT: Final = 64


def most_under_way() -> int:
    """Batches under way at most: enough that a slow one keeps neither the threads nor the hash waiting."""
    return 4 * cores() + 8


@dataclass(frozen=True)
class Piece:
    """A stretch of a file that can be made on its own.

    nbytes: its length. make: fills a buffer of that length. It runs in any thread, at any time after it was handed
    over, beside others, and must not wait for the pool that it runs in.
    """

    nbytes: int
    make: Callable[[memoryview], None]


@dataclass(frozen=True)
class _Step:
    """Work under way: once `made` is done, the bytes are in buffer and file; once `hashed` is, the buffer is free."""

    made: Future[None]
    hashed: Future[None]
    buffer: mmap.mmap


class _File:
    """A file that is being filled, the SHA-256 of what went in so far, and how far it is on the disk."""

    def __init__(self, path: Path) -> None:
        self._file: FileIO = path.open("r+b", buffering=0)
        self._digest = hashlib.sha256()
        self._hashed = 0
        self._flushed = 0
        # Bytes of batches that went well from end to end.
        self.well = 0

    def fill(self, pieces: Sequence[Piece], views: Sequence[memoryview], offset: int) -> None:
        """Make pieces that follow one another, the first at `offset`, and write each while the cache still has it."""
        for piece, view in zip(pieces, views, strict=True):
            piece.make(view)
            self._write(view, offset)
            offset += piece.nbytes

    def _write(self, data: memoryview, offset: int) -> None:
        done = 0
        while done < len(data):
            done += os.pwrite(self._file.fileno(), data[done:], offset + done)

    def hash(self, views: Sequence[memoryview]) -> None:
        for view in views:
            self._digest.update(view)
            self._hashed += len(view)

    def hexdigest(self) -> str:
        return self._digest.hexdigest()

    def unflushed(self) -> tuple[int, int] | None:
        """The stretch that was written since the last one that this gave, once it is worth a flush."""
        if self._hashed - self._flushed < FLUSH:
            return None
        start, self._flushed = self._flushed, self._hashed
        return start, self._hashed

    def flush(self, start: int, stop: int) -> None:
        """Send what is written to the disk, and let go of the pages of a stretch."""
        os.fsync(self._file.fileno())
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._file.fileno(), start, stop - start, os.POSIX_FADV_DONTNEED)

    def finish(self) -> None:
        self.flush(self._flushed, self._hashed)
        self.close()

    def close(self) -> None:
        self._file.close()


class Filling:
    """Fills files one after another; use it as a context manager.

    pool: where pieces are made. A thread of its own hashes them in order, another waits for the disk, so that neither
    keeps the pool from computing. At most a few pieces are under way, in buffers that are used again: memory is told
    by the largest piece, whatever the size of the files. Finished files are on the disk, and no longer in the page
    cache.

    Left by an error, it drops what has not begun, and waits for what has: nothing writes any more afterwards.
    """

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._pool = pool
        self._hasher = ThreadPoolExecutor(1, "hash")
        self._flusher = ThreadPoolExecutor(1, "flush")
        self._most = most_under_way()
        self._under_way: deque[_Step] = deque()
        self._held = 0
        self._spare: list[mmap.mmap] = []
        self._files: list[_File] = []
        self._endings: deque[Future[None]] = deque()
        self._flushes: deque[Future[None]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        wait([step.made for step in self._under_way if not step.made.cancel()])
        self._hasher.shutdown(cancel_futures=True)
        self._flusher.shutdown(cancel_futures=True)
        for file in self._files:
            file.close()

    def add(self, path: Path, header: bytes, pieces: Iterable[Piece], finished: Callable[[str], None]) -> None:
        """Fill the file `path`, which is there and long enough, with `header` and the pieces behind it.

        finished: called with the file's SHA-256 once all of it is written, in another thread, in the order of files.
        Returns when the last piece is handed over. What fails under way is raised by this or a later call.
        """
        file = _File(path)
        self._files.append(file)
        whole, offset = memoryview(header), 0
        for batch in batches([Piece(len(header), lambda view: _copy(view, whole))], pieces):
            self._submit(file, batch, offset)
            offset += sum(piece.nbytes for piece in batch)
        self._endings.append(self._hasher.submit(self._end, file, offset, finished))
        while self._endings[0].done() and len(self._endings) > 1:
            self._endings.popleft().result()

    def settle(self) -> None:
        """Wait until every file is finished and on the disk; raises what failed."""
        while self._under_way:
            self._retire()
        for queue in (self._endings, self._flushes):
            while queue:
                queue.popleft().result()

    def _submit(self, file: _File, batch: Sequence[Piece], offset: int) -> None:
        """Hand a batch over as soon as there is room for it."""
        starts, end = [], 0
        for piece in batch:
            starts.append(end)
            end += -(-piece.nbytes // ALIGNMENT) * ALIGNMENT
        while self._under_way and (len(self._under_way) >= self._most or self._held + end > HELD):
            self._retire()
        buffer = self._buffer(end)
        whole = memoryview(buffer)
        views = [whole[start : start + piece.nbytes] for start, piece in zip(starts, batch, strict=True)]
        made = self._pool.submit(file.fill, batch, views, offset)
        self._under_way.append(_Step(made, self._hasher.submit(self._hash, file, made, views), buffer))
        self._held += len(buffer)

    def _buffer(self, nbytes: int) -> mmap.mmap:
        """A spare buffer of at least that size, or a new one in the place of a spare one that is too small."""
        fitting = min((buffer for buffer in self._spare if len(buffer) >= nbytes), key=len, default=None)
        if fitting is not None:
            self._spare.remove(fitting)
            return fitting
        if self._spare:
            self._spare.pop()
        return mmap.mmap(-1, max(nbytes, BATCH))

    def _retire(self) -> None:
        """Wait for the oldest batch, and take its buffer back."""
        step = self._under_way[0]
        step.hashed.result()
        self._under_way.popleft()
        self._held -= len(step.buffer)
        self._spare.append(step.buffer)

    def _hash(self, file: _File, made: Future[None], views: Sequence[memoryview]) -> None:
        """Runs in the hashing thread: a batch is taken in where its bytes are in order."""
        made.result()
        file.hash(views)
        stretch = file.unflushed()
        if stretch is not None:
            self._flush(self._flusher.submit(file.flush, *stretch))
        file.well += sum(map(len, views))

    def _end(self, file: _File, size: int, finished: Callable[[str], None]) -> None:
        """Runs in the hashing thread behind the file's last batch. A file that lacks a batch is none: that batch's own
        step tells why."""
        if file.well != size:
            return
        finished(file.hexdigest())
        self._flush(self._flusher.submit(file.finish))

    def _flush(self, flush: Future[None]) -> None:
        """Let the disk be behind, but not far: what waits for it holds memory, and is waited for in the end."""
        self._flushes.append(flush)
        while len(self._flushes) > BEHIND:
            self._flushes.popleft().result()


def batches(*runs: Iterable[Piece]) -> Iterator[list[Piece]]:
    """Pieces in order, small ones together, large ones alone; what has no bytes is left out."""
    batch: list[Piece] = []
    size = 0
    for run in runs:
        for piece in run:
            if batch and (size + piece.nbytes > BATCH or len(batch) == MEMBERS):
                yield batch
                batch, size = [], 0
            if piece.nbytes:
                batch.append(piece)
                size += piece.nbytes
    if batch:
        yield batch


def _copy(view: memoryview, source: memoryview) -> None:
    view[:] = source
