"""Whether transformers runs a model that it has loaded, before anything of ours touches it."""

from pathlib import Path
from typing import Any

import torch

from vlsurgery.probes.models.extras import needs_picture
from vlsurgery.probes.models.faults import is_out_of_memory, one_line
from vlsurgery.surgery.errors import CheckpointError

TEXT = "Hello there"


def try_out(directory: Path, model: Any, tokenizer: Any) -> None:
    """Have the model read a few words and write two tokens. One that reads no text without a picture is not tried.

    Raises CheckpointError where transformers can't: some classes fail in what they keep between tokens.
    """
    if needs_picture(model):
        return
    ids = torch.tensor([tokenizer(TEXT)["input_ids"] or [0]], device=next(model.parameters()).device)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    own, model.generation_config = model.generation_config, _two_tokens(tokenizer)
    try:
        with torch.no_grad():
            model(**inputs, use_cache=False)
            model.generate(**inputs)
    except Exception as error:  # whatever a class of transformers raises of its own
        if is_out_of_memory(error):
            raise
        raise CheckpointError(
            f"{directory}: transformers loads it as {type(model).__name__} but can't run it: {one_line(error)}. "
            "Commands that run models don't take it; diff and merge by a method do."
        ) from error
    finally:
        model.generation_config = own


def _two_tokens(tokenizer: Any) -> Any:
    from transformers import GenerationConfig

    return GenerationConfig(max_new_tokens=2, do_sample=False, pad_token_id=tokenizer.pad_token_id or 0)
