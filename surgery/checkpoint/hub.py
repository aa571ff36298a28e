"""Checkpoints by their name on the Hub: downloaded into the shared cache, or listed by their headers.

huggingface_hub makes the requests, so its settings apply: HF_HOME, HF_TOKEN, HF_ENDPOINT, HF_HUB_OFFLINE. It is
imported only to resolve a name.
"""

import glob
import os
import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from vlsurgery.surgery.checkpoint.companions import TOKENIZER
from vlsurgery.surgery.checkpoint.headers import Header, header_by_ranges, read_header
from vlsurgery.surgery.checkpoint.hub_guard import guarded
from vlsurgery.surgery.checkpoint.hub_replies import ReplyError
from vlsurgery.surgery.checkpoint.lora.trained_parts import ADAPTER_CONFIG, is_whole_model, parts_among
from vlsurgery.surgery.checkpoint.shards import (
    INDEX,
    PICKLED_ENDINGS,
    SINGLE,
    Files,
    check_name,
    index_beside,
    read_weight_map,
)
from vlsurgery.surgery.errors import CheckpointError
from vlsurgery.surgery.runtime.visible import visible

# Files of a checkpoint beside its weights: configs, tokenizer, processor, chat template, licence. No code.
_LICENCES: Final = ("licen[cs]e", "notice", "copying", "copyright", "use_policy")
EXTRA_FILES: Final = (
    *("*.json", "*.jinja", "*.txt", "*.model"),
    *(name for name in TOKENIZER if not name.endswith((".json", ".txt", ".model"))),
    *(f"{spelt(word)}*" for word in _LICENCES for spelt in (str.lower, str.capitalize, str.upper)),
)
ADAPTER: Final = "adapter_model.safetensors"

# Requests at a time.
MAX_REQUESTS: Final = 8

_NAME: Final = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
# What git takes as a branch, a tag or a commit. It becomes the name of a file in the cache, so no part may be "..".
_REVISION: Final = re.compile(r"(?!.*(?:\.\.|//|/\.|@\{))[\w#%+=,@!$&()-][\w#%+=,@!$&()./-]{0,199}(?<![/.])")


@dataclass(frozen=True)
class HubName:
    """A model on the Hub. revision: a branch, tag or commit; None for the main branch."""

    model: str
    revision: str | None = None

    @classmethod
    def of(cls, ref: str) -> "HubName | None":
        """The name that `org/name` or `org/name@revision` is; None for other strings."""
        model, at, revision = ref.partition("@")
        if not _NAME.fullmatch(model) or (at and not _REVISION.fullmatch(revision)):
            return None
        return cls(model, revision or None)

    def __str__(self) -> str:
        return self.model if self.revision is None else f"{self.model}@{self.revision}"


def download(name: HubName, allow_pickle: bool = False) -> Path:
    """The directory of a model's snapshot in the shared cache, with config, tokenizer and safetensors files in it.

    Files in the cache are not fetched again, and an interrupted download resumes. allow_pickle: fetch pickled weights
    where there are no others. Of an adapter, weights that were trained beside it are fetched too.

    Raises CheckpointError that says what is wrong and what to do: no such model or revision, no access, no network.
    """
    from huggingface_hub import HfApi, snapshot_download

    def fetch(revision: str | None, patterns: Iterable[str]) -> Path:
        return _checked(Path(snapshot_download(name.model, revision=revision, allow_patterns=list(patterns))))

    with _faults(name):
        path = fetch(name.revision, [*EXTRA_FILES, SINGLE])
        if (path / INDEX).is_file() and not (path / SINGLE).is_file():
            weight_map = read_weight_map(path / INDEX)
            return fetch(path.name, {glob.escape(check_name(path, file)) for file in weight_map.values()})
        fetch(path.name, [ADAPTER])
        if (path / ADAPTER_CONFIG).is_file() and not is_offline():
            parts = parts_among(HfApi().list_repo_files(name.model, revision=path.name))
            fetch(path.name, [glob.escape(check_name(path, part)) for part in parts if not is_whole_model(part)])
        if not any((path / file).is_file() for file in (SINGLE, ADAPTER)):
            _fetch_pickled(name, path, allow_pickle, fetch)
    return path


def download_code(path: Path) -> None:
    """Fetch the Python of a model into its snapshot at `path`; nothing where that is no snapshot of the shared cache.

    It is fetched only for who allows it to run. Raises CheckpointError as `download` does.
    """
    from huggingface_hub import constants, snapshot_download

    cache, model = Path(constants.HF_HUB_CACHE).expanduser(), path.parent.parent
    if path.parent.name != "snapshots" or model.parent.resolve() != cache.resolve() or is_offline():
        return
    name = HubName(model.name.removeprefix("models--").replace("--", "/", 1), path.name)
    with _faults(name):
        _checked(Path(snapshot_download(name.model, revision=name.revision, allow_patterns=["*.py"])))


