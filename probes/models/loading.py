"""Checkpoints loaded through transformers as chat models."""

import importlib.util
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vlsurgery.probes.models.beside_adapter import own_tokenizer
from vlsurgery.probes.models.blocks import decoder_blocks
from vlsurgery.probes.models.chat import ChatModel
from vlsurgery.probes.models.dtypes import RunDtype, device_of, run_dtype
from vlsurgery.probes.models.faults import is_out_of_memory, one_line
from vlsurgery.probes.models.head import reading_contiguously
from vlsurgery.probes.models.processors import missing_packages, needs_packages
from vlsurgery.probes.models.remote_code import remote_code_files
from vlsurgery.probes.models.routing import blind, picture_processor, route
from vlsurgery.probes.models.trial import try_out
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.checkpoint.hub import EXTRA_FILES, download_code
from vlsurgery.surgery.errors import CheckpointError, SurgeryError
from vlsurgery.surgery.runtime.urls import refuse_urls
from vlsurgery.surgery.runtime.visible import visible


@dataclass(frozen=True)
class Loader:
    """How checkpoints become chat models.

    trust_remote_code: whether a checkpoint's own Python may run. thinking: whether templates are told to have models
    think before they answer; None leaves that to the templates. dtype: of the running weights; "auto" is the stored
    one where the device multiplies it fast, else float32. device: None is CUDA where there is one, else the CPU; "auto"
    divides a model over all devices there are. memory: bytes that models and batches may take; None is what is free.
    """

    trust_remote_code: bool = False
    thinking: bool | None = None
    dtype: RunDtype = "auto"
    device: str | None = None
    memory: int | None = None

    def load(self, checkpoint: Checkpoint) -> ChatModel:
        return load(checkpoint, self)


AS_FOUND = Loader()  # nothing of a checkpoint's own runs, and templates are told nothing


def load(checkpoint: Checkpoint, how: Loader = AS_FOUND) -> ChatModel:
    """The chat model of a checkpoint, by transformers' Auto classes, in evaluation mode and without gradients.

    The checkpoint's own Python never runs unless `trust_remote_code` is set, and then a note says so. With a LoRA
    adapter, what runs is what this package folds and merges.

    Raises CheckpointError where it lies at a URL, where transformers can't load it, or finds weights missing.
    """
    refuse_urls([checkpoint.location], "this")
    device = device_of(how.device)
    dtype = run_dtype(checkpoint, how.dtype, device)
    model, tokenizer, processor = _pretrained(checkpoint, dtype, device, how)
    if checkpoint.adapter is not None:
        tokenizer, processor = own_tokenizer(checkpoint, processor is not None) or (tokenizer, processor)
    if device != "auto":
        model = model.to(device)
    model = model.eval().requires_grad_(False)
    reading_contiguously(model)
    try_out(checkpoint.path, model, tokenizer)
    chat = ChatModel(model, tokenizer, processor, decoder_blocks(model), thinking=how.thinking, memory=how.memory)
    chat.notes += _notes(chat, checkpoint, dtype, how)
    return chat


def _notes(chat: ChatModel, checkpoint: Checkpoint, dtype: torch.dtype, how: Loader) -> Iterator[str]:
    """What to know of results that were measured on a model."""
    directory = checkpoint.path
    if dtype != torch.float32:
        yield f"{directory} runs in {str(dtype).removeprefix('torch.')}: --dtype float32 is slower and rounds less"
    if how.trust_remote_code and remote_code_files(directory):
        yield f"{directory}: its own Python was run, as --trust-remote-code allows"
    if not chat.sees:
        yield from blind(directory, chat.model.config)
    template = chat.template
    if template is None:
        yield f"{directory} has no chat template: prompts are given as bare text"
    elif chat.thinking is not None:
        word = "on" if chat.thinking else "off"
        effect = "its template was told so" if template.knows_thinking else "its template knows no such switch"
        yield f"{directory}: thinking {word}, {effect}"


def _pretrained(checkpoint: Checkpoint, dtype: torch.dtype, device: str, how: Loader) -> tuple[Any, Any, Any | None]:
    """Model, tokenizer and, where the model sees, processor of a checkpoint, each checked to be complete."""
    import transformers

    directory = checkpoint.path
    _refuse_dead_links(directory)
    if how.trust_remote_code and remote_code_files(directory):
        download_code(directory)
    files: dict[str, Any] = {"trust_remote_code": how.trust_remote_code, "local_files_only": True}
    weights = {**files, "dtype": dtype, **_placement(device, how.memory)}
    try:
        config = transformers.AutoConfig.from_pretrained(directory, **files)
        way = route(config)
        if checkpoint.adapter is None:
            own = {} if way.config is config else {"config": way.config}
            model, info = way.auto.from_pretrained(directory, output_loading_info=True, **own, **weights)
        else:
            model, info = _from_folded(checkpoint, way.config, way.auto, weights)
        processor = picture_processor(directory, way, model, files)
        tokenizer = processor.tokenizer if processor else transformers.AutoTokenizer.from_pretrained(directory, **files)
    except SurgeryError:
        raise
    except Exception as error:  # tokenizers raises bare Exception, and a stranger's file can make any
        if is_out_of_memory(error):
            raise
        raise _cannot_load(directory, error, how.trust_remote_code) from error
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


def _from_folded(checkpoint: Checkpoint, config: Any, family: Any, weights: Mapping[str, Any]) -> tuple[Any, Any]:
    """A base with an adapter from the tensors as they were folded here, so that what runs is what is compared and
    merged; with transformers' account of what it loaded."""
    with torch.device("meta"):
        kind = type(family.from_config(config))
    tensors = {name: tensor.load() for name, tensor in checkpoint.items()}
    model, info = kind.from_pretrained(None, config=config, state_dict=tensors, output_loading_info=True, **weights)
    model.generation_config = _generation_settings(checkpoint) or model.generation_config
    return model, info


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
    if packages := missing_packages(error):
        return needs_packages(directory, packages)
    return CheckpointError(f"{directory}: transformers can't load it: {one_line(error)}")


def _generation_settings(checkpoint: Checkpoint) -> Any | None:
    """The settings of a checkpoint's generation_config.json, which transformers reads with weights from files alone."""
    from transformers import GenerationConfig

    if not (checkpoint.path / "generation_config.json").is_file():
        return None
    return GenerationConfig.from_pretrained(checkpoint.path, local_files_only=True)


def _placement(device: str, memory: int | None) -> dict[str, Any]:
    """Arguments that divide a model over all devices, and off the processor's memory where that is bounded.

    Raises SurgeryError where accelerate, which does that, is not installed.
    """
    if device != "auto":
        return {}
    if importlib.util.find_spec("accelerate") is None:
        raise SurgeryError(
            "--device auto: dividing a model over devices takes accelerate. Install it: pip install "
            "'vlsurgery[accelerate]', or name one device."
        )
    if memory is None:
        return {"device_map": "auto"}
    places: list[int | str] = [*range(torch.cuda.device_count())]
    return {"device_map": "auto", "max_memory": dict.fromkeys(places or ["cpu"], memory)}


def quiet_transformers() -> None:
    """Turn off transformers' own progress bars and warnings, for the whole process."""
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    logging.getLogger("transformers").setLevel(logging.ERROR)
