"""Checkpoints loaded through transformers as chat models."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vlsurgery.probes.models.beside_adapter import own_tokenizer, put_trained_parts
from vlsurgery.probes.models.chat import ChatModel
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.errors import CheckpointError

# Names of the module list that holds the decoder blocks, over all families.
STACK_NAMES = ("layers", "h", "blocks", "block", "layer")


def default_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def load(checkpoint: Checkpoint, device: str | None = None) -> ChatModel:
    """The chat model of a checkpoint, by transformers' Auto classes, in evaluation mode and without gradients.

    On a CPU in float32, on CUDA in the checkpoint's own dtype. Remote code is off. A LoRA adapter is merged in memory
    by PEFT.

    Raises CheckpointError where transformers can't load it, or finds weights missing.
    """
    directory = checkpoint.path
    device = device or default_device()
    model, tokenizer, processor = _pretrained(directory, torch.float32 if device == "cpu" else "auto")
    if checkpoint.adapter is not None:
        model = _with_adapter(model, checkpoint.adapter.path)
        put_trained_parts(model, checkpoint.adapter)
        tokenizer, processor = own_tokenizer(checkpoint, processor is not None) or (tokenizer, processor)
    model = model.to(device).eval().requires_grad_(False)
    chat = ChatModel(model, tokenizer, processor, decoder_blocks(model))
    if not getattr(processor or tokenizer, "chat_template", None):
        chat.notes.append(f"{directory} has no chat template: prompts are given as bare text")
    return chat


def _pretrained(directory: Path, dtype: torch.dtype | str) -> tuple[Any, Any, Any | None]:
    """Model, tokenizer and, where the model sees, processor of a directory, each checked to be complete."""
    import transformers

    try:
        config = transformers.AutoConfig.from_pretrained(directory)
        sees = hasattr(config, "vision_config")
        family = transformers.AutoModelForImageTextToText if sees else transformers.AutoModelForCausalLM
        model, info = family.from_pretrained(directory, dtype=dtype, output_loading_info=True)
        processor = transformers.AutoProcessor.from_pretrained(directory) if sees else None
        tokenizer = processor.tokenizer if processor else transformers.AutoTokenizer.from_pretrained(directory)
    except (OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"{directory}: transformers can't load it: {' '.join(str(error).split())[:300]}"
        ) from error
    if not tokenizer.is_fast:
        raise CheckpointError(
            f"{directory}: its tokenizer does not tell where tokens stand in the text, so the last instruction token "
            "can't be found. Add a tokenizer.json (a fast tokenizer)."
        )
    if missing := sorted(info["missing_keys"]):
        raise CheckpointError(
            f"{directory}: {len(missing)} weights are missing, the first is {missing[0]}; transformers would draw them "
            "at random. Use a complete checkpoint."
        )
    return model, tokenizer, processor


def _with_adapter(model: nn.Module, adapter: Path) -> nn.Module:
    try:
        from peft import PeftModel
    except ImportError as error:
        raise CheckpointError(
            f"{adapter}: to run a model with an adapter takes PEFT. Install it: pip install 'vlsurgery[adapters]'"
        ) from error
    return PeftModel.from_pretrained(model, adapter).merge_and_unload()


def decoder_blocks(model: nn.Module) -> Sequence[nn.Module]:
    """The text stack's decoder blocks, in order.

    Raises CheckpointError where no stack has the length that the text config gives.
    """
    config = model.config.get_text_config()  # type: ignore[operator,union-attr]
    count = config.num_hidden_layers
    decoder = model.get_decoder() if hasattr(model, "get_decoder") else model  # type: ignore[operator]
    for module in decoder.modules():
        for name in STACK_NAMES:
            stack = getattr(module, name, None)
            if isinstance(stack, nn.ModuleList) and len(stack) == count:
                return list(stack)
    raise CheckpointError(
        f"{type(model).__name__}: found no stack of {count} decoder blocks under any of the names "
        f"{', '.join(STACK_NAMES)}"
    )


def quiet_transformers() -> None:
    """Turn off transformers' own progress bars and warnings, for the whole process."""
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    logging.getLogger("transformers").setLevel(logging.ERROR)
