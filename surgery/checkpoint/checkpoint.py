"""A checkpoint on disk as a read-only mapping of lazy tensors: opening one reads headers, never weights.

Imports torch only to read weights, so that listing a checkpoint's tensors is instant.
"""

import os
import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Self

from vlsurgery.surgery.architecture.identify import identify
from vlsurgery.surgery.architecture.site import Site
from vlsurgery.surgery.checkpoint.companions import companions, left_behind, with_adapter
from vlsurgery.surgery.checkpoint.headers import Header, read_header
from vlsurgery.surgery.checkpoint.hub import HubName, download, is_offline, listing
from vlsurgery.surgery.checkpoint.identity import WeightFile, header_identity, identity_of, stamp_of
from vlsurgery.surgery.checkpoint.lazy_tensor import (
    FLOATS,
    NUMPY_NAMES,
    TORCH_NAMES,
    ComputedTensor,
    LazyTensor,
    ListedTensor,
)
from vlsurgery.surgery.checkpoint.lora.adapter import Adapter
from vlsurgery.surgery.checkpoint.lora.folding import fold
from vlsurgery.surgery.checkpoint.lora.trained_parts import ADAPTER_CONFIG
from vlsurgery.surgery.checkpoint.pickled import read_pickled
from vlsurgery.surgery.checkpoint.quantised import quantisation
from vlsurgery.surgery.checkpoint.shards import INDEX, PICKLED_INDEX, Files, find_shards, read_json
from vlsurgery.surgery.errors import AlignmentError, CheckpointError
from vlsurgery.surgery.results import CheckpointRef
from vlsurgery.surgery.runtime.gc_pause import gc_paused

__all__ = ["FLOATS", "NUMPY_NAMES", "TORCH_NAMES", "Checkpoint", "LazyTensor"]

WEIGHT_ENDINGS: Final = (
    ".safetensors", ".safetensors.index.json", ".bin", ".bin.index.json", ".pt", ".pth", ".ckpt", ".gguf", ".h5",
    ".msgpack", ".onnx",
)  # fmt: skip

_COMMIT: Final = re.compile(r"[0-9a-f]{40}")


