"""A model with its chat template: prompts in, token ids out. Every model is measured under its own template."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vlsurgery.probes.models.batches import Batch, Encoded, Side, batches
from vlsurgery.probes.models.faults import is_out_of_memory, one_line
from vlsurgery.probes.prompts import Prompt, rgb
from vlsurgery.probes.templates import ChatTemplate, chat_template
from vlsurgery.probes.thoughts import is_thought_mark, opened
from vlsurgery.surgery.errors import CheckpointError, SurgeryError


@dataclass
class ChatModel:
    """A model with its tokenizer, its processor where it takes pictures, and its decoder blocks.

    thinking: whether its template is told to have it think before it answers; None leaves that to the template.
    memory: bytes that model and batches may take; None is what is free.
    """

    model: nn.Module
    tokenizer: Any
    processor: Any | None
    blocks: Sequence[nn.Module]
    notes: list[str] = field(default_factory=list)
    thinking: bool | None = None
    memory: int | None = None

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

        Raises CheckpointError where the template fails, rewrites the text or is needed and absent, or the processor
        can't take a picture; SurgeryError for a prompt that is longer than the model reads; ValueError for a picture
        that the model can't see.
        """
        return [self._encode(prompt) for prompt in prompts]

    def text_of(self, ids: Sequence[int]) -> str:
        """A completion as text: without special tokens, but with the marks that set a thought apart from the answer.

        Where the template has opened the thought already, its mark stands at the start.
        """
        special = {at for at, token in self.tokenizer.added_tokens_decoder.items() if token.special}
        marks = [at for at in special if is_thought_mark(str(self.tokenizer.convert_ids_to_tokens(at)))]
        if special.intersection(ids).intersection(marks):
            kept = [at for at in ids if at not in special or at in marks]
            text = self.tokenizer.decode(kept, skip_special_tokens=False)
        else:
            text = self.tokenizer.decode(list(ids), skip_special_tokens=True)
        return self.open_thought + str(text).strip()

    @cached_property
    def open_thought(self) -> str:
        """The mark of a thought that the template opens and leaves to the model to close; empty where it opens none.

        A completion that is cut off within such a thought has no other sign of it.
        """
        if self.template is None:
            return ""
        asked = "hello"
        content = asked if self.template.takes_text else [{"type": "text", "text": asked}]
        rendered = self._rendered(content)
        return opened(rendered[rendered.rfind(asked) + len(asked) :])

    def _encode(self, prompt: Prompt) -> Encoded:
        if prompt.image is not None and self.processor is None:
            raise ValueError(f"prompt {prompt.id} has a picture, but the model does not see")
        text, end = self._render(prompt)
        special = self._needs_special_tokens(text, templated=end is not None, pictured=prompt.image is not None)
        plain = self.tokenizer(text, add_special_tokens=special, return_offsets_mapping=True)
        post = 0 if end is None else sum(start >= end and stop > start for start, stop in plain["offset_mapping"])
        if prompt.image is None:
            found = Encoded(prompt, torch.tensor(plain["input_ids"]), {}, post)
        else:
            made = self._processed(prompt, text, special)
            ids = made.pop("input_ids")[0]
            made.pop("attention_mask", None)
            found = Encoded(prompt, ids, made, post)
        self._check_length(prompt, len(found.ids))
        return found

    def _processed(self, prompt: Prompt, text: str, special: bool) -> dict[str, Tensor]:
        """What the processor makes of a prompt with its picture."""
        assert self.processor is not None  # `_encode` has looked.
        assert prompt.image is not None
        try:
            made = self.processor(
                text=[text], images=[rgb(prompt.image)], add_special_tokens=special, return_tensors="pt"
            )
        except (ValueError, TypeError, IndexError, RuntimeError, OSError) as error:
            if is_out_of_memory(error):
                raise
            place = f" ({prompt.image})" if isinstance(prompt.image, Path) else ""
            raise CheckpointError(
                f"{self.name}: its processor can't take the picture of prompt {prompt.id}{place}: {one_line(error)}. "
                "Give another picture, or the processor files of the published model."
            ) from error
        return dict(made)

    def _check_length(self, prompt: Prompt, length: int) -> None:
        """Refuse a prompt of more tokens than the model has positions for."""
        config: Any = getattr(self.model, "config", None)
        most = None if config is None else getattr(config.get_text_config(), "max_position_embeddings", None)
        if isinstance(most, int) and 0 < most < length:
            raise SurgeryError(
                f"prompt {prompt.id} has {length:,} tokens, but {self.name} reads at most {most:,} "
                "(max_position_embeddings). Shorten the prompt, or leave it out."
            )

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
        if self.template is None:
            if prompt.image is not None:
                raise CheckpointError(
                    f"{self.name} has no chat template, so a picture can't be placed in a prompt. "
                    "Add chat_template.jinja to the checkpoint, or use prompts without pictures."
                )
            return self._as_words(prompt.text), None
        text, takes_text = self._as_words(prompt.text), self.template.takes_text
        content: str | list[dict[str, str]] = text
        if prompt.image is not None:
            if not self.template.takes_parts:
                raise CheckpointError(
                    f"the chat template of {self.name} takes text alone, so a picture can't be placed in a prompt. "
                    "Take the chat_template.jinja of the published model, or use prompts without pictures."
                )
            content = [{"type": "image"}, {"type": "text", "text": text}]
        elif not takes_text:
            content = [{"type": "text", "text": text}]
        rendered = self._rendered(content)
        at = rendered.rfind(text.strip())
        if at < 0:
            raise CheckpointError(
                f"the chat template of {self.name} rewrites the user's text, so the last "
                "instruction token can't be found. Give the checkpoint a template that keeps the text as it is."
            )
        return rendered, at + len(text.strip())

    def _rendered(self, content: object) -> str:
        """One user's turn under the chat template, up to where the answer begins."""
        assert self.template is not None  # Those who call it have looked.
        return self.template.render([{"role": "user", "content": content}])

    @cached_property
    def template(self) -> ChatTemplate | None:
        """The chat template: the processor's own, else the tokenizer's; None where there is none."""
        return chat_template(self.name, self.tokenizer, self.processor, self.thinking)

    @property
    def name(self) -> str:
        """The checkpoint's, as its tokenizer remembers it."""
        return str(self.tokenizer.name_or_path)

    def _as_words(self, text: str) -> str:
        """The user's text with a space in what would else be a picture or a special token ("< image>", "< /s>").

        A user who writes "<s>" means these letters, and not the start of a text.
        """
        for token in self._reserved:
            text = text.replace(token, f"{token[0]} {token[1:]}")
        return text

    @cached_property
    def _reserved(self) -> list[str]:
        """The placeholders and the special tokens that no word contains, the longest first."""
        special = [token.content for token in self.tokenizer.added_tokens_decoder.values() if token.special]
        marks = {token for token in special if len(token) > 1 and not token[0].isalnum() and not token.isspace()}
        return sorted(marks.union(self._placeholders), key=lambda token: (-len(token), token))

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
