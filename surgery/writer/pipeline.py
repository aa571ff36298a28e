"""A pipeline that writes files: pieces are made on all cores, hashed in order, and written in place."""

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

# Bytes and pieces of a batch at most, unless it is a single large piece: submitting costs more than making a small one.
BATCH_BYTES: Final = 1 << 22
MAX_BATCH_PIECES: Final = 1 << 10
# Bytes in flight at most, for each core and in all, unless a single piece needs more.
MAX_BYTES_IN_FLIGHT_PER_CORE: Final = 1 << 26
MAX_BYTES_IN_FLIGHT: Final = 1 << 28
# Threads that write: while the disk is busy with one batch, the next is submitted.
NUM_WRITERS: Final = 2


def max_batches_in_flight() -> int:
    """Batches in flight at most: enough that a slow one delays neither the pool nor the hash."""
    return 3 * cores() + 2


@dataclass(frozen=True)
class Piece:
    """A range of a file that can be made on its own.

    nbytes: its length. make: fills a buffer of that length. It runs in any thread, at any time after it was added,
    beside others, and must not wait for the pool that it runs in.
    """

    nbytes: int
    make: Callable[[memoryview], None]


@dataclass(frozen=True)
class _InFlight:
    """A batch in flight. made: is done once the bytes are in the buffer; its result is done once they are in the file.
    The buffer is free once that and `hashed` are done."""

    made: Future[Future[None]]
    hashed: Future[None]
    buffer: mmap.mmap


class _File:
    """A file that is being written, and the SHA-256 of its bytes so far."""

    def __init__(self, path: Path) -> None:
        self.direct = DirectFile(path)
        self.digest = hashlib.sha256()
        # Of every batch that was hashed, in order.
        self.writes: list[Future[None]] = []
        self.num_hashed = 0

    def finish(self) -> None:
        self.direct.sync()
        self.direct.close()


class WritePipeline:
    """Writes files one after another; use it as a context manager.

    pool: makes the pieces. One thread hashes them in order and others write, so that neither keeps the pool from
    computing. Only a few batches are in flight, in buffers that are used again: memory depends on the largest piece,
    not on the size of the files. Finished files are on the disk, and not in the page cache.

    Left by an error, it drops what has not begun and waits for what has: nothing is written afterwards.
    """

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._pool = pool
        self._hasher = ThreadPoolExecutor(1, "hash")
        self._writers = ThreadPoolExecutor(NUM_WRITERS, "write")
        self._max_bytes = min(MAX_BYTES_IN_FLIGHT, MAX_BYTES_IN_FLIGHT_PER_CORE * cores())
        self._in_flight: deque[_InFlight] = deque()
        self._bytes_in_flight = 0
        self._spare: list[mmap.mmap] = []
        self._files: list[_File] = []
        self._endings: deque[Future[None]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        wait([step.made for step in self._in_flight if not step.made.cancel()])
        self._hasher.shutdown(cancel_futures=True)
        self._writers.shutdown(cancel_futures=True)
        for file in self._files:
            file.direct.close()

    def add(self, path: Path, header: bytes, pieces: Iterable[Piece], finished: Callable[[str], None]) -> None:
        """Write `header` and then the pieces to the file `path`, which exists and is long enough.

        finished: called with the file's SHA-256 once all of it is written, in another thread, in the order of files.
        Returns when the last piece is submitted. A fault in flight is raised by this or a later call.
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
        while self._in_flight:
            self._retire()
        while self._endings:
            self._endings.popleft().result()

    def _submit(self, file: _File, batch: Sequence[Piece], offset: int) -> None:
        """Submit a batch as soon as there is memory for it. It lies at the same offset in a page as in the file."""
        lead, size = offset % PAGE, sum(piece.nbytes for piece in batch)
        while self._in_flight and (
            len(self._in_flight) >= max_batches_in_flight() or self._bytes_in_flight + lead + size > self._max_bytes
        ):
            self._retire()
        buffer = self._buffer(lead + size)
        data = memoryview(buffer)[lead : lead + size]
        made = self._pool.submit(self._make, file, batch, data, offset)
        self._in_flight.append(_InFlight(made, self._hasher.submit(self._hash, file, made, data), buffer))
        self._bytes_in_flight += len(buffer)

    def _buffer(self, nbytes: int) -> mmap.mmap:
        """A spare buffer of at least that size, or a new one in place of a spare one that is too small."""
        fitting = min((buffer for buffer in self._spare if len(buffer) >= nbytes), key=len, default=None)
        if fitting is not None:
            self._spare.remove(fitting)
            return fitting
        if self._spare:
            self._spare.pop()
        return new_buffer(max(nbytes, BATCH_BYTES + PAGE))

    def _retire(self) -> None:
        """Wait for the oldest batch, and take its buffer back."""
        step = self._in_flight[0]
        step.made.result().result()
        step.hashed.result()
        self._in_flight.popleft()
        self._bytes_in_flight -= len(step.buffer)
        self._spare.append(step.buffer)

    def _make(self, file: _File, batch: Sequence[Piece], data: memoryview, offset: int) -> Future[None]:
        """Make the pieces of a batch, and submit it for writing."""
        start = 0
        for piece in batch:
            piece.make(data[start : start + piece.nbytes])
            start += piece.nbytes
        return self._writers.submit(file.direct.write, data, offset)

    def _hash(self, file: _File, made: Future[Future[None]], data: memoryview) -> None:
        """Hash a batch once it is made; runs in the hashing thread, in the order of batches."""
        file.writes.append(made.result())
        file.digest.update(data)
        file.num_hashed += len(data)

    def _end(self, file: _File, size: int, finished: Callable[[str], None]) -> None:
        """Finish a file; runs in the hashing thread behind its last batch. It does not finish a file if one of its
        batches failed: that batch's future raises the error."""
        if file.num_hashed != size:
            return
        for write in file.writes:
            write.result()
        finished(file.digest.hexdigest())
        self._endings.append(self._writers.submit(file.finish))


def batches(*runs: Iterable[Piece]) -> Iterator[list[Piece]]:
    """Yield pieces in order: small ones together, a large one alone, empty ones not at all."""
    batch: list[Piece] = []
    size = 0
    for run in runs:
        for piece in run:
            if batch and (size + piece.nbytes > BATCH_BYTES or len(batch) == MAX_BATCH_PIECES):
                yield batch
                batch, size = [], 0
            if piece.nbytes:
                batch.append(piece)
                size += piece.nbytes
    if batch:
        yield batch


def _copy(view: memoryview, source: memoryview) -> None:
    view[:] = source
