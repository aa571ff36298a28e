"""Weights that were trained beside an adapter's low-rank factors, in files of their own: a projector, a head, a table.

LLaVA's training, for one, saves its projector as `non_lora_trainables.bin`. PEFT does not read such a file, so a merge
without it is silently another model.
"""

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
WHOLE_MODELS: Final = ("model.safetensors", "model-0", "pytorch_model.bin", "pytorch_model-0")


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
