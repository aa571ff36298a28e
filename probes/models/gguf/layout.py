"""The files that a GGUF file becomes, planned before the first byte is written."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from vlsurgery.probes.models.gguf.source import GGUFModel, Unit
from vlsurgery.surgery.checkpoint import LazyTensor
from vlsurgery.surgery.checkpoint.headers import BITS, Entry, header_bytes
from vlsurgery.surgery.writer.shard_plan import Shard

MAX_SHARD_BYTES: Final = 5_000_000_000
DTYPES: Final = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}
SINGLE: Final = "model.safetensors"


@dataclass(frozen=True)
class Layout:
    """The shards, and the index beside them; None for a single one.

    A shard's entries are units: one may hold several tensors, which are made together. units: by their parameters.
    """

    shards: tuple[Shard, ...]
    index: str | None
    units: dict[str, Unit]

    @property
    def nbytes(self) -> int:
        return sum(shard.nbytes for shard in self.shards)


def laid_out(model: GGUFModel, dtype: str, max_shard_bytes: int) -> Layout:
    """The layout of a model in a dtype: units in the model's order, as many in a shard as fit; in it, by name."""
    stored, units = DTYPES[dtype], {unit.parameter: unit for unit in model.units}
    groups = list(_groups(model.units, BITS[stored] // 8, max_shard_bytes))
    files = [SINGLE] if len(groups) == 1 else [_numbered(number, len(groups)) for number in range(len(groups))]
    shards = tuple(_shard(model.file, file, group, stored) for file, group in zip(files, groups, strict=True))
    return Layout(shards, _index(files, groups, BITS[stored] // 8) if len(groups) > 1 else None, units)


def _numbered(number: int, count: int) -> str:
    return f"model-{number + 1:05d}-of-{count:05d}.safetensors"


def _numel(unit: Unit) -> int:
    return sum(_product(shape) for _, shape in unit.tensors)


def _product(shape: Sequence[int]) -> int:
    product = 1
    for extent in shape:
        product *= extent
    return product


def _groups(units: Sequence[Unit], itemsize: int, most: int) -> Iterator[list[Unit]]:
    group: list[Unit] = []
    for unit in units:
        if group and (sum(map(_numel, group)) + _numel(unit)) * itemsize > most:
            yield sorted(group, key=lambda each: each.parameter)
            group = []
        group.append(unit)
    if group:
        yield sorted(group, key=lambda each: each.parameter)


def _shard(source: Path, file: str, units: Sequence[Unit], stored: str) -> Shard:
    itemsize = BITS[stored] // 8
    members = [(name, stored, shape, _product(shape) * itemsize) for unit in units for name, shape in unit.tensors]
    header = header_bytes(members, {"format": "pt"})
    offset, entries = len(header), []
    for unit in units:
        nbytes = _numel(unit) * itemsize
        entries.append(Entry(unit.parameter, stored, (_numel(unit),), offset, nbytes))
        offset += nbytes
    return Shard(file, header, tuple(LazyTensor(entry, source) for entry in entries), tuple(entries))


def _index(files: Sequence[str], groups: Sequence[Sequence[Unit]], itemsize: int) -> str:
    places = {
        name: file for file, group in zip(files, groups, strict=True) for unit in group for name, _ in unit.tensors
    }
    count = sum(_numel(unit) for group in groups for unit in group)
    metadata: dict[str, Any] = {"total_parameters": count, "total_size": count * itemsize}
    return json.dumps({"metadata": metadata, "weight_map": dict(sorted(places.items()))}, indent=2) + "\n"
