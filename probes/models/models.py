"""Load a checkpoint as a model that can be asked, and turn prompts into batches that treat every model alike.

Every model is measured under its own chat template. Batches are padded on the right, so that a prompt's tokens have
the same positions alone and in company; only generation pads on the left.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from vlsurgery.probes.prompts.prompts import Prompt
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.errors import CheckpointError

_TOKENS = 8192  # at most this many in a batch: pictures make prompts long
_STACKS = ("layers", "h", "blocks", "block", "layer")


@dataclass(frozen=True)
class Encoded:
    """One prompt as a model reads it.

    ids: [T] token ids, the picture's placeholders included. pictures: what the processor made of the picture.
    post: how many of the last tokens the template put behind the user's text (the post-instruction tokens).
    """

    prompt: Prompt
    ids: Tensor
    pictures: Mapping[str, Tensor]
    post: int


@dataclass(frozen=True)
class Batch:
    """Encoded prompts side by side.

    inputs: what the model's forward takes. lengths: [B] tokens of each prompt, without padding and completion.
    index: where each row stood in the sequence that was batched.
    """

    inputs: dict[str, Tensor]
    lengths: Tensor
    index: tuple[int, ...]


@dataclass
class ChatModel:
    """A model with what it takes to talk to it. `sees`: whether prompts with a picture can be asked."""

    model: nn.Module
    tokenizer: Any
    processor: Any | None
    blocks: Sequence[nn.Module]
    notes: list[str] = field(default_factory=list)

    @property
    def sees(self) -> bool:
        return self.processor is not None

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def answerable(self, prompts: Sequence[Prompt]) -> list[Prompt]:
        """Those of the prompts that this model can be asked: all, or without pictures where it does not see."""
        return [prompt for prompt in prompts if self.sees or prompt.modality == "text"]

    def encode(self, prompts: Sequence[Prompt]) -> list[Encoded]:
        return [self._encode(prompt) for prompt in prompts]

    def _encode(self, prompt: Prompt) -> Encoded:
        text, end = self._render(prompt)
        special = self._needs_special_tokens(text, templated=end is not None, pictured=prompt.image is not None)
        plain = self.tokenizer(text, add_special_tokens=special, return_offsets_mapping=True)
        post = 0 if end is None else sum(start >= end and stop > start for start, stop in plain["offset_mapping"])
        if prompt.image is None:
            return Encoded(prompt, torch.tensor(plain["input_ids"]), {}, post)
        if self.processor is None:
            raise ValueError(f"prompt {prompt.id} has a picture, but the model does not see")
        picture = prompt.image if isinstance(prompt.image, Image.Image) else Image.open(prompt.image)
        made = self.processor(
            text=[text], images=[picture.convert("RGB")], add_special_tokens=special, return_tensors="pt"
        )
        ids = made.pop("input_ids")[0]
        made.pop("attention_mask", None)
        return Encoded(prompt, ids, dict(made), post)

    def _needs_special_tokens(self, text: str, templated: bool, pictured: bool) -> bool:
        """Whether the tokenizer must add the start token, as transformers decides it.

        A template usually writes it, and a second one would be wrong; a processor's template may leave it out.
        """
        if not templated:
            return True
        start = self.tokenizer.bos_token
        return (pictured or self.sees) and start is not None and not text.startswith(start)

    def _render(self, prompt: Prompt) -> tuple[str, int | None]:
        """The prompt under the model's chat template, and where the user's words end in it; None without a template."""
        speaker = self.processor or self.tokenizer
        if not getattr(speaker, "chat_template", None):
            if prompt.image is not None:
                raise CheckpointError(
                    f"{self.tokenizer.name_or_path} has no chat template, so a picture can't be placed in a prompt. "
                    "Add chat_template.jinja to the checkpoint, or use prompts without pictures."
                )
            return prompt.text, None
        content: str | list[dict[str, str]] = prompt.text
        if self.processor is not None:
            content = [{"type": "text", "text": prompt.text}]
            if prompt.image is not None:
                content.insert(0, {"type": "image"})
        rendered = speaker.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
        )
        at = rendered.rfind(prompt.text.strip())
        if at < 0:
            raise CheckpointError(
                f"the chat template of {self.tokenizer.name_or_path} rewrites the user's text, so the last "
                "instruction token can't be found. Give the checkpoint a template that keeps the text as it is."
            )
        return rendered, at + len(prompt.text.strip())

    def batches(
        self,
        encoded: Sequence[Encoded],
        completions: Sequence[Tensor] | None = None,
        size: int = 32,
        pad: str = "right",
    ) -> Iterator[Batch]:
        """Batches of similar prompts: with or without a picture, and of about the same length.

        completions: token ids to append to each prompt, for scoring an answer that is already known.
        """
        rows = [
            item.ids if completions is None else torch.cat([item.ids, completions[i]]) for i, item in enumerate(encoded)
        ]
        order = sorted(range(len(rows)), key=lambda i: (bool(encoded[i].pictures), len(rows[i])))
        groups = [[i for i in order if bool(encoded[i].pictures) == pictured] for pictured in (False, True)]
        for group in groups:
            while group:
                count = next(
                    (n for n in range(min(size, len(group)), 1, -1) if n * len(rows[group[n - 1]]) <= _TOKENS), 1
                )
                yield self._collate(encoded, rows, group[:count], pad)
                group = group[count:]

    def _collate(self, encoded: Sequence[Encoded], rows: Sequence[Tensor], index: Sequence[int], pad: str) -> Batch:
        width = max(len(rows[i]) for i in index)
        filler = self.tokenizer.pad_token_id
        ids = torch.full((len(index), width), self.tokenizer.eos_token_id if filler is None else filler)
        mask = torch.zeros(len(index), width, dtype=torch.long)
        for row, i in enumerate(index):
            length = len(rows[i])
            span = slice(0, length) if pad == "right" else slice(width - length, width)
            ids[row, span] = rows[i]
            mask[row, span] = 1
        inputs = {"input_ids": ids, "attention_mask": mask}
        for key, first in encoded[index[0]].pictures.items():
            parts = [encoded[i].pictures[key] for i in index]
            inputs[key] = (
                _per_token(parts, mask, pad) if first.shape == encoded[index[0]].ids[None].shape else torch.cat(parts)
            )
        lengths = torch.tensor([len(encoded[i].ids) for i in index])
        return Batch({key: value.to(self.device) for key, value in inputs.items()}, lengths, tuple(index))


def _per_token(parts: Sequence[Tensor], mask: Tensor, pad: str) -> Tensor:
    """Pad what the processor says of each token (token types) as the tokens themselves are padded, with 0."""
    filled = torch.zeros_like(mask)
    for row, part in enumerate(parts):
        length = part.shape[1]
        filled[row, slice(0, length) if pad == "right" else slice(mask.shape[1] - length, None)] = part[0]
    return filled


def default_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def load(checkpoint: Checkpoint, device: str | None = None) -> ChatModel:
    """Load a checkpoint through transformers' Auto classes, ready to be asked; weights don't need gradients.

    On a CPU in float32, on CUDA in the checkpoint's own dtype. Remote code is off. A LoRA adapter is merged in memory
    by PEFT.

    Raises CheckpointError where transformers can't load it, or finds weights missing.
    """
    import transformers

    directory = checkpoint.path
    device = device or default_device()
    dtype: Any = torch.float32 if device == "cpu" else "auto"
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
    if checkpoint.adapter is not None:
        model = _with_adapter(model, checkpoint.adapter.path)
    model = model.to(device).eval().requires_grad_(False)
    chat = ChatModel(model, tokenizer, processor, decoder_blocks(model))
    if not getattr(processor or tokenizer, "chat_template", None):
        chat.notes.append(f"{directory} has no chat template: prompts are given as bare text")
    return chat


def _with_adapter(model: nn.Module, adapter: Path) -> nn.Module:
    try:
        from peft import PeftModel
    except ImportError as error:
        raise CheckpointError(
            f"{adapter}: to run a model with an adapter takes PEFT. Install it: pip install 'vlsurgery[adapters]'"
        ) from error
    return PeftModel.from_pretrained(model, adapter).merge_and_unload()


def decoder_blocks(model: nn.Module) -> Sequence[nn.Module]:
    """The text stack's blocks, in order, as many as the text config says.

    Raises CheckpointError where no stack of that length is found.
    """
    config = model.config.get_text_config()  # type: ignore[operator,union-attr]
    count = config.num_hidden_layers
    decoder = model.get_decoder() if hasattr(model, "get_decoder") else model  # type: ignore[operator]
    for module in decoder.modules():
        for name in _STACKS:
            stack = getattr(module, name, None)
            if isinstance(stack, nn.ModuleList) and len(stack) == count:
                return list(stack)
    raise CheckpointError(
        f"{type(model).__name__}: found no stack of {count} decoder blocks under any of the names {', '.join(_STACKS)}"
    )


def quiet_transformers() -> None:
    """Keep transformers' own bars and advice off the terminal: the program shows progress by `Progress`."""
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    logging.getLogger("transformers").setLevel(logging.ERROR)
