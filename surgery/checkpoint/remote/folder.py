"""A checkpoint's folder in a store: its weights, and a local copy of the small files beside them."""

import tempfile
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from vlsurgery.surgery.checkpoint.companions import ALLOWED, is_allowed
from vlsurgery.surgery.checkpoint.lora.trained_parts import ADAPTER_CONFIG
from vlsurgery.surgery.checkpoint.remote.fsspec_store import FsspecStore
from vlsurgery.surgery.checkpoint.remote.http_store import HttpStore
from vlsurgery.surgery.checkpoint.remote.remote_file import HASHED_BYTES, RemoteFile
from vlsurgery.surgery.checkpoint.remote.store import RemoteStat, Store, UnreachableError, requested
from vlsurgery.surgery.checkpoint.shards import (
    INDEX,
    MAX_JSON_BYTES,
    PICKLED_ENDINGS,
    PICKLED_INDEX,
    PICKLED_SINGLE,
    SINGLE,
    Files,
    check_name,
    index_beside,
    read_json,
    read_weight_map,
    what_instead,
)
from vlsurgery.surgery.errors import CheckpointError
from vlsurgery.surgery.runtime.scratch_folder import ScratchFolder
from vlsurgery.surgery.runtime.urls import HTTP, checked_url, protocol_of

CONFIG: Final = "config.json"
TEMPLATES: Final = "additional_chat_templates"
# Licences as they are mostly called, for stores that list nothing.
LICENCES: Final = ("LICENSE", "LICENSE.txt", "LICENSE.md", "NOTICE", "NOTICE.txt", "USE_POLICY.md")
ASKED_FOR: Final = ("chat_template.jinja", *LICENCES, *(name for name in ALLOWED if not set("*[") & set(name)))
MAX_REQUESTS: Final = 8