def download_card(name: HubName) -> Path:
    """The model card (README.md) of a model, in the shared cache. Raises CheckpointError as `download` does, and where
    the model has none."""
    from huggingface_hub import hf_hub_download

    with _faults(name):
        path = Path(hf_hub_download(name.model, "README.md", revision=name.revision))
        return _checked(path.parent) / path.name


def published_weights(name: HubName) -> tuple[str, dict[str, str]]:
    """The commit that a name stands for now, and of every file that the Hub keeps as a large one its SHA-256.

    Raises CheckpointError as `download` does.
    """
    from huggingface_hub import HfApi

    with _faults(name):
        found = HfApi().model_info(name.model, revision=name.revision, files_metadata=True)
        return str(found.sha), {file.rfilename: file.lfs.sha256 for file in found.siblings or () if file.lfs}


def listing(name: HubName) -> tuple[Path, Files, dict[str, Header]]:
    """A model's headers, by range requests: the snapshot's directory (with config and index, without weights), its
    files, and file -> header.

    Headers of shards that are in the cache are read there. Raises CheckpointError as `download` does.
    """
    from huggingface_hub import HfApi, hf_hub_download

    with _faults(name):
        held = HfApi().model_info(name.model, revision=name.revision)
        present = {file.rfilename for file in held.siblings or ()}
        if "config.json" not in present or not present & {INDEX, SINGLE}:
            raise CheckpointError(
                f"{name}: not a checkpoint: it needs config.json, and {SINGLE} or {INDEX}; it has "
                f"{', '.join(sorted(present)[:5]) or 'no files'}. Choose another model, or another revision."
            )
        path = _checked(Path(hf_hub_download(name.model, "config.json", revision=held.sha)).parent)
        weight_map: dict[str, str] = {}
        notes: tuple[str, ...] = ()
        if INDEX in present:
            hf_hub_download(name.model, INDEX, revision=held.sha)
            index = _checked(path) / INDEX
            weight_map, notes = index_beside(index, SINGLE) if SINGLE in present else (read_weight_map(index), ())
        shards = sorted({check_name(path, file) for file in weight_map.values()} or {SINGLE})

        def header(file: str) -> Header:
            if (path / file).is_file():
                return read_header(path / file)
            return _remote_header(name, file, str(held.sha))

        with ThreadPoolExecutor(MAX_REQUESTS) as pool:
            headers = dict(zip(shards, pool.map(header, shards), strict=True))
    return path, Files(tuple(shards), weight_map, notes=notes), headers


def _checked(path: Path) -> Path:
    """`path`, a snapshot. Raises CheckpointError where it, or a file in it, is not in the cache of its model.

    A snapshot holds links into the model's blobs. What a blob is, is its owner's business: it may be on another disk.
    """
    from huggingface_hub import constants

    cache, model = Path(constants.HF_HUB_CACHE).expanduser(), path.parent.parent
    strays = [] if path.parent.name == "snapshots" and model.parent.resolve() == cache.resolve() else [path]
    for folder, folders, files in os.walk(path):
        for file in (Path(folder) / name for name in (*folders, *files)):
            target = Path(os.path.normpath(file.parent.resolve() / os.readlink(file))) if file.is_symlink() else file
            if file.is_symlink() and target.parent.resolve() != (model / "blobs").resolve():
                strays.append(file)
    if strays:
        raise CheckpointError(
            f"{strays[0]}: leads out of the cache of models, {cache}. Delete {model} after a look at it, and download "
            "the model again."
        )
    return path


def _remote_header(name: HubName, file: str, commit: str) -> Header:
    """The header of a file on the Hub, checked as one on disk is, with modification time 0."""
    return header_by_ranges(Path(f"{name.model}@{commit[:12]}") / file, partial(_range, name, file, commit))


