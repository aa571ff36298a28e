"""A checkpoint as a read-only mapping of lazy tensors: opening one reads headers, never weights.

Imports torch only to read weights, so that listing a checkpoint's tensors is instant.
"""

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any, Self

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
from vlsurgery.surgery.checkpoint.lora.trained_parts import ADAPTER_CONFIG, two_models
from vlsurgery.surgery.checkpoint.pickled import read_pickled
from vlsurgery.surgery.checkpoint.quantised import quantisation
from vlsurgery.surgery.checkpoint.references import base_and_adapter, commit_of
from vlsurgery.surgery.checkpoint.remote.folder import MAX_REQUESTS, RemoteFolder
from vlsurgery.surgery.checkpoint.remote.remote_file import RemoteFile, RemoteTensor, listed
from vlsurgery.surgery.checkpoint.shard_tensors import tensors_of
from vlsurgery.surgery.checkpoint.shards import INDEX, PICKLED_INDEX, find_shards, read_json
from vlsurgery.surgery.errors import AlignmentError, CheckpointError
from vlsurgery.surgery.results import CheckpointRef
from vlsurgery.surgery.runtime.gc_pause import gc_paused
from vlsurgery.surgery.runtime.urls import is_url

__all__ = ["FLOATS", "NUMPY_NAMES", "TORCH_NAMES", "Checkpoint", "LazyTensor"]


