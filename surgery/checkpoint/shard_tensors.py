"""The tensors of a checkpoint's shards by their names, wherever the shards lie."""

from collections.abc import Callable, Mapping
from typing import TypeVar

from vlsurgery.surgery.checkpoint.headers import Entry, Header
from vlsurgery.surgery.checkpoint.lazy_tensor import LazyTensor
from vlsurgery.surgery.checkpoint.shards import Files
from vlsurgery.surgery.errors import CheckpointError

Source = TypeVar("Source")


def tensors_of(
    place: str,
    shards: Mapping[str, Header],
    files: Files,
    kind: Callable[[Entry, Source], LazyTensor],
    sources: Mapping[str, Source],
) -> dict[str, LazyTensor]:
    """Name -> tensor of all shards. kind: makes a tensor of its entry and the source of its shard.

    Raises CheckpointError where they contradict the index or each other.
    """
    tensors: dict[str, LazyTensor] = {}
    places: dict[str, str] = {}
    for file, header in shards.items():
        source = sources[file]
        for entry in header.entries:
            if entry.name in places:
                raise CheckpointError(
                    f"{place}: tensor {entry.name!r} is in both {places[entry.name]} and {file}. "
                    "Remove the shard that does not belong to this checkpoint."
                )
            places[entry.name] = file
            tensors[entry.name] = kind(entry, source)
    for name, file in files.weight_map.items() if files.weight_map != places else ():
        if places.get(name) != file:
            raise CheckpointError(
                f"{place}: model.safetensors.index.json places tensor {name!r} in {file}, which does not hold it. "
                "Download index and shards again."
            )
    if not tensors:
        raise CheckpointError(f"{place}: its weight files hold no tensors. Download it again.")
    return tensors
