"""A model with its chat template: prompts in, token ids out. Every model is measured under its own template."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from vlsurgery.probes.models.batches import Batch, Encoded, Side, batches
from vlsurgery.probes.prompts import Prompt, rgb
from vlsurgery.surgery.errors import CheckpointError


@dataclass
class ChatModel:
    """A model with its tokenizer, its processor where it takes pictures, and its decoder blocks."""

    model: nn.Module
    tokenizer: Any
    processor: Any | None
    blocks: Sequence[nn.Module]
    notes: list[str] = field(default_factory=list)

    @property
    def sees(self) -> bool:
        """Whether the model takes pictures."""
        return self.processor is not None

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def answerable(self, prompts: Sequence[Prompt]) -> list[Prompt]:
        """The prompts that the model can take: those without a picture, and the others where it sees."""
        return [prompt for prompt in prompts if self.sees or prompt.modality == "text"]

    def encode(self, prompts: Sequence[Prompt]) -> list[Encoded]:
        """The prompts as token ids, under the model's chat template.

        Raises CheckpointError where the template rewrites the text or is needed and absent, ValueError for a picture
        that the model can't see.
        """
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
        made = self.processor(text=[text], images=[rgb(prompt.image)], add_special_tokens=special, return_tensors="pt")
        ids = made.pop("input_ids")[0]
        made.pop("attention_mask", None)
        return Encoded(prompt, ids, dict(made), post)

    def _needs_special_tokens(self, text: str, templated: bool, pictured: bool) -> bool:
        """Whether the tokenizer must add the start token, by transformers' rule.

        Templates usually write it, and then a second one would be wrong; a processor's template may leave it out.
        """
        if not templated:
            return True
        start = self.tokenizer.bos_token
        return (pictured or self.sees) and start is not None and not text.startswith(start)

    def _render(self, prompt: Prompt) -> tuple[str, int | None]:
        """The prompt under the chat template, and the offset at which the user's text ends; None without a template."""
        speaker = self.processor or self.tokenizer
        if not getattr(speaker, "chat_template", None):
            if prompt.image is not None:
                raise CheckpointError(
                    f"{self.tokenizer.name_or_path} has no chat template, so a picture can't be placed in a prompt. "
                    "Add chat_template.jinja to the checkpoint, or use prompts without pictures."
                )
            return prompt.text, None
        text = self._without_placeholders(prompt.text)
        content: str | list[dict[str, str]] = text
        if self.processor is not None:
            content = [{"type": "text", "text": text}]
            if prompt.image is not None:
                content.insert(0, {"type": "image"})
        rendered = speaker.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
        )
        at = rendered.rfind(text.strip())
        if at < 0:
            raise CheckpointError(
                f"the chat template of {self.tokenizer.name_or_path} rewrites the user's text, so the last "
                "instruction token can't be found. Give the checkpoint a template that keeps the text as it is."
            )
        return rendered, at + len(text.strip())

    def _without_placeholders(self, text: str) -> str:
        """The user's text with a space in every word that the processor would take for a picture ("< image>")."""
        for token in self._placeholders:
            text = text.replace(token, f"{token[0]} {token[1:]}")
        return text

    @property
    def _placeholders(self) -> list[str]:
        """The tokens that stand for a picture, a film or a sound in a prompt."""
        found = (getattr(self.processor, f"{kind}_token", None) for kind in ("image", "video", "audio"))
        return [token for token in found if isinstance(token, str) and token]

    @property
    def placeholder_ids(self) -> list[int]:
        """The ids of these tokens: a completion that had one could not be read back, as there is nothing behind it."""
        return [self.tokenizer.convert_tokens_to_ids(token) for token in self._placeholders]

    @property
    def pad_id(self) -> int:
        """The tokenizer's padding token, or its end token where it has none."""
        pad = self.tokenizer.pad_token_id
        return self.tokenizer.eos_token_id if pad is None else pad

    def batches(
        self,
        encoded: Sequence[Encoded],
        completions: Sequence[Tensor] | None = None,
        size: int = 32,
        pad: Side = "right",
    ) -> Iterator[Batch]:
        """As `batches.batches`, on the model's device."""
        for batch in batches(encoded, completions, size, pad, self.pad_id):
            inputs = {key: value.to(self.device) for key, value in batch.inputs.items()}
            yield Batch(inputs, batch.lengths, batch.index)