class RemoteFolder:
    """The folder of a checkpoint at a URL.

    url: as it is written into results. copies: a local directory, where config and index are, and after
    `fetch_companions` the other small files that a checkpoint has beside its weights. It is removed when the folder is
    no longer used, or the program ends.
    """

    def __init__(self, ref: str) -> None:
        self.url = checked_url(ref)
        http = protocol_of(self.url) in HTTP
        self._store: Store = requested(self.url, lambda: HttpStore(self.url)) if http else FsspecStore(self.url)
        self._listings: dict[str, Mapping[str, RemoteStat | None] | None] = {}
        self._files: dict[str, RemoteFile | None] = {}
        self._shards: tuple[str, ...] = ()
        self._lock = threading.Lock()
        self._complete = False
        self._scratch = ScratchFolder()
        self.copies = self._scratch.path / _name(self.url)
        self.copies.mkdir()

    def find(self, name: str) -> RemoteFile | None:
        """A file by its path from the folder; None where there is none."""
        if name not in self._files:
            stat = self._stat(name, self._listings)
            self._files[name] = None if stat is None else RemoteFile(self._store, name, f"{self.url}/{name}", stat)
        return self._files[name]

    @property
    def names(self) -> list[str] | None:
        """All that lies in the folder itself, a folder with a slash behind; None where the store lists nothing."""
        found = self._listing("", self._listings)
        return None if found is None else sorted(name + "/" * (stat is None) for name, stat in found.items())

    def weights(self) -> Files:
        """The weight files, by the same rules as on disk; config and index are then among `copies`.

        Raises CheckpointError that says what is there instead and what to do, UnreachableError where nothing is.
        """
        single, index = self.find(SINGLE), self.find(INDEX)
        has_config = self.fetch(CONFIG)
        if single is None and index is None:
            raise self._no_weights(has_config)
        if not has_config:
            raise CheckpointError(
                f"{self.url}: no {CONFIG} beside the weights. Copy it there from the model that this one is."
            )
        with self._errors_at_url():
            if index is not None:
                self.fetch(INDEX)
            if single is not None:
                weight_map, notes = index_beside(self.copies / INDEX, SINGLE) if index is not None else ({}, ())
                found = Files((SINGLE,), weight_map, notes=notes)
            else:
                weight_map = read_weight_map(self.copies / INDEX)
                shards = tuple(check_name(self.copies, file) for file in sorted(set(weight_map.values())))
                found = Files(shards, weight_map)
        self._shards = found.shards
        return found

    def shard(self, name: str) -> RemoteFile:
        """A file of weights. Raises CheckpointError where it is missing."""
        found = self.find(name)
        if found is None:
            raise CheckpointError(f"{self.url}: shard {name} is missing. Copy the checkpoint there again.")
        return found

    def config(self) -> dict[str, Any]:
        """config.json. Raises CheckpointError that names its URL."""
        with self._errors_at_url():
            return read_json(self.copies / CONFIG)

    def fetch(self, name: str) -> bool:
        """Copy a small file into `copies`, unless it is there; whether there is such a file.

        Raises CheckpointError where it is not small, or can't be read or written.
        """
        target = self.copies / name
        if target.is_file():
            return True
        file = self.find(name)
        if file is None:
            return False
        if file.stat.size > MAX_JSON_BYTES:
            raise CheckpointError(
                f"{file.url}: {file.stat.size} bytes, and {MAX_JSON_BYTES} are the most for a file beside the weights."
            )
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self.copies.parent, delete=False) as out:
                for start in range(0, file.stat.size, HASHED_BYTES):
                    out.write(file.read(start, start + HASHED_BYTES))
            Path(out.name).replace(target)
        except OSError as error:
            raise CheckpointError(
                f"{target}: can't be written ({error.strerror or error}). Make room there, or set TMPDIR."
            ) from error
        return True

    def fetch_companions(self) -> None:
        """Copy what a checkpoint has beside its weights into `copies`: tokenizer, processor, templates, licence."""
        with self._lock:
            if not self._complete:
                with ThreadPoolExecutor(MAX_REQUESTS) as pool:
                    list(pool.map(self.fetch, self._companions()))
                self._complete = True

    def check_unchanged(self, during: str) -> None:
        """Raise CheckpointError for the first file of weights that is not the one that was found.

        during: what was being done ("merged"). Size and version are compared; a store that tells no version guards by
        size alone.
        """
        listings: dict[str, Mapping[str, RemoteStat | None] | None] = {}
        weights = [self.shard(name) for name in self._shards]
        self._listing("", listings)
        with ThreadPoolExecutor(MAX_REQUESTS) as pool:
            found = list(pool.map(lambda file: self._stat(file.name, listings), weights))
        for file, stat in zip(weights, found, strict=True):
            if stat != file.stat:
                now = "is gone" if stat is None else f"has {stat.size} bytes, version {stat.version}, now"
                raise CheckpointError(
                    f"{file.url}: had {file.stat.size} bytes, version {file.stat.version}, and {now}: it changed while "
                    f"it was being {during}. Begin again once nothing writes to it."
                )

    def _companions(self) -> list[str]:
        if self.names is None:
            return list(ASKED_FOR)
        names = [name for name in self.names if not name.endswith("/")]
        if f"{TEMPLATES}/" in self.names:
            names += [f"{TEMPLATES}/{name}" for name, stat in (self._listing(TEMPLATES, self._listings) or {}).items()
                      if stat is not None]  # fmt: skip
        return [name for name in names if is_allowed(name)]

    def _no_weights(self, has_config: bool) -> CheckpointError:
        """The error for a folder without weights that are read."""
        names = self.names
        if names is None:
            known = [SINGLE, INDEX, PICKLED_SINGLE, PICKLED_INDEX, ADAPTER_CONFIG]
            names = [name for name in known if self.find(name) is not None]
        if not names and not has_config:
            return UnreachableError(f"{self.url}: nothing is there. Check the URL, and that you may read it.")
        pickled = next((name for name in names if name.endswith(PICKLED_ENDINGS)), None)
        if pickled is not None and ADAPTER_CONFIG not in names and not any(".safetensors" in name for name in names):
            return CheckpointError(
                f"{self.url}: holds only pickled weights ({pickled}), which can run code when they are loaded, and are "
                "not read at a URL. Convert them there: load the model with transformers and save it with "
                "save_pretrained."
            )
        return CheckpointError(what_instead(self.url, names))

    def _stat(self, name: str, listings: dict[str, Mapping[str, RemoteStat | None] | None]) -> RemoteStat | None:
        folder, _, base = name.rpartition("/")
        found = self._listing(folder, listings)
        if found is not None:
            return found.get(base)
        try:
            return requested(f"{self.url}/{name}", lambda: self._store.stat(name))
        except FileNotFoundError:
            return None

    def _listing(
        self, folder: str, listings: dict[str, Mapping[str, RemoteStat | None] | None]
    ) -> Mapping[str, RemoteStat | None] | None:
        if folder not in listings:
            place = f"{self.url}/{folder}".rstrip("/")
            try:
                listings[folder] = requested(place, lambda: self._store.listing(folder))
            except FileNotFoundError as error:
                if not folder:
                    raise UnreachableError(
                        f"{self.url}: nothing is there. Check the URL, and that you may read it."
                    ) from error
                listings[folder] = {}
        return listings[folder]

    @contextmanager
    def _errors_at_url(self) -> Iterator[None]:
        """Have errors about copies name the URL that they are of."""
        try:
            yield
        except CheckpointError as error:
            raise type(error)(str(error).replace(str(self.copies), self.url)) from error


def _name(url: str) -> str:
    """The last part of a URL as the name of a directory."""
    name = url.rpartition("/")[2]
    return name if name.isascii() and name.isprintable() and name.strip(".") and len(name) < 200 else "checkpoint"