class Checkpoint(Mapping[str, LazyTensor]):
    """A model on disk: tensor name -> LazyTensor, in file order, with its config.

    ref: the checkpoint as the user named it. path: its directory; of a base with an adapter, the base's. config:
        config.json. shards: file name -> header; of a base with an adapter, those of the base.
    adapter: the LoRA adapter that is folded into the tensors as they are read, or None.
    headers_only: whether only its headers were fetched; its directory then holds no weights.
    contents: the SHA-256 of every file of weights, by its name, where they were taken; None otherwise.
    notes: remarks on its files, such as an index that is stale.
    text_stack: the name of the container of the language model's layers that the user chose; None where none was.
    """

    def __init__(
        self, ref: str, path: Path, config: dict[str, Any], shards: dict[str, Header], tensors: dict[str, LazyTensor]
    ) -> None:
        self.ref = ref
        self.path = path
        self.config = config
        self.shards = shards
        self.adapter: Adapter | None = None
        self.headers_only = False
        self._pickled = False
        self.contents: dict[str, str] | None = None
        self.notes: tuple[str, ...] = ()
        self.text_stack: str | None = None
        self._files = {name: path / name for name in shards}
        self._tensors = tensors

    @classmethod
    def open(
        cls,
        ref: str | Path,
        headers_only: bool = False,
        allow_pickle: bool = False,
        text_stack: str | None = None,
    ) -> Self:
        """Read config and headers of what `ref` names.

        ref: a directory; a model on the Hub, `org/name` or `org/name@revision`, which is downloaded into the shared
            cache; or a base and a LoRA adapter, `BASE+ADAPTER`, each of them either. A directory of that name wins.
        headers_only: of a model on the Hub fetch headers alone, by range requests; its tensors can be listed, not read.
        allow_pickle: take pickled weights where there are no others; they are loaded as weights only, never as code.
        text_stack: the container of the language model's layers ("model.layers"), where two look like it.

        Raises CheckpointError that names the file and the next step: not a checkpoint, no safetensors, pickled
        weights, an index that names what is not there, a truncated or corrupt shard, an adapter that fits nothing, a
        model that can't be fetched.
        """
        base, adapter = base_and_adapter(str(ref))
        with gc_paused():
            checkpoint = cls._open_whole(base, headers_only, allow_pickle)
            if adapter is not None:
                checkpoint._fold(str(ref), adapter, allow_pickle)
        checkpoint.text_stack = text_stack
        return checkpoint

    @classmethod
    def _open_whole(cls, ref: str, headers_only: bool, allow_pickle: bool) -> Self:
        path, name = Path(ref).expanduser(), HubName.of(ref)
        if name is not None and not path.exists():
            if headers_only and not is_offline():
                return cls._listed(name)
            path = download(name, allow_pickle)
        files = find_shards(path, allow_pickle)
        config = read_json(path / "config.json")
        if (path / ADAPTER_CONFIG).exists():
            raise CheckpointError(
                f"{path}: holds a whole model and an {ADAPTER_CONFIG}, with which transformers would run another one: "
                "the adapter, on the base that it names. Move the adapter's files to a directory of their own."
            )
        if files.pickled:
            shards, tensors = read_pickled(path, files)
        else:
            shards = {file: read_header(path / file) for file in files.shards}
            tensors = _tensors(path, shards, files)
        checkpoint = cls(ref, path, config, shards, tensors)
        checkpoint._pickled, checkpoint.notes = files.pickled, files.notes
        # Pickled shards go by the names of their safetensors copies.
        checkpoint._files = {name: path / file for name, file in zip(shards, files.shards, strict=True)}
        return checkpoint

    @classmethod
    def _listed(cls, name: HubName) -> Self:
        path, files, shards = listing(name)
        tensors = _tensors(Path(str(name)), shards, files, ListedTensor)
        checkpoint = cls(str(name), path, read_json(path / "config.json"), shards, tensors)
        checkpoint.headers_only, checkpoint.notes = True, files.notes
        return checkpoint

    def _fold(self, ref: str, adapter: str, allow_pickle: bool) -> None:
        path, name = Path(adapter).expanduser(), HubName.of(adapter)
        self.ref = ref
        fetched = download(name) if name is not None and not path.exists() else path
        self.adapter = Adapter.open(fetched, allow_pickle)
        self.notes = (*self.notes, *self.adapter.notes)
        if self.quantised:
            raise CheckpointError(
                f"{self.path}: quantised ({self.quantised}): no adapter can be folded into it. Give the checkpoint "
                "that it was quantised from as the base."
            )
        self._tensors = fold(self._tensors, self.config, self.adapter)

    def __getitem__(self, name: str) -> LazyTensor:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def __repr__(self) -> str:
        return f"Checkpoint({self.ref!r}, {len(self)} tensors)"

    @property
    def pickled(self) -> bool:
        """Whether its weights, or weights beside its adapter, are pickled, and were allowed to be."""
        return self._pickled or (self.adapter is not None and self.adapter.pickled)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape, as `identify` takes them."""
        return {name: tensor.entry.shape for name, tensor in self._tensors.items()}

    @property
    def sites(self) -> dict[str, Site]:
        """Name -> site. Raises AlignmentError that names the checkpoint where there is no text stack, or two."""
        try:
            return identify(self.shapes, self.config, self.text_stack)
        except AlignmentError as error:
            raise AlignmentError(f"{self.ref}: {error}.") from error

    @property
    def safetensors_dtypes(self) -> dict[str, str]:
        """Name -> dtype, by its name in safetensors."""
        return {name: tensor.entry.safetensors_dtype for name, tensor in self._tensors.items()}

    @cached_property
    def identity(self) -> str:
        """ "sha256:..." over names, sizes, headers and a sample of the bytes of its files, adapter and its settings
        included: equal for copies, whatever their place and their modification times; another one when weights were
        trained further. Of headers alone, "headers:sha256:..." over these and the Hub commit. Files are read when it is
        first asked for.
        """
        more = [self.adapter.identity] if self.adapter is not None else []
        if self.headers_only:
            return header_identity(self.shards.items(), [self.commit, *more])
        plain = not self._pickled
        files = [WeightFile(name, self._files[name], header, plain) for name, header in self.shards.items()]
        return identity_of(files, more)

    @cached_property
    def stamp(self) -> str:
        """ "sha256:..." that changes whenever a file of weights is written again, be it with the same bytes; it is
        another one for every copy."""
        return stamp_of(self.shards.items(), [self.commit, None if self.adapter is None else self.adapter.stamp])

    def is_known_as(self, identity: str) -> bool:
        """Whether that is its identity, or what an earlier version took for it."""
        return identity in (self.identity, self.stamp)

    @property
    def weight_files(self) -> dict[str, Path]:
        """Name -> path of every file that its tensors are read from, and of an adapter's settings.

        Raises CheckpointError where only headers were fetched.
        """
        if self.headers_only:
            raise CheckpointError(
                f"{self.ref}: was opened for its headers alone. Open it without headers_only to download the weights."
            )
        files = {str(file.relative_to(self.path)): file for file in self._files.values()}
        return files if self.adapter is None else files | {file.name: file for file in self.adapter.files}

    @cached_property
    def commit(self) -> str | None:
        """The Hub commit that it is a snapshot of, where known."""
        return commit_of(self.path)

    @property
    def is_computed(self) -> bool:
        """Whether some tensor is computed rather than read, as with an adapter."""
        return any(isinstance(tensor, ComputedTensor) for tensor in self._tensors.values())

    @property
    def folders(self) -> list[Path]:
        """The directories that it reads: its own, and the adapter's."""
        return [self.path] if self.adapter is None else [self.path, self.adapter.path]

    @property
    def location(self) -> str:
        """A reference that opens the same files from any directory: absolute paths, or a Hub name with its commit."""
        if self.headers_only:
            return "+".join([f"{self.ref.split('@')[0]}@{self.commit}", *map(str, self.folders[1:])])
        return "+".join(os.path.abspath(folder) for folder in self.folders)

    @property
    def ref_model(self) -> CheckpointRef:
        """The reference to this checkpoint that results and recipes keep, with an absolute path."""
        return CheckpointRef(
            path=self.location,
            identity=self.identity,
            pickled=self.pickled,
            contents=self.contents,
            text_stack=self.text_stack,
        )

    @classmethod
    def reopen(cls, ref: CheckpointRef) -> Self:
        """Open the checkpoint of a result or recipe; pickled weights are allowed where they were then.

        Where it has the identity that it had then, it is taken to have the contents that it had then: `check_contents`
        reads them again.
        """
        checkpoint = cls.open(ref.path, allow_pickle=ref.pickled, text_stack=ref.text_stack)
        if checkpoint.is_known_as(ref.identity):
            checkpoint.contents = ref.contents
        return checkpoint

    @cached_property
    def quantised(self) -> str | None:
        """The quantisation scheme of its weights, or None. Quantised weights can be listed, not combined."""
        return quantisation(self.safetensors_dtypes, self.config)

    @cached_property
    def companions(self) -> dict[str, Path]:
        """Name -> path of the files beside the weights that a merge copies and a model is run with: config, tokenizer,
        processor, chat template, licence. An adapter's own tokenizer, template and processor replace the base's.

        Raises CheckpointError for a broken link, and for one out of the checkpoint.
        """
        found = companions(self.path)
        return found if self.adapter is None else with_adapter(found, self.adapter.path)

    @cached_property
    def left_behind(self) -> list[str]:
        """What its directory holds beside weights and companions, by name; a merge doesn't copy it."""
        weights = [str(file.relative_to(self.path)) for file in self._files.values()]
        return left_behind(self.path, companions(self.path), [*weights, INDEX, PICKLED_INDEX])


