"""What lies beside an adapter, for its running model: the adapter's own tokenizer, template and processor."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

from vlsurgery.probes.models.processors import load_processor
from vlsurgery.surgery.checkpoint import Checkpoint
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
            processor = load_processor(Path(folder), **how)
        except (OSError, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:300]
            raise CheckpointError(
                f"{adapter.path}: transformers can't load the adapter's tokenizer with the base's files: {reason}"
            ) from error
    return processor.tokenizer, processor
