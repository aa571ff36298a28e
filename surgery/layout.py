"""Which files of a directory hold a checkpoint's weights."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from surgery.errors import CheckpointError

SINGLE: Final = "model.safetensors"
INDEX: Final = "model.safetensors.index.json"
PICKLED: Final = ("*.bin", "*.pt", "*.pth", "*.ckpt")


@dataclass(frozen=True)
class Files:
    """`shards`: file names in the index's order of names. `weight_map`: tensor -> file; empty without an index."""

    shards: tuple[str, ...]
    weight_map: dict[str, str] = field(default_factory=dict)


def find_shards(path: Path) -> Files:
    """The weight files of the directory `path`, each known to exist inside it. Reads the index, but no weight file.

    Raises CheckpointError that says what `path` is instead, and what to do.
    """
    try:
        path.stat()
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{path}: no such directory. If it is the name of a model on a hub, download it first and give its folder."
        ) from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: can't be read ({error}).") from error
    if not path.is_dir():
        raise CheckpointError(f"{path}: is a file. Give the directory that holds config.json and the weights.")
    has_single, has_index = (path / SINGLE).is_file(), (path / INDEX).is_file()
    if not has_single and not has_index:
        raise CheckpointError(_what_instead(path))
    if not (path / "config.json").is_file():
        raise CheckpointError(f"{path}: no config.json beside the weights. Copy it from the model that this one is.")
    if not has_index:
        return Files((_inside(path, SINGLE),))
    files = _read_index(path)
    if has_single and files.shards != (SINGLE,):
        raise CheckpointError(f"{path}: holds both {SINGLE} and {INDEX}. Remove the one that is stale.")
    return files


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a small file. Raises CheckpointError that names the file."""
    try:
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise CheckpointError(f"{path}: can't be read ({error.strerror or error}).") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not valid JSON ({error}). Download it again.") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: a JSON object was expected.")
    return value


def _what_instead(path: Path) -> str:
    """Why a directory without model.safetensors and without an index is not a checkpoint we can read."""
    if (path / "adapter_config.json").exists():
        return (
            f"{path}: a LoRA adapter, not a whole model. Fold it into its base (PEFT's merge_and_unload) and save that."
        )
    others = sorted(file.name for file in path.glob("*.safetensors"))
    if len(others) > 1:
        return (
            f"{path}: {len(others)} safetensors files ({others[0]}, ...) but no {INDEX}. "
            "Download the index that came with them, or save the model again."
        )
    if others:
        return f"{path}: its only weight file is {others[0]}. Rename it to {SINGLE} if it is the whole model."
    pickled = sorted(file.name for pattern in PICKLED for file in path.glob(pattern))
    if pickled:
        return (
            f"{path}: holds only pickled weights ({pickled[0]}), which can run code when they are loaded. "
            "Convert them first: load the model with transformers and save it with save_pretrained."
        )
    return f"{path}: not a checkpoint: neither {SINGLE} nor {INDEX} is in it."


def _read_index(path: Path) -> Files:
    index = path / INDEX
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(file, str) for file in weight_map.values()):
        raise CheckpointError(f"{index}: weight_map must map tensor names to file names. Download it again.")
    if not weight_map:
        raise CheckpointError(f"{index}: its weight_map is empty. Download it again.")
    shards = tuple(_inside(path, file) for file in sorted(set(weight_map.values())))
    return Files(shards, weight_map)


def _inside(path: Path, file: str) -> str:
    """`file`, once it is known to be a file of the checkpoint: an index must not reach for anything else."""
    part = Path(file)
    if part.is_absolute() or ".." in part.parts or "\0" in file or not part.parts:
        raise CheckpointError(f"{path / INDEX}: names a shard outside of the checkpoint: {file!r}. Do not trust it.")
    try:
        real = (path / part).resolve(strict=True)
    except (OSError, RuntimeError) as error:
        raise CheckpointError(f"{path}: shard {file} is missing. Download the checkpoint again.") from error
    if not real.is_relative_to(path.resolve()) and real.parent not in _hub_blobs(path):
        raise CheckpointError(f"{path / part}: a link out of the checkpoint, to {real}. Put the file itself there.")
    if not real.is_file():
        raise CheckpointError(f"{path / part}: a file was expected.")
    return file


def _hub_blobs(path: Path) -> list[Path]:
    """A Hub cache keeps `models--x/snapshots/<commit>/` full of links into `models--x/blobs/`: its own are fine."""
    real = path.resolve()
    return [parent.parent / "blobs" for parent in (real, *real.parents) if parent.name == "snapshots"]
