"""Checkpoints loaded through transformers as chat models."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vlsurgery.probes.models.beside_adapter import own_tokenizer, put_trained_parts
from vlsurgery.probes.models.chat import ChatModel
from vlsurgery.probes.models.faults import is_out_of_memory, one_line
from vlsurgery.probes.models.remote_code import remote_code_files
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.checkpoint.hub import EXTRA_FILES
from vlsurgery.surgery.errors import CheckpointError
from vlsurgery.surgery.runtime.visible import visible

# Names of the module list that holds the decoder blocks, over all families.
STACK_NAMES = ("layers", "h", "blocks", "block", "layer")


def default_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


@dataclass(frozen=True)
class Loader:
    """How checkpoints become chat models.

    trust_remote_code: whether a checkpoint's own Python may run. thinking: whether templates are told to have models
    think before they answer; None leaves that to the templates.
    """

    trust_remote_code: bool = False
    thinking: bool | None = None

    def load(self, checkpoint: Checkpoint) -> ChatModel:
        return load(checkpoint, None, self.trust_remote_code, self.thinking)


AS_FOUND = Loader()  # nothing of a checkpoint's own runs, and templates are told nothing


def load(
    checkpoint: Checkpoint,
    device: str | None = None,
    trust_remote_code: bool = False,
    thinking: bool | None = None,
) -> ChatModel:
    """The chat model of a checkpoint, by transformers' Auto classes, in evaluation mode and without gradients.

    On a CPU in float32, on CUDA in the checkpoint's own dtype. The checkpoint's own Python never runs unless
    `trust_remote_code` is set, and then a note says so. A LoRA adapter is merged in memory by PEFT. thinking: as in
    `Loader`.

    Raises CheckpointError where transformers can't load it, or finds weights missing.
    """
    directory = checkpoint.path
    device = device or default_device()
    dtype = torch.float32 if device == "cpu" else "auto"
    model, tokenizer, processor = _pretrained(directory, dtype, trust_remote_code)
    if checkpoint.adapter is not None:
        model = _with_adapter(model, checkpoint.adapter.path)
        put_trained_parts(model, checkpoint.adapter)
        tokenizer, processor = own_tokenizer(checkpoint, processor is not None) or (tokenizer, processor)
    model = model.to(device).eval().requires_grad_(False)
    chat = ChatModel(model, tokenizer, processor, decoder_blocks(model), thinking=thinking)
    chat.notes += _notes(chat, directory, trust_remote_code)
    return chat


def _notes(chat: ChatModel, directory: Path, trust_remote_code: bool) -> Iterator[str]:
    """What to know of results that were measured on a model."""
    if trust_remote_code and remote_code_files(directory):
        yield f"{directory}: its own Python was run, as --trust-remote-code allows"
    template = chat.template
    if template is None:
        yield f"{directory} has no chat template: prompts are given as bare text"
    elif chat.thinking is not None:
        word = "on" if chat.thinking else "off"
        effect = "its template was told so" if template.knows_thinking else "its template knows no such switch"
        yield f"{directory}: thinking {word}, {effect}"


def _pretrained(directory: Path, dtype: torch.dtype | str, trust_remote_code: bool) -> tuple[Any, Any, Any | None]:
    """Model, tokenizer and, where the model sees, processor of a directory, each checked to be complete."""
    import transformers

    _refuse_dead_links(directory)
    how = {"trust_remote_code": trust_remote_code, "local_files_only": True}
    try:
        config = transformers.AutoConfig.from_pretrained(directory, **how)
        sees = hasattr(config, "vision_config")
        family = transformers.AutoModelForImageTextToText if sees else transformers.AutoModelForCausalLM
        model, info = family.from_pretrained(directory, dtype=dtype, output_loading_info=True, **how)
        processor = transformers.AutoProcessor.from_pretrained(directory, **how) if sees else None
        tokenizer = processor.tokenizer if processor else transformers.AutoTokenizer.from_pretrained(directory, **how)
    except Exception as error:  # tokenizers raises bare Exception, and a stranger's file can make any
        if is_out_of_memory(error):
            raise
        raise _cannot_load(directory, error, trust_remote_code) from error
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


def _refuse_dead_links(directory: Path) -> None:
    """transformers takes a link to nowhere for a file that is not there, and would leave out a chat template."""
    beside = (path for pattern in EXTRA_FILES for path in directory.glob(pattern))
    dead = sorted(path for path in beside if path.is_symlink() and not path.exists())
    if dead:
        raise CheckpointError(
            f"{dead[0]}: is a link to {visible(str(dead[0].readlink()))}, which is not there. Put the file there, or "
            "download the model again."
        )


def _cannot_load(directory: Path, error: Exception, trust_remote_code: bool) -> CheckpointError:
    files = remote_code_files(directory)
    if files and not trust_remote_code and "trust_remote_code" in str(error):
        return CheckpointError(
            f"{directory}: can't be loaded without Python of its own (auto_map in {', '.join(files)}), which is "
            "not run. Use a checkpoint of a kind that transformers knows, or read that code and add "
            "--trust-remote-code."
        )
    return CheckpointError(f"{directory}: transformers can't load it: {one_line(error)}")


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
