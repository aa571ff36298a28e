"""What a reference to a checkpoint names, as far as its letters and the directories on this machine tell."""

import os
import re
from pathlib import Path
from typing import Final

from vlsurgery.surgery.checkpoint.hub import HubName
from vlsurgery.surgery.errors import CheckpointError
from vlsurgery.surgery.runtime.urls import is_url

WEIGHT_ENDINGS: Final = (
    ".safetensors", ".safetensors.index.json", ".bin", ".bin.index.json", ".pt", ".pth", ".ckpt", ".gguf", ".h5",
    ".msgpack", ".onnx",
)  # fmt: skip

_COMMIT: Final = re.compile(r"[0-9a-f]{40}")


def base_and_adapter(ref: str) -> tuple[str, str | None]:
    """A reference as base and adapter; an existing directory with a plus in its name is a base alone. So is a URL with
    a plus in it, unless an adapter can be meant by what follows."""
    base, plus, adapter = ref.rpartition("+")
    if not plus or Path(ref).expanduser().exists():
        return ref, None
    if not base or not adapter:
        raise CheckpointError(f"{ref}: no such directory. A base with a LoRA adapter is written BASE+ADAPTER.")
    if is_url(ref) and not (os.path.isdir(os.path.expanduser(adapter)) or HubName.of(adapter) or is_url(adapter)):
        return ref, None
    return base, adapter


def holds_weights(folder: Path) -> bool:
    """Whether a directory is there and has a file of weights in it, of whatever kind and state."""
    endings = tuple(ending for ending in WEIGHT_ENDINGS if not ending.endswith(".index.json"))
    return folder.is_dir() and any(file.name.endswith(endings) for file in folder.iterdir())


def commit_of(path: Path) -> str | None:
    """The Hub commit that a directory is a snapshot of: a Hub cache keeps `models--x/snapshots/<commit>/`."""
    real = path.resolve()
    return real.name if real.parent.name == "snapshots" and _COMMIT.fullmatch(real.name) else None
