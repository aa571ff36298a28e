"""Who a checkpoint is, by what is in its files: a copy is the same one, wherever it lies and whenever it was made."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vlsurgery.surgery.checkpoint.headers import Header
from vlsurgery.surgery.checkpoint.remote.remote_file import RemoteFile
from vlsurgery.surgery.errors import CheckpointError

BLOCK_BYTES: Final = 4096
# Files of at most so many bytes are read whole; of longer ones, blocks are.
MAX_WHOLE_BYTES: Final = 1 << 22
# Blocks of one checkpoint at most: in the middles of tensors, and evenly spaced over its files.
TENSOR_BLOCKS: Final = 1024
SPACED_BLOCKS: Final = 256
# Blocks at the end of a pickled file, which is a zip archive: it ends with a checksum of each of its members.
LAST_BLOCKS: Final = 16
MAX_READERS: Final = 8


@dataclass(frozen=True)
class WeightFile:
    """A file of weights. name: by which its checkpoint knows it. plain: whether its header's offsets are places in the
    file; in pickled weights they are not."""

    name: str
    file: Path | RemoteFile
    header: Header
    plain: bool = True


def identity_of(files: Sequence[WeightFile], more: Iterable[str] = ()) -> str:
    """ "sha256:..." over name, size, header and a sample of the bytes of every file, and over `more`.

    Sampled are a block in the middle of every tensor (of 1,024 tensors at most, evenly chosen), and blocks that are
    evenly spaced; files of up to 4 MiB are read whole. So it differs for weights that were trained further, and is the
    same for every copy. It need not differ where a few entries were edited: `contents` tells that.

    Raises CheckpointError for a file that can't be read.
    """
    blocks = _blocks(files)
    with ThreadPoolExecutor(MAX_READERS) as pool:
        samples = pool.map(lambda each: _sampled(each.file, blocks[each.name]), files)
        lines = [
            [file.name, file.header.size, file.header.digest, sample]
            for file, sample in zip(files, samples, strict=True)
        ]
    return _joined([*sorted(lines), *more])


def header_identity(files: Iterable[tuple[str, Header]], more: Iterable[str | None]) -> str:
    """ "headers:sha256:..." over names, sizes and headers alone, and over `more`: of a checkpoint whose weights were
    not fetched. It is never the identity of one whose weights are there."""
    return f"headers:{_joined([*sorted([name, header.size, header.digest] for name, header in files), *more])}"


def stamp_of(files: Iterable[tuple[str, Header]], more: Iterable[str | None]) -> str:
    """ "sha256:..." over name, size, modification time and header of every file, and over `more`: it changes whenever
    a file is written again, and with every copy. Earlier versions took it for the identity."""
    digest = hashlib.sha256()
    for name, header in sorted(files):
        digest.update(json.dumps([name, header.size, header.mtime_ns, header.digest]).encode())
    for each in more:
        if each:
            digest.update(json.dumps(each).encode())
    return f"sha256:{digest.hexdigest()}"


def _sampled(file: Path | RemoteFile, blocks: Iterable[int]) -> str:
    return sample_digest(file, blocks) if isinstance(file, Path) else file.sample_digest(blocks, BLOCK_BYTES)


def sample_digest(path: Path, blocks: Iterable[int]) -> str:
    """The SHA-256 of some blocks of a file, by their numbers, in that order. Raises CheckpointError that names it."""
    digest = hashlib.sha256()
    try:
        with path.open("rb", buffering=0) as file:
            for number in blocks:
                file.seek(number * BLOCK_BYTES)
                digest.update(file.read(BLOCK_BYTES))
    except OSError as error:
        raise CheckpointError(f"{path}: can't be read ({error.strerror or error}).") from error
    return digest.hexdigest()


def spaced_blocks(size: int, count: int = SPACED_BLOCKS) -> Sequence[int]:
    """Numbers of blocks of a file of `size` bytes, rising: all of a short file, else `count` or two of them, evenly
    spaced from the first to the last."""
    last = max(0, size - 1) // BLOCK_BYTES
    if size <= MAX_WHOLE_BYTES:
        return range(last + 1)
    steps = max(1, count - 1)
    return [step * last // steps for step in range(steps + 1)]


def _blocks(files: Sequence[WeightFile]) -> dict[str, list[int]]:
    """Name of a file -> the numbers of the blocks that are read of it, rising."""
    total = sum(file.header.size for file in files) or 1
    chosen = {
        file.name: set(spaced_blocks(file.header.size, SPACED_BLOCKS * file.header.size // total)) for file in files
    }
    long = [file for file in files if file.header.size > MAX_WHOLE_BYTES]
    middles = [
        (file.name, (entry.offset + entry.nbytes // 2) // BLOCK_BYTES)
        for file in long
        if file.plain
        for entry in file.header.entries
    ]
    count = min(len(middles), TENSOR_BLOCKS)
    for number in range(count):
        name, block = middles[number * len(middles) // count]
        chosen[name].add(block)
    for file in long:
        if not file.plain:
            last = (file.header.size - 1) // BLOCK_BYTES
            chosen[file.name].update(range(last - LAST_BLOCKS + 1, last + 1))
    return {name: sorted(numbers) for name, numbers in chosen.items()}


def _joined(parts: Sequence[object]) -> str:
    return f"sha256:{hashlib.sha256(json.dumps(parts).encode()).hexdigest()}"
