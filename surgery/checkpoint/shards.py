"""The weight files of a checkpoint's directory."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from vlsurgery.surgery.checkpoint.pointers import refuse_pointer
from vlsurgery.surgery.errors import CheckpointError
from vlsurgery.surgery.runtime.bounded_json import MAX_BYTES, read_json_file

SINGLE: Final = "model.safetensors"
INDEX: Final = "model.safetensors.index.json"
PICKLED_SINGLE: Final = "pytorch_model.bin"
PICKLED_INDEX: Final = "pytorch_model.bin.index.json"
PICKLED_ENDINGS: Final = (".bin", ".pt", ".pth", ".ckpt")

# Formats of weights that are not read -> how users name them.
OTHER_FORMATS: Final = {
    ".gguf": "GGUF", ".npz": "MLX or numpy", ".h5": "TensorFlow", ".msgpack": "Flax", ".onnx": "ONNX",
    ".distcp": "sharded training (.distcp)", ".incomplete": "an unfinished download's",
}  # fmt: skip

# Links to links that are followed.
MAX_NAME_BYTES: Final = 255  # of one part of a path, on every common file system
MAX_LINKS: Final = 40

# Most bytes of a JSON file that is read; the index of any model is shorter.
MAX_JSON_BYTES: Final = MAX_BYTES


@dataclass(frozen=True)
class Files:
    """shards: file names, sorted. weight_map: tensor -> file; empty without an index. pickled: not safetensors.
    notes: remarks on files that are left aside."""

    shards: tuple[str, ...]
    weight_map: dict[str, str] = field(default_factory=dict)
    pickled: bool = False
    notes: tuple[str, ...] = ()


def find_shards(path: Path, allow_pickle: bool = False) -> Files:
    """The weight files of the directory `path`, which all exist inside it. Reads the index, but no weight file.

    allow_pickle: take pickled weights where there are no safetensors.

    A single file is preferred to an index, as transformers has it; the index is then stale, unless it names that file
    alone. Raises CheckpointError that says what `path` is instead, and what to do.
    """
    _check_directory(path)
    single, index = SINGLE, INDEX
    pickled = allow_pickle and not (path / SINGLE).is_file() and not (path / INDEX).is_file()
    if pickled:
        single, index = PICKLED_SINGLE, PICKLED_INDEX
    has_single, has_index = (path / single).is_file(), (path / index).is_file()
    if not has_single and not has_index:
        raise CheckpointError(_what_instead(path))
    if not (path / "config.json").is_file():
        _refuse_dead_link(path / "config.json")
        raise CheckpointError(f"{path}: no config.json beside the weights. Copy it from the model that this one is.")
    if not has_single:
        _refuse_dead_link(path / single)
    home = path.resolve()
    if has_single:
        weight_map, notes = index_beside(path / index, single) if has_index else ({}, ())
        return Files((_inside(path, home, single),), weight_map, pickled, notes)
    weight_map = read_weight_map(path / index)
    shards = tuple(_inside(path, home, file) for file in sorted(set(weight_map.values())))
    return Files(shards, weight_map, pickled)


def _check_directory(path: Path) -> None:
    """Raise CheckpointError that says what `path` is, where it is no directory."""
    try:
        path.stat()
    except FileNotFoundError as error:
        _refuse_dead_link(path)
        raise CheckpointError(
            f"{path}: no such directory. Give the directory of a checkpoint, a model's name on the Hub as "
            "org/name or org/name@revision, or a base with a LoRA adapter as BASE+ADAPTER."
        ) from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: can't be read ({error}). Check its name and your rights.") from error
    if path.suffix == ".gguf" and not path.is_dir():
        raise CheckpointError(_other_format(str(path.parent), path.name))
    if not path.is_dir():
        raise CheckpointError(f"{path}: is a file. Give the directory that holds config.json and the weights.")


def index_beside(index: Path, single: str) -> tuple[dict[str, str], tuple[str, ...]]:
    """The weight map of an index beside the whole file `single`: empty, and a note, where it names other files."""
    try:
        weight_map = read_weight_map(index)
    except CheckpointError:
        weight_map = {}
    if set(weight_map.values()) == {single}:
        return weight_map, ()
    return {}, (
        f"{index.name} is stale: it does not describe {single} beside it, which is read, as transformers does. "
        "Remove the one that does not belong there.",
    )


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a small regular file. Raises CheckpointError that names the file."""
    try:
        value = read_json_file(path, MAX_JSON_BYTES)
    except OSError as error:
        raise CheckpointError(
            f"{path}: can't be read ({error.strerror or error}). Check what it is, and your rights."
        ) from error
    except ValueError as error:
        refuse_pointer(path)
        raise CheckpointError(f"{path}: not valid JSON ({error}). Download it again.") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: a JSON object was expected. Download it again.")
    return value


def _what_instead(path: Path) -> str:
    """The error for a directory without model.safetensors and without an index."""
    names = sorted(file.name for file in path.iterdir())
    if "adapter_config.json" not in names:
        for name in (SINGLE, INDEX):
            _refuse_dead_link(path / name)
        others = [name for name in names if name.endswith(".safetensors")]
        if len(others) == 1:
            _refuse_dead_link(path / others[0])
    return what_instead(str(path), names)


