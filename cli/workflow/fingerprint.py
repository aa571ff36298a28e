"""The fingerprint of what a step wrote: by content, so that it outlives copying and moving."""

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from vlsurgery.surgery.checkpoint.digests import file_digest, stat_key
from vlsurgery.surgery.checkpoint.headers import read_header
from vlsurgery.surgery.checkpoint.identity import WeightFile, identity_of, sample_digest, spaced_blocks
from vlsurgery.surgery.errors import CheckpointError

# Longer files are the shards of a merged checkpoint: a sample is read of them, and SHA256SUMS beside them has the rest.
MAX_WHOLE_BYTES: Final = 1 << 26

# Path and state of a file -> its digest: a command asks several times for the same files.
_known: dict[tuple[Path, str], str] = {}


def fingerprint(paths: Iterable[Path]) -> str:
    """ "sha256:..." over name, size and content of each file, and of every file in each directory.

    Files of up to 64 MiB are read whole; of longer ones, a sample is, of shards with a block of every tensor in it.
    """
    lines = [f"{name}\t{file.stat().st_size}\t{_content(file)}" for name, file in _files(paths)]
    return f"sha256:{hashlib.sha256(chr(10).join(lines).encode()).hexdigest()}"


def is_unchanged(recorded: str | None, paths: Iterable[Path]) -> bool:
    """Whether files and directories have the fingerprint that was recorded, here or by an earlier version."""
    if recorded is None or recorded.startswith("sha256:"):
        return recorded == fingerprint(paths)
    return recorded == _stamp(paths)


def _stamp(paths: Iterable[Path]) -> str:
    """The fingerprint of earlier versions, over name, size and modification time."""
    facts = [(name, file.stat()) for name, file in _files(paths)]
    lines = [f"{name}\t{status.st_size}\t{status.st_mtime_ns}" for name, status in facts]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _files(paths: Iterable[Path]) -> Iterator[tuple[Path, Path]]:
    """Every file, by its name from the folder that holds the path that it belongs to."""
    for path in paths:
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file():
                yield file.relative_to(path.parent), file


def _content(file: Path) -> str:
    status = file.stat()
    key = stat_key(status)
    if key is not None and (file, key) in _known:
        return _known[file, key]
    whole = status.st_size <= MAX_WHOLE_BYTES
    digest = file_digest(file) if whole else _sample(file, status.st_size)
    if key is not None:
        _known[file, key] = digest
    return digest


def _sample(file: Path, size: int) -> str:
    if file.suffix == ".safetensors":
        try:
            return identity_of([WeightFile(file.name, file, read_header(file))])
        except CheckpointError:  # It is damaged, so that its sample differs from that of what was written.
            pass
    return sample_digest(file, spaced_blocks(size))