def commit_of(path: Path) -> str | None:
    """The Hub commit that a directory is a snapshot of: a Hub cache keeps `models--x/snapshots/<commit>/`."""
    real = path.resolve()
    return real.name if real.parent.name == "snapshots" and _COMMIT.fullmatch(real.name) else None


def _tensors(
    path: Path, shards: Mapping[str, Header], files: Files, kind: type[LazyTensor] = LazyTensor
) -> dict[str, LazyTensor]:
    """Name -> tensor of all shards. Raises CheckpointError where they contradict the index or each other."""
    tensors: dict[str, LazyTensor] = {}
    places: dict[str, str] = {}
    for file, header in shards.items():
        shard = path / file
        for entry in header.entries:
            if entry.name in places:
                raise CheckpointError(
                    f"{path}: tensor {entry.name!r} is in both {places[entry.name]} and {file}. "
                    "Remove the shard that does not belong to this checkpoint."
                )
            places[entry.name] = file
            tensors[entry.name] = kind(entry, shard)
    for name, file in files.weight_map.items() if files.weight_map != places else ():
        if places.get(name) != file:
            raise CheckpointError(
                f"{path}: model.safetensors.index.json places tensor {name!r} in {file}, which does not hold it. "
                "Download index and shards again."
            )
    if not tensors:
        raise CheckpointError(f"{path}: its weight files hold no tensors. Download it again.")
    return tensors


def holds_weights(folder: Path) -> bool:
    """Whether a directory is there and has a file of weights in it, of whatever kind and state."""
    endings = tuple(ending for ending in WEIGHT_ENDINGS if not ending.endswith(".index.json"))
    return folder.is_dir() and any(file.name.endswith(endings) for file in folder.iterdir())


def base_and_adapter(ref: str) -> tuple[str, str | None]:
    """A reference as base and adapter; an existing directory with a plus in its name is a base alone."""
    base, plus, adapter = ref.rpartition("+")
    if not plus or Path(ref).expanduser().exists():
        return ref, None
    if not base or not adapter:
        raise CheckpointError(f"{ref}: no such directory. A base with a LoRA adapter is written BASE+ADAPTER.")
    return base, adapter
