"""Filling files in parallel: pieces are made on all cores, written in place, and hashed in order beside that."""

import hashlib
import mmap
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from vlsurgery.surgery.runtime.buffers import new_buffer
from vlsurgery.surgery.runtime.worker_pool import cores
from vlsurgery.surgery.writer.direct_io import PAGE, DirectFile

# Pieces of up to so many bytes together, and so many pieces, are handed over at once: that costs more than making a
# small one.
BATCH: Final = 1 << 22
MEMBERS: Final = 1 << 10
# Bytes under way at most, unless a single piece needs more: so many for each core, and so many in all.
HELD_BY_CORE: Final = 1 << 26
HELD: Final = 1 << 28
# Writes at a time: while the disk is busy with one, the next is there.
WRITERS: Final = 2


def max_in_flight() -> int:
    """Batches under way at most: enough that a slow one keeps neither the threads nor the hash waiting."""
    return 3 * cores() + 2


def most_held() -> int:
    """Bytes under way at most: memory that is touched for the first time costs more than what comes into it."""
    return min(HELD, HELD_BY_CORE * cores())


@dataclass(frozen=True)
class Piece:
    """A stretch of a file that can be made on its own.

    nbytes: its length. make: fills a buffer of that length. It runs in any thread, at any time after it was handed
    over, beside others, and must not wait for the pool that it runs in.
    """

    nbytes: int
    make: Callable[[memoryview], None]


@dataclass(frozen=True)
class _InFlight:
    """Work under way. Once `made` is done the bytes are in the buffer, and what it gives is done once they are in the
    file; once `hashed` is done too, the buffer is free."""

    made: Future[Future[None]]
    hashed: Future[None]
    buffer: mmap.mmap


class _File:
    """A file that is being filled, and the SHA-256 of what went in so far."""

    def __init__(self, path: Path) -> None:
        self.place = DirectFile(path)
        self._digest = hashlib.sha256()
        # Of every batch that was hashed, in order.
        self.writes: list[Future[None]] = []
        self.hashed = 0

    def hash(self, data: memoryview) -> None:
        self._digest.update(data)
        self.hashed += len(data)

    def hexdigest(self) -> str:
        return self._digest.hexdigest()

    def finish(self) -> None:
        self.place.sync()
        self.place.close()


class WritePipeline:
    """Fills files one after another; use it as a context manager.

    pool: where pieces are made. A thread of its own hashes them in order, others wait for the disk, so that neither
    keeps the pool from computing. At most a few pieces are under way, in buffers that are used again: memory is told
    by the largest piece, whatever the size of the files. Finished files are on the disk, and not in the page cache.

    Left by an error, it drops what has not begun, and waits for what has: nothing writes any more afterwards.
    """

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._pool = pool
        self._hasher = ThreadPoolExecutor(1, "hash")
        self._writers = ThreadPoolExecutor(WRITERS, "write")
        self._most, self._room = max_in_flight(), most_held()
        self._under_way: deque[_InFlight] = deque()
        self._held = 0
        self._spare: list[mmap.mmap] = []
        self._files: list[_File] = []
        self._endings: deque[Future[None]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        wait([step.made for step in self._under_way if not step.made.cancel()])
        self._hasher.shutdown(cancel_futures=True)
        self._writers.shutdown(cancel_futures=True)
        for file in self._files:
            file.place.close()

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

    def drain(self) -> None:
        """Wait until every file is finished and on the disk; raises what failed."""
        while self._under_way:
            self._retire()
        while self._endings:
            self._endings.popleft().result()

    def _submit(self, file: _File, batch: Sequence[Piece], offset: int) -> None:
        """Hand a batch over as soon as there is room for it."""
        lead, size = offset % PAGE, sum(piece.nbytes for piece in batch)
        while self._under_way and (len(self._under_way) >= self._most or self._held + lead + size > self._room):
            self._retire()
        buffer = self._buffer(lead + size)
        data = memoryview(buffer)[lead : lead + size]
        made = self._pool.submit(self._make, file, batch, data, offset)
        self._under_way.append(_InFlight(made, self._hasher.submit(self._hash, file, made, data), buffer))
        self._held += len(buffer)

    def _buffer(self, nbytes: int) -> mmap.mmap:
        """A spare buffer of at least that size, or a new one in the place of a spare one that is too small."""
        fitting = min((buffer for buffer in self._spare if len(buffer) >= nbytes), key=len, default=None)
        if fitting is not None:
            self._spare.remove(fitting)
            return fitting
        if self._spare:
            self._spare.pop()
        return new_buffer(max(nbytes, BATCH + PAGE))

    def _retire(self) -> None:
        """Wait for the oldest batch, and take its buffer back."""
        step = self._under_way[0]
        step.made.result().result()
        step.hashed.result()
        self._under_way.popleft()
        self._held -= len(step.buffer)
        self._spare.append(step.buffer)

    def _make(self, file: _File, batch: Sequence[Piece], data: memoryview, offset: int) -> Future[None]:
        """Make pieces that follow one another; what is given is done once they are written."""
        start = 0
        for piece in batch:
            piece.make(data[start : start + piece.nbytes])
            start += piece.nbytes
        return self._writers.submit(file.place.write, data, offset)

    def _hash(self, file: _File, made: Future[Future[None]], data: memoryview) -> None:
        """Runs in the hashing thread: a batch is taken in where its bytes are in order."""
        file.writes.append(made.result())
        file.hash(data)

    def _end(self, file: _File, size: int, finished: Callable[[str], None]) -> None:
        """Runs in the hashing thread behind the file's last batch. A file that lacks a batch is none: that batch's own
        step tells why."""
        if file.hashed != size:
            return
        for write in file.writes:
            write.result()
        finished(file.hexdigest())
        self._endings.append(self._writers.submit(file.finish))


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