def _range(name: HubName, file: str, commit: str, start: int, stop: int) -> tuple[bytes, int]:
    """The bytes `start` to `stop` of a file, or fewer at its end, and its size."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.utils import build_hf_headers, hf_raise_for_status, http_stream_backoff

    url = hf_hub_url(name.model, file, revision=commit)
    headers = build_hf_headers() | {"Range": f"bytes={start}-{stop - 1}", "Accept-Encoding": "identity"}
    with http_stream_backoff("GET", url, headers=headers, follow_redirects=True) as response:
        hf_raise_for_status(response)
        size = response.headers.get("Content-Range", "").rpartition("/")[2]
        if response.status_code != 206 or not size.isdecimal():
            # This response is the whole file.
            raise CheckpointError(
                f"{name}: the server of {file} doesn't answer range requests. Download the model and give its folder."
            )
        received = bytearray()
        for piece in response.iter_bytes():
            received += piece
            if len(received) > stop - start:
                raise CheckpointError(f"{name}: the server sent more of {file} than was asked for. Try again.")
    return bytes(received), int(size)


def _fetch_pickled(
    name: HubName, path: Path, allow_pickle: bool, fetch: Callable[[str | None, Iterable[str]], Path]
) -> None:
    """Fetch the pickled weights of a snapshot without safetensors; where not allowed, raise an error."""
    from huggingface_hub import HfApi

    if allow_pickle:
        fetch(path.name, [f"pytorch_model*{ending}" for ending in PICKLED_ENDINGS])
    elif not is_offline():
        files = HfApi().list_repo_files(name.model, revision=path.name)
        pickled = sorted(file for file in files if file.endswith(PICKLED_ENDINGS))
        if pickled:
            raise CheckpointError(
                f"{name}: holds only pickled weights ({pickled[0]}), which can run code when they are loaded. Choose a "
                "revision with safetensors, or give --allow-pickle to load them as weights only."
            )


@contextmanager
def _faults(name: HubName) -> Iterator[None]:
    """Turn errors of requests to the Hub into CheckpointErrors that say what to do."""
    from huggingface_hub.errors import (
        EntryNotFoundError,
        FileMetadataError,
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    # OSError, and the errors of whichever HTTP library is in use, as huggingface_hub's own derive from them.
    transport = tuple(base for base in HfHubHTTPError.__bases__ if issubclass(base, Exception))
    try:
        with guarded():
            yield
    except ReplyError as error:
        raise CheckpointError(f"{name}: {error}") from error
    except CheckpointError:
        raise
    except GatedRepoError as error:
        raise CheckpointError(
            f"{name}: access is restricted. Ask for it on the model's page, then log in (`hf auth login`) or set "
            "HF_TOKEN."
        ) from error
    except RepositoryNotFoundError as error:
        raise CheckpointError(
            f"{name}: no such directory, and no such model on the Hub. Check the spelling; for a private model, log in "
            "(`hf auth login`) or set HF_TOKEN."
        ) from error
    except RevisionNotFoundError as error:
        raise CheckpointError(f"{name}: the model has no such revision. Give a branch, a tag or a commit.") from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        if _status(error) is not None:
            raise CheckpointError(f"{name}: {_status(error)}") from error
        if isinstance(error.__cause__, FileMetadataError):
            raise CheckpointError(
                f"{name}: the server's reply can't be used ({_line(error.__cause__)}). Check HF_ENDPOINT and proxies, "
                "or download the model elsewhere and give its folder."
            ) from error
        raise CheckpointError(
            f"{name}: no such directory, not in the cache, and the Hub can't be reached"
            f"{' (HF_HUB_OFFLINE is set)' if is_offline() else ''}. Download it where there is a network, or give a "
            "directory."
        ) from error
    except (HFValidationError, EntryNotFoundError) as error:
        raise CheckpointError(f"{name}: {_line(error)} Check the model's name.") from error
    except transport as error:
        if _status(error) is not None:
            raise CheckpointError(f"{name}: {_status(error)}") from error
        raise CheckpointError(
            f"{name}: can't be fetched ({_line(error)}). Try again: a download goes on where it stopped."
        ) from error
    except (LookupError, TypeError, ValueError, AttributeError, AssertionError, RecursionError) as error:
        # huggingface_hub takes a reply for what it should be, and breaks where it is not.
        raise CheckpointError(
            f"{name}: the server's reply can't be used ({type(error).__name__}: {_line(error)}). Check HF_ENDPOINT, or "
            "download the model elsewhere and give its folder."
        ) from error


def _status(error: BaseException) -> str | None:
    """What a server that answered with an error said by its status, and what to do; None where there was no answer."""
    cause: BaseException | None = error
    while cause is not None and getattr(cause, "response", None) is None:
        cause = cause.__cause__
    status = getattr(getattr(cause, "response", None), "status_code", 0)
    if status == 429:
        return (
            "the Hub answers 429, too many requests. Wait some minutes and try again, or log in (`hf auth login`), "
            "which allows more; a download goes on where it stopped."
        )
    if status in (401, 403):
        return (
            f"the Hub answers {status}: no access. Log in (`hf auth login`) or set HF_TOKEN, and ask for access on the "
            "model's page where it is restricted."
        )
    if 400 <= status < 500:
        return f"the Hub answers {status} and sends nothing. Check the model's name and HF_ENDPOINT."
    if status >= 500:
        return (
            f"the Hub answers {status}: the server fails, not your network. Try again later; a download goes on where "
            "it stopped."
        )
    return None


def is_offline() -> bool:
    """Whether HF_HUB_OFFLINE is set."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def _line(error: BaseException) -> str:
    return " ".join(visible(str(error)).split())[:200] or type(error).__name__
