"""The text stack's decoder blocks in a running model, and the residual stream in what they return."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from vlsurgery.probes.models.block_parts import hidden_of
from vlsurgery.surgery.architecture.decoder_stack import find_text_stack
from vlsurgery.surgery.errors import AlignmentError, CheckpointError

CROSS_ATTENTION = ("cross_attn", "encoder_attn", "crossattention")  # modules of blocks that read the picture


def decoder_blocks(model: nn.Module) -> Sequence[nn.Module]:
    """The text stack's decoder blocks, in order: found as in files, by numbers, widths and the vocabulary beside them.

    Raises CheckpointError where no stack has the length and width that the text config gives.
    """
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    config: Any = model.config
    try:
        stack = find_text_stack(shapes, config.to_dict(), _in_decoder(model))
    except AlignmentError as error:
        raise CheckpointError(f"{type(model).__name__}: {error}") from error
    return [model.get_submodule(f"{stack.prefix}.{number}") for number in sorted(stack.layers)]


def _in_decoder(model: Any) -> str | None:
    """The name of the one list of as many modules as the text config has layers in what transformers calls the decoder;
    None where that tells nothing."""
    decoder = model.get_decoder() if hasattr(model, "get_decoder") else model
    count = getattr(model.config.get_text_config(), "num_hidden_layers", None)
    inside = {id(module) for module in decoder.modules() if isinstance(module, nn.ModuleList) and len(module) == count}
    names = [name for name, module in model.named_modules() if id(module) in inside]
    return names[0] if len(names) == 1 else None


def passes_text_on(block: nn.Module) -> bool:
    """Whether a block does nothing to prompts without a picture, and is then left out: cross-attention to pictures
    (Llama 3.2 Vision)."""
    return any(hasattr(block, name) for name in CROSS_ATTENTION)


def residual_stream(block: nn.Module, output: Tensor | tuple[Tensor, ...]) -> Tensor:
    """[B, T, hidden]: the residual stream in what a block returned.

    A block with several streams (Gemma 3n's AltUp: [streams, B, T, hidden]) computes on one of them, and that is it.
    """
    return hidden_of(block, output if isinstance(output, Tensor) else output[0])