def what_instead(place: str, names: Sequence[str]) -> str:
    """The error for a place that holds these files, sorted, and neither model.safetensors nor an index."""
    if "adapter_config.json" in names:
        return (
            f"{place}: a LoRA adapter, not a whole model. Give it with the model that it was trained on, as "
            "BASE+ADAPTER."
        )
    others = [name for name in names if name.endswith(".safetensors")]
    if len(others) > 1:
        return (
            f"{place}: {len(others)} safetensors files ({others[0]}, ...) but no {INDEX}. "
            "Download the index that came with them, or save the model again."
        )
    if others:
        return f"{place}: its only weight file is {others[0]}. Rename it to {SINGLE} if it is the whole model."
    pickled = [name for name in names if name.endswith(PICKLED_ENDINGS)]
    if pickled:
        return (
            f"{place}: holds only pickled weights ({pickled[0]}), which can run code when they are loaded. Give "
            "--allow-pickle to load pytorch_model.bin as weights only, or convert them: load the model with "
            "transformers and save it with save_pretrained."
        )
    foreign = [name for name in names if Path(name).suffix in OTHER_FORMATS]
    if foreign:
        return _other_format(place, foreign[0])
    return f"{place}: not a checkpoint: neither {SINGLE} nor {INDEX} is in it. Give the directory that holds them."


def _other_format(place: str, file: str) -> str:
    """The error for a directory whose weights are in a format that is not read."""
    return (
        f"{place}/{file}: {OTHER_FORMATS[Path(file).suffix]} weights. Give the model in safetensors: the one that they "
        "were converted from, or one saved with save_pretrained."
    )


def read_weight_map(index: Path) -> dict[str, str]:
    """Tensor -> file by an index; files may be missing. Raises CheckpointError that names the index."""
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(file, str) for file in weight_map.values()):
        raise CheckpointError(f"{index}: weight_map must map tensor names to file names. Download it again.")
    if not weight_map:
        raise CheckpointError(f"{index}: its weight_map is empty. Download it again.")
    return weight_map


def check_name(path: Path, file: str) -> str:
    """`file`. Raises CheckpointError where it is no path inside of the checkpoint `path`."""
    part = Path(file)
    if part.is_absolute() or ".." in part.parts or "\0" in file or not part.parts or not _is_text(file):
        raise CheckpointError(
            f"{path}: its index names a shard outside of the checkpoint: {file[:100]!r}. Do not trust it."
        )
    return file


def _is_text(file: str) -> bool:
    """Whether a name can be one of a file: JSON may hold halves of characters, and names of any length."""
    try:
        return max(map(len, map(os.fsencode, Path(file).parts))) <= MAX_NAME_BYTES
    except UnicodeEncodeError:
        return False


def _inside(path: Path, home: Path, file: str) -> str:
    """`file`. Raises CheckpointError where it is no file of the checkpoint `path`, which resolves to `home`."""
    part = check_name(path, file)
    try:
        real = (path / part).resolve(strict=True)
    except (OSError, RuntimeError, ValueError) as error:
        _refuse_dead_link(path / part)
        raise CheckpointError(f"{path}: shard {file} is missing. Download the checkpoint again.") from error
    if not real.is_relative_to(home) and not leads_to_a_blob(path / part, path):
        raise CheckpointError(f"{path / part}: a link out of the checkpoint, to {real}. Put the file itself there.")
    if not real.is_file():
        raise CheckpointError(f"{path / part}: a file was expected. Download the checkpoint again.")
    refuse_pointer(path / part)
    return file


def _refuse_dead_link(file: Path) -> None:
    """Raise CheckpointError where `file` is a link whose target is missing."""
    if file.is_symlink() and not file.exists():
        raise CheckpointError(
            f"{file}: a link to {os.readlink(file)}, which is missing. Download it again, or put its target back."
        )


def leads_to_a_blob(file: Path, folder: Path) -> bool:
    """Whether a file of the checkpoint `folder` is a link into the blobs of a Hub cache, wherever those lie."""
    real = file.resolve()
    return real.parent in _hub_blobs(folder) or any(_is_blob(hop) for hop in (real, *_hops(file)))


def _hub_blobs(path: Path) -> list[Path]:
    """The folder of blobs into which a Hub cache's snapshot, `models--x/snapshots/<commit>/`, may link."""
    real = path.resolve()
    return [(parent.parent / "blobs").resolve() for parent in (real, *real.parents) if parent.name == "snapshots"]


def _is_blob(target: Path) -> bool:
    """Whether a path is that of a blob in some Hub cache: `models--org--name/blobs/<hash>`."""
    return target.parent.name == "blobs" and target.parent.parent.name.startswith("models--")


def _hops(file: Path) -> Iterator[Path]:
    """Yield what a link names, what that names when it is a link too, and so on: a cache's folder of blobs, or a blob
    in it, can itself be a link to another disk."""
    for _ in range(MAX_LINKS):
        if not file.is_symlink():
            return
        file = Path(os.path.normpath(file.parent.resolve() / os.readlink(file)))
        yield file
