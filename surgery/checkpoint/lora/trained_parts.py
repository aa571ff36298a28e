"""Weights that were trained beside an adapter's low-rank factors, in files of their own: a projector, a head, a table.

LLaVA's training, for one, saves its projector as `non_lora_trainables.bin`. PEFT does not read such a file, so a merge
without it is silently another model.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from vlsurgery.surgery.checkpoint.headers import Header, read_header
from vlsurgery.surgery.checkpoint.lazy_tensor import LazyTensor
from vlsurgery.surgery.checkpoint.pickled import read_pickled
from vlsurgery.surgery.checkpoint.shards import INDEX, PICKLED_ENDINGS, PICKLED_INDEX, Files
from vlsurgery.surgery.errors import CheckpointError

ADAPTER_CONFIG: Final = "adapter_config.json"
ENDINGS: Final = (".safetensors", *PICKLED_ENDINGS)
# How the files of an adapter and of a trainer's state begin; their weights are the adapter's, or no part of a model.
# A value head scores answers while a policy is trained.
NO_PARTS: Final = (
    "adapter_model.", "optimizer", "scheduler", "scaler", "rng_state", "random_states", "training_args", "value_head",
    "v_head",
)  # fmt: skip
# Value heads, and weights in formats that are not read: they may be a part of the model, and a user must know.
_VALUE_HEADS: Final = ("value_head", "v_head")
_UNREAD_ENDINGS: Final = (
    ".npz",
    ".npy",
    ".pkl",
    ".pickle",
    ".h5",
    ".msgpack",
    ".distcp",
    ".incomplete",
    ".part",
    ".gguf",
)
# Folders in which trainers keep other states of the same training.
_OTHER_STATES: Final = re.compile(r"\.|checkpoint|global_step|optimizer|runs$|wandb$|tmp|logs?$", re.IGNORECASE)
MAX_UNREAD: Final = 1000

WHOLE_MODELS: Final = ("model.safetensors", "model-0", "pytorch_model.bin", "pytorch_model-0")


def two_models(place: str) -> CheckpointError:
    """The error for a place that holds a whole model and the settings of an adapter."""
    return CheckpointError(
        f"{place}: holds a whole model and an {ADAPTER_CONFIG}, with which transformers would run another one: "
        "the adapter, on the base that it names. Move the adapter's files to a directory of their own."
    )


def part_names(folder: Path) -> list[str]:
    """The files of trained weights in an adapter's directory, beside the adapter's own.

    Raises CheckpointError where a whole model lies there too: then the directory does not tell what was trained.
    """
    names = parts_among(file.name for file in folder.iterdir())
    whole = [name for name in names if is_whole_model(name)]
    whole += [name for name in (INDEX, PICKLED_INDEX) if (folder / name).exists()]
    if whole:
        raise CheckpointError(
            f"{folder / whole[0]}: weights of a whole model beside an adapter, so it is not clear which of the two is "
            "meant. Move one of them to a directory of its own."
        )
    return names


def parts_among(names: Iterable[str]) -> list[str]:
    """Those of the files beside an adapter that hold trained weights, sorted; files in folders hold none."""
    return sorted(
        name for name in names if "/" not in name and name.endswith(ENDINGS) and not name.startswith(NO_PARTS)
    )


def unread_parts(folder: Path) -> list[str]:
    """The files in an adapter's directory, and in its folders, that look like trained weights and are not used, sorted:
    value heads, formats that are not read, and parts in a folder of their own."""
    places = [folder, *(each for each in folder.iterdir() if each.is_dir() and not _OTHER_STATES.match(each.name))]
    found = []
    for place in places:
        used = {file.name for file in place.iterdir() if place == folder and file.name.endswith(ENDINGS)}
        for file in place.iterdir():
            value_head = file.name.startswith(_VALUE_HEADS) and file.name.endswith(ENDINGS)
            part = file.name.endswith((*ENDINGS, *_UNREAD_ENDINGS)) and not file.name.startswith(NO_PARTS)
            if value_head or (part and file.name not in used):
                found.append(file.relative_to(folder).as_posix())
    return sorted(found)[:MAX_UNREAD]


def is_whole_model(name: str) -> bool:
    """Whether a file of weights is named as those of a whole model are."""
    return name.startswith(WHOLE_MODELS)


def read_part(file: Path, allow_pickle: bool) -> tuple[Header, dict[str, LazyTensor]]:
    """The header of a file of trained weights, and its tensors by the names in it.

    Raises CheckpointError that names the file: pickled and not allowed, damaged.
    """
    if file.suffix == ".safetensors":
        header = read_header(file)
        return header, {entry.name: LazyTensor(entry, file) for entry in header.entries}
    if not allow_pickle:
        raise CheckpointError(
            f"{file}: weights that were trained beside the adapter, pickled: they can run code when they are loaded. "
            "Give --allow-pickle to use them, loaded as weights only, or save them as safetensors."
        )
    shards, tensors = read_pickled(file.parent, Files((file.name,), pickled=True))
    (header,) = shards.values()
    return header, tensors
