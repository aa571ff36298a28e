"""What lies beside an adapter, for a model that PEFT made: the adapter's own tokenizer, template and processor, and
weights that were trained beside it. PEFT reads neither."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.checkpoint.lora.adapter import Adapter
from vlsurgery.surgery.errors import CheckpointError


def own_tokenizer(checkpoint: Checkpoint, sees: bool) -> tuple[Any, Any | None] | None:
    """Tokenizer and, where the model sees, processor of a base with an adapter, read from the files that a merge of
    both would have; None where the adapter brings none of its own.

    Raises CheckpointError where transformers can't load them.
    """
    import transformers

    adapter = checkpoint.adapter
    if adapter is None or not any(file.is_relative_to(adapter.path) for file in checkpoint.companions.values()):
        return None
    how = {"trust_remote_code": False, "local_files_only": True}
    with tempfile.TemporaryDirectory(prefix="vlsurgery-") as folder:
        for name, file in checkpoint.companions.items():
            place = Path(folder) / name
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, place)
        try:
            if not sees:
                return transformers.AutoTokenizer.from_pretrained(folder, **how), None
            processor = transformers.AutoProcessor.from_pretrained(folder, **how)
        except (OSError, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:300]
            raise CheckpointError(
                f"{adapter.path}: transformers can't load the adapter's tokenizer with the base's files: {reason}"
            ) from error
    return processor.tokenizer, processor


def put_trained_parts(model: nn.Module, adapter: Adapter) -> None:
    """Replace the model's parameters by those that were trained beside the adapter, in files of their own.

    Raises CheckpointError that names a tensor which is not clearly one of the model's parameters.
    """
    held = dict(model.named_parameters(remove_duplicate=False))
    for name, trained in adapter.replaced.items():
        if trained.shard.name in adapter.parts:
            ends = [key for key in held if key == name or key.endswith(f".{name}") or name.endswith(f".{key}")]
            found = [name] if name in held else ends
            if len(found) != 1 or held[found[0]].shape != trained.shape:
                raise CheckpointError(
                    f"{trained.shard}: {name}: no parameter of the loaded model is clearly this one. Merge it into its "
                    "base first, and measure the merge."
                )
            with torch.no_grad():
                held[found[0]].copy_(trained.load())