class Checkpoint(Mapping[str, LazyTensor]):
    """A model on disk or at a URL: tensor name -> LazyTensor, in file order, with its config.

    ref: the checkpoint as the user named it. remote: its folder at a URL; None of one on disk. config: config.json.
    shards: file name -> header; of a base with an adapter, those of the base.
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
        self._path = path
        self.remote: RemoteFolder | None = None
        self.config = config
        self.shards = shards
        self.adapter: Adapter | None = None
        self.headers_only = False
        self._pickled = False
        self.contents: dict[str, str] | None = None
        self.notes: tuple[str, ...] = ()
        self.text_stack: str | None = None
        self._files: dict[str, Path | RemoteFile] = {name: path / name for name in shards}
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
            cache; the URL of a folder, `s3://bucket/model`, of which weights are read by ranges where they lie; or a
            base and a LoRA adapter, `BASE+ADAPTER`, the adapter in a directory or on the Hub. A directory of that name
            wins.
        headers_only: of a model on the Hub or at a URL fetch headers alone; its tensors can be listed, not read.
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
        if is_url(ref):
            return cls._at_url(ref, headers_only)
        path, name = Path(ref).expanduser(), HubName.of(ref)
        if name is not None and not path.exists():
            if headers_only and not is_offline():
                return cls._listed(name)
            path = download(name, allow_pickle)
        files = find_shards(path, allow_pickle)
        config = read_json(path / "config.json")
        if (path / ADAPTER_CONFIG).exists():
            raise two_models(str(path))
        if files.pickled:
            shards, tensors = read_pickled(path, files)
        else:
            shards = {file: read_header(path / file) for file in files.shards}
            tensors = tensors_of(str(path), shards, files, LazyTensor, {file: path / file for file in shards})
        checkpoint = cls(ref, path, config, shards, tensors)
        checkpoint._pickled, checkpoint.notes = files.pickled, files.notes
        # Pickled shards go by the names of their safetensors copies.
        checkpoint._files = {name: path / file for name, file in zip(shards, files.shards, strict=True)}
        return checkpoint

    @classmethod
    def _listed(cls, name: HubName) -> Self:
        path, files, shards = listing(name)
        tensors = tensors_of(str(name), shards, files, ListedTensor, {file: Path(str(name)) / file for file in shards})
        checkpoint = cls(str(name), path, read_json(path / "config.json"), shards, tensors)
        checkpoint.headers_only, checkpoint.notes = True, files.notes
        return checkpoint

    @classmethod
    def _at_url(cls, ref: str, headers_only: bool) -> Self:
        folder = RemoteFolder(ref)
        files = folder.weights()
        if folder.find(ADAPTER_CONFIG) is not None:
            raise two_models(folder.url)
        sources = {file: folder.shard(file) for file in files.shards}
        with ThreadPoolExecutor(MAX_REQUESTS) as pool:
            headers = dict(zip(sources, pool.map(RemoteFile.header, sources.values()), strict=True))
        kind = listed if headers_only else RemoteTensor.of
        tensors = tensors_of(folder.url, headers, files, kind, sources)
        checkpoint = cls(folder.url, folder.copies, folder.config(), headers, tensors)
        checkpoint.remote, checkpoint.headers_only, checkpoint.notes = folder, headers_only, files.notes
        checkpoint._files = dict(sources)
        return checkpoint

    def _fold(self, ref: str, adapter: str, allow_pickle: bool) -> None:
        if is_url(adapter):
            raise CheckpointError(f"{adapter}: adapters are read from directories. Copy it to one, and give that.")
        path, name = Path(adapter).expanduser(), HubName.of(adapter)
        self.ref = ref
        fetched = download(name) if name is not None and not path.exists() else path
        self.adapter = Adapter.open(fetched, allow_pickle)
        self.notes = (*self.notes, *self.adapter.notes)
        if self.quantised:
            raise CheckpointError(
                f"{self.place}: quantised ({self.quantised}): no adapter can be folded into it. Give the checkpoint "
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
    def path(self) -> Path:
        """Its directory; of a base with an adapter, the base's. Of one at a URL, that of local copies of config,
        tokenizer and whatever else lies beside the weights, which are fetched when this is first asked for."""
        if self.remote is not None:
            self.remote.fetch_companions()
        return self._path

    @property
    def place(self) -> str:
        """The directory or URL, as errors name it."""
        return str(self._path) if self.remote is None else self.remote.url

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
    def weight_files(self) -> dict[str, Path | RemoteFile]:
        """Name -> every file that its tensors are read from, and an adapter's settings.

        Raises CheckpointError where only headers were fetched.
        """
        if self.headers_only:
            raise CheckpointError(
                f"{self.ref}: was opened for its headers alone. Open it without headers_only to download the weights."
            )
        files: dict[str, Path | RemoteFile] = dict(zip(self._file_names, self._files.values(), strict=True))
        return files if self.adapter is None else files | {file.name: file for file in self.adapter.files}

    @cached_property
    def commit(self) -> str | None:
        """The Hub commit that it is a snapshot of, where known."""
        return None if self.remote is not None else commit_of(self._path)

    @property
    def is_computed(self) -> bool:
        """Whether some tensor is computed rather than read, as with an adapter."""
        return any(isinstance(tensor, ComputedTensor) for tensor in self._tensors.values())

    @property
    def folders(self) -> list[Path]:
        """The directories that it reads: its own (of one at a URL, that of local copies), and the adapter's."""
        return [self.path] if self.adapter is None else [self.path, self.adapter.path]

    @property
    def location(self) -> str:
        """A reference that opens the same files from any directory: absolute paths, a URL, or a Hub name with its
        commit."""
        adapters = [] if self.adapter is None else [self.adapter.path]
        if self.remote is not None:
            return "+".join([self.remote.url, *map(os.path.abspath, adapters)])
        if self.headers_only:
            return "+".join([f"{self.ref.split('@')[0]}@{self.commit}", *map(str, adapters)])
        return "+".join(os.path.abspath(folder) for folder in (self._path, *adapters))

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
        found = self._own_companions
        return found if self.adapter is None else with_adapter(found, self.adapter.path)

    @cached_property
    def left_behind(self) -> list[str]:
        """What lies beside its weights and companions, by name; a merge doesn't copy it. Empty where nobody knows, as
        on a web server."""
        if self.remote is not None:
            held = self.remote.names or []
        else:
            held = [entry.name + "/" * entry.is_dir() for entry in self._path.iterdir()]
        return left_behind(held, self._own_companions, [*self._file_names, INDEX, PICKLED_INDEX])

    @cached_property
    def _own_companions(self) -> dict[str, Path]:
        """The companions without an adapter's."""
        return companions(self.path, None if self.remote is None else self.remote.fetch)

    @property
    def _file_names(self) -> list[str]:
        """The names of its weight files, from its folder."""
        return [
            str(file.relative_to(self._path)) if isinstance(file, Path) else file.name for file in self._files.values()
        ]
