"""Writing a checkpoint tensor by tensor: planned from headers, streamed, hashed on the way, index last."""

import hashlib
import json
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Final

from surgery.checkpoint import Checkpoint, LazyTensor
from surgery.errors import CheckpointError
from surgery.headers import header_bytes
from surgery.layout import INDEX, read_json
from surgery.progress import Track, silent
from surgery.target import check_target, target

# What we write ourselves beside the weights; the same files of `like` speak of `like`.
OURS: Final = ("README.md", "recipe.yaml")


@dataclass(frozen=True)
class Piece:
    nbytes: int
    make: Callable[[memoryview], None]


Produce = Callable[[LazyTensor], Iterator[Piece]]


@dataclass(frozen=True)
class Shard:
    """A file to be written. `header`: with its length in front. `tensors`: of `like`, in the order of their bytes."""

    file: str
    header: bytes
    tensors: tuple[LazyTensor, ...]

    @property
    def nbytes(self) -> int:
        return len(self.header) + sum(tensor.nbytes for tensor in self.tensors)


@dataclass(frozen=True)
class Plan:
    """Everything that will be written, known before the first byte is: the layout of `like`, less what was left out."""

    like: Checkpoint
    shards: tuple[Shard, ...]
    extra: tuple[Path, ...]
    index: str | None

    @property
    def nbytes(self) -> int:
        return sum(shard.nbytes for shard in self.shards) + sum(file.stat().st_size for file in self.extra)

    @property
    def tensors(self) -> list[LazyTensor]:
        """Every tensor of the result, in the order in which it is written."""
        return [tensor for shard in self.shards for tensor in shard.tensors]


def plan(like: Checkpoint, leave_out: Collection[str] = (), code=None) -> Plan:
    """The files of a checkpoint with the names, shapes, dtypes and shards of `like`, less the tensors `leave_out`."""
    shards = []
    for file, header in like.shards.items():
        tensors = tuple(like[entry.name] for entry in header.entries if entry.name not in leave_out)
        if tensors:
            members = ((tensor.name, tensor.code, tensor.shape, tensor.nbytes) for tensor in tensors)
            shards.append(Shard(file, header_bytes(members, header.metadata), tensors))
    extra = tuple(file for file in like.extra_files if str(file.relative_to(like.path)) not in OURS)
    return Plan(like, tuple(shards), extra, _index_text(like, shards))


def write(
    order: Plan,
    out: Path,
    produce: Produce,
    texts: Mapping[str, str],
    inputs: Iterable[Path] = (),
    track: Track = silent,
    pool=None,
) -> dict[str, str]:
    """Write a planned checkpoint to the directory `out`; returns file name -> SHA-256 of every shard.

    produce: gives the bytes of each tensor. texts: further files (recipe.yaml, README.md). inputs: directories that
    must not be written over. Memory stays within one piece of one tensor.

    Whatever goes wrong, Ctrl-C included, `out` is as it was. Raises TargetError for what the disk refuses.
    """
    contents = {name: text.encode() for name, text in texts.items()}
    check_target(out, [order.like.path, *inputs], order.nbytes + sum(map(len, contents.values())))
    steps = [(shard, tensor) for shard in order.shards for tensor in shard.tensors]
    digests: dict[str, str] = {}
    with target(out, texts["recipe.yaml"]) as folder:
        for file, members in groupby(track(steps, "writing weights", len(steps)), key=lambda step: step[0].file):
            digests[file] = _write_shard(folder / file, members, produce)
        for source in order.extra:
            _copy(source, folder / source.relative_to(order.like.path))
        for name, content in contents.items():
            _write_bytes(folder / name, content)
        if order.index is not None:
            _write_bytes(folder / INDEX, order.index.encode())
    return digests


def _write_shard(path: Path, members: Iterator[tuple[Shard, LazyTensor]], produce: Produce) -> str:
    """Write one file, tensor by tensor, hashing what goes in."""
    digest = hashlib.sha256()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:

        def put(piece: bytes | memoryview) -> int:
            digest.update(piece)
            return file.write(piece)

        for shard, tensor in members:
            if not file.tell():
                put(shard.header)
            written = sum(put(_mk(piece)) for piece in produce(tensor))
            if written != tensor.nbytes:
                raise AssertionError(f"{tensor.name}: {written} bytes were made, {tensor.nbytes} planned")
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def _index_text(like: Checkpoint, shards: Sequence[Shard]) -> str | None:
    """The index of the written shards, with the other metadata that `like`'s has; None for one file without one."""
    has_index = (like.path / INDEX).is_file()
    if not has_index and len(shards) == 1:
        return None
    tensors = [(tensor, shard.file) for shard in shards for tensor in shard.tensors]
    kept = read_json(like.path / INDEX).get("metadata") if has_index else None
    totals = {
        "total_parameters": sum(tensor.numel for tensor, _ in tensors),
        "total_size": sum(tensor.nbytes for tensor, _ in tensors),
    }
    weight_map = {tensor.name: file for tensor, file in sorted(tensors, key=lambda item: item[0].name)}
    metadata = {**(kept if isinstance(kept, dict) else {}), **totals}
    return json.dumps({"metadata": metadata, "weight_map": weight_map}, indent=2, ensure_ascii=False) + "\n"


def _copy(source: Path, goal: Path) -> None:
    """Copy a small file. What can't be read is the checkpoint's fault, not the target's."""
    try:
        content = source.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{source}: can't be read ({error.strerror or error}).") from error
    goal.parent.mkdir(parents=True, exist_ok=True)
    _write_bytes(goal, content)


def _write_bytes(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _mk(piece):
    b = bytearray(piece.nbytes)
    piece.make(memoryview(b))
    return b
