"""A file in a store, read by ranges, and the tensors in one."""

import hashlib
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Final

from vlsurgery.surgery.checkpoint.headers import Entry, Header, header_by_ranges
from vlsurgery.surgery.checkpoint.lazy_tensor import LazyTensor, ListedTensor
from vlsurgery.surgery.checkpoint.pointers import MAX_POINTER_BYTES, START
from vlsurgery.surgery.checkpoint.remote.store import RemoteStat, Store, requested
from vlsurgery.surgery.errors import CheckpointError

# Bytes of one request at most, and requests of all threads at a time: what comes is held once more until it is copied.
PART_BYTES: Final = 1 << 21
MAX_REQUESTS: Final = 16
# Requests at a time for one range, and bytes that are hashed at a time.
MAX_PARTS: Final = 8
HASHED_BYTES: Final = PART_BYTES * MAX_PARTS

_IN_FLIGHT: Final = threading.BoundedSemaphore(MAX_REQUESTS)


@dataclass(frozen=True)
class RemoteFile:
    """A file in a store as it was found there.

    name: its path from the checkpoint's folder. url: its own. stat: size and version when the checkpoint was opened.
    """

    store: Store
    name: str
    url: str
    stat: RemoteStat

    def read(self, start: int, stop: int) -> bytes:
        """The bytes `start` to `stop`, or fewer at the file's end."""
        buffer = bytearray(max(0, min(stop, self.stat.size) - start))
        self.read_into(memoryview(buffer), start)
        return bytes(buffer)

    def read_into(self, buffer: memoryview, start: int) -> None:
        """Fill `buffer` with the bytes from `start` on, by requests of a bounded size, several at a time.

        Raises CheckpointError that names file and bytes where not all of them can be had.
        """
        places = [*range(0, len(buffer), PART_BYTES), len(buffer)]
        parts = [(buffer[first:last], start + first) for first, last in pairwise(places)]
        if len(parts) == 1:
            self._fill(*parts[0])
        elif parts:
            with ThreadPoolExecutor(min(len(parts), MAX_PARTS)) as pool:
                list(pool.map(self._fill, *zip(*parts, strict=True)))

    def header(self) -> Header:
        """Its safetensors header, checked as one on disk is; for a modification time it has a number that its version
        makes. Raises CheckpointError as `read_header` does."""
        if self.stat.size <= MAX_POINTER_BYTES and self.read(0, len(START)) == START:
            raise CheckpointError(
                f"{self.url}: a Git LFS pointer, and not the file that it stands for. Copy that file there."
            )

        def read(start: int, stop: int) -> tuple[bytes, int]:
            return self.read(start, stop), self.stat.size

        return header_by_ranges(self.url, read, self.stat.version_number)

    def sample_digest(self, blocks: Iterable[int], block_bytes: int) -> str:
        """The SHA-256 of some blocks, by their numbers, rising. Neighbours are fetched by one request."""
        with ThreadPoolExecutor(MAX_REQUESTS) as pool:
            spans = [(first * block_bytes, last * block_bytes) for first, last in _runs(blocks)]
            digest = hashlib.sha256()
            for piece in pool.map(self.read, *zip(*spans, strict=True)) if spans else ():
                digest.update(piece)
        return digest.hexdigest()

    def digest(self) -> str:
        """The SHA-256 of all of it, which is fetched for that."""
        digest = hashlib.sha256()
        for start in range(0, self.stat.size, HASHED_BYTES):
            digest.update(self.read(start, start + HASHED_BYTES))
        return digest.hexdigest()

    def _fill(self, buffer: memoryview, start: int) -> None:
        stop = start + len(buffer)
        try:
            with _IN_FLIGHT:
                buffer[:] = requested(f"{self.url}: bytes {start} to {stop}", partial(self._whole, start, stop))
        except FileNotFoundError as error:
            raise CheckpointError(f"{self.url}: went away after it was found. Put it back, or give another.") from error

    def _whole(self, start: int, stop: int) -> bytes:
        """All bytes of a range. Raises OSError where fewer come, so that they are asked for again."""
        data = self.store.read(self.name, start, stop, self.stat)
        if len(data) != stop - start:
            raise OSError(f"{len(data)} bytes came of {stop - start}: cut off, or changed after it was found")
        return data


@dataclass(frozen=True, slots=True)
class RemoteTensor(LazyTensor):
    """A tensor in a file of a store, read by ranges."""

    file: RemoteFile

    @classmethod
    def of(cls, entry: Entry, file: RemoteFile) -> "RemoteTensor":
        return cls(entry, Path(file.url), file)

    @property
    def place(self) -> str:
        """The file that errors name."""
        return self.file.url

    def read_into(self, buffer: memoryview, start: int = 0) -> None:
        """Fill `buffer` with the tensor's bytes from byte `start` on. Raises CheckpointError without them."""
        self._check_range(start, len(buffer))
        self.file.read_into(buffer, self.offset + start)


def listed(entry: Entry, file: RemoteFile) -> ListedTensor:
    """A tensor in a file of a store of which only the header was fetched."""
    return ListedTensor(entry, Path(file.url))


def _runs(numbers: Iterable[int]) -> Iterator[tuple[int, int]]:
    """(first, last + 1) of neighbours among rising numbers."""
    first = last = None
    for number in numbers:
        if first is None or last is None:
            first = number
        elif number != last:
            yield first, last
            first = number
        last = number + 1
    if first is not None and last is not None:
        yield first, last
