"""The files that a merge will write, planned from headers before the first byte is written."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, Final

from vlsurgery.surgery.checkpoint import FLOATS, TORCH_NAMES, Checkpoint, LazyTensor
from vlsurgery.surgery.checkpoint.headers import BITS, Entry, header_bytes
from vlsurgery.surgery.checkpoint.shards import INDEX, read_json
from vlsurgery.surgery.writer.checksums import SUMS
from vlsurgery.surgery.writer.journal import JOURNAL

CONFIG: Final = "config.json"
# Files that a merge writes itself, and so does not copy from `like`.
OURS: Final = ("README.md", "recipe.yaml", SUMS, JOURNAL)
# Names of files that a note lists.
SHOWN_NAMES: Final = 8


@dataclass(frozen=True)
class Shard:
    """A file to be written. header: with its length in front. tensors: of `like`, in the order of their bytes. entries:
    of the same tensors in the new file: dtype, shape, offset and size."""

    file: str
    header: bytes
    tensors: tuple[LazyTensor, ...]
    entries: tuple[Entry, ...]

    @property
    def nbytes(self) -> int:
        return len(self.header) + sum(entry.nbytes for entry in self.entries)


@dataclass(frozen=True)
class ShardPlan:
    """Everything that will be written: the layout of `like`, less the tensors that are left out.

    extra: name -> path of the files of `like` that are copied. config: the text of config.json where its dtype changes,
    else None. index: the text of the shards' index; None for a single file without one.
    """

    like: Checkpoint
    shards: tuple[Shard, ...]
    extra: Mapping[str, Path]
    config: str | None
    index: str | None

    @property
    def nbytes(self) -> int:
        """Bytes of all files, without those about the merge (recipe, card, checksums)."""
        return sum(shard.nbytes for shard in self.shards) + sum(file.stat().st_size for file in self.extra.values())

    @property
    def tensors(self) -> list[LazyTensor]:
        """The tensors of `like` that the result has, in the order in which they are written."""
        return [tensor for shard in self.shards for tensor in shard.tensors]

    @property
    def notes(self) -> list[str]:
        """What is said about the files beside the weights: those of an adapter, and those that are left behind."""
        like, notes = self.like, []
        if like.adapter is not None:
            own = [name for name, file in self.extra.items() if file.is_relative_to(like.adapter.path)]
            if own:
                notes.append(f"{like.adapter.path}: the adapter's own {', '.join(own)} is used, not the base's.")
        left = [name for name in like.left_behind if name not in OURS]
        if left:
            more = f" and {len(left) - SHOWN_NAMES} more" if len(left) > SHOWN_NAMES else ""
            notes.append(
                f"{like.place}: not copied, being no config, tokenizer, processor, template or licence: "
                f"{', '.join(left[:SHOWN_NAMES])}{more}."
            )
        return notes

    @property
    def entries(self) -> dict[str, Entry]:
        """Every tensor of the result by name, as it will be stored."""
        return {entry.name: entry for shard in self.shards for entry in shard.entries}


def plan_shards(like: Checkpoint, leave_out: Collection[str] = (), dtype: str | None = None) -> ShardPlan:
    """Plan a checkpoint with the names, shapes and shards of `like`, less the tensors `leave_out`.

    dtype: of stored floating-point tensors, by the format's name ("F32", "BF16", "F16"); config.json then names it too.
    None: each as `like` has it.
    """
    if dtype is not None and dtype not in FLOATS:
        raise ValueError(f"{dtype}: not one of {', '.join(sorted(FLOATS))}")
    shards = []
    for file, header in like.shards.items():
        tensors = tuple(like[entry.name] for entry in header.entries if entry.name not in leave_out)
        if tensors:
            shards.append(_shard(file, tensors, dtype, header.metadata))
    extra = {name: file for name, file in like.companions.items() if name not in OURS}
    config = None if dtype is None else _config_text(like.config, TORCH_NAMES[dtype])
    return ShardPlan(like, tuple(shards), extra, config, _index_text(like, shards))


def _shard(file: str, tensors: tuple[LazyTensor, ...], dtype: str | None, metadata: dict[str, str]) -> Shard:
    members = []
    for tensor in tensors:
        stored = dtype if dtype is not None and tensor.is_float else tensor.safetensors_dtype
        size = tensor.nbytes if stored == tensor.safetensors_dtype else tensor.numel * BITS[stored] // 8
        members.append((tensor.name, stored, tensor.shape, size))
    header = header_bytes(members, metadata)
    offsets = accumulate((size for *_, size in members), initial=len(header))
    entries = tuple(Entry(*member[:3], offset, member[3]) for member, offset in zip(members, offsets, strict=False))
    return Shard(file, header, tensors, entries)


def _config_text(config: Mapping[str, Any], name: str) -> str | None:
    """config.json with `name` as its dtype, in inner configs too; None where that changes nothing."""
    stated = _with_dtype(config, name)
    return None if stated == config else json.dumps(stated, indent=2, ensure_ascii=False) + "\n"


def _with_dtype(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {
        key: name
        if key in ("dtype", "torch_dtype") and isinstance(value, str)
        else _with_dtype(value, name)
        if isinstance(value, dict) and key.endswith("_config")
        else value
        for key, value in config.items()
    }


def _index_text(like: Checkpoint, shards: Sequence[Shard]) -> str | None:
    """The index of the written shards, with the metadata of `like`'s index; None for a single file without one."""
    has_index = (like.path / INDEX).is_file()
    if not has_index and len(shards) == 1:
        return None
    kept = read_json(like.path / INDEX).get("metadata") if has_index else None
    places = {entry.name: shard.file for shard in shards for entry in shard.entries}
    totals = {
        "total_parameters": sum(tensor.numel for shard in shards for tensor in shard.tensors),
        "total_size": sum(entry.nbytes for shard in shards for entry in shard.entries),
    }
    metadata = {**(kept if isinstance(kept, dict) else {}), **totals}
    return (
        json.dumps({"metadata": metadata, "weight_map": dict(sorted(places.items()))}, indent=2, ensure_ascii=False)
        + "\n"
    )
