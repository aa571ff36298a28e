"""A model with its chat template: prompts in, token ids out. Every model is measured under its own template."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from vlsurgery.probes.models.batches import MAX_ROWS, Batch, Encoded, Rows
from vlsurgery.probes.models.extras import Side, accepted, needs_picture, picture_dtype, text_types
from vlsurgery.probes.models.faults import is_out_of_memory, one_line
from vlsurgery.probes.models.kept import KeptPrompts
from vlsurgery.probes.models.positions import ASKED, Ending, common_ending, tokens_added, tokens_behind
from vlsurgery.probes.models.room import Room, most_tokens
from vlsurgery.probes.models.words import PLACEHOLDER_IDS, as_words, placeholders
from vlsurgery.probes.prompts import Prompt, rgb
from vlsurgery.probes.templates import ChatTemplate, chat_template
from vlsurgery.probes.thoughts import is_thought_mark, opened
from vlsurgery.surgery.errors import CheckpointError, SurgeryError

T = TypeVar("T")


@dataclass
class ChatModel:
    """A model with its tokenizer, its processor where it takes pictures, and its decoder blocks.

    thinking: whether its template is told to have it think before it answers; None leaves that to the template.
    memory: bytes that model and batches may take; None is what is free. foreign_template: another model's, under which
    it reads text instead of its own.
    """

    model: nn.Module
    tokenizer: Any
    processor: Any | None
    blocks: Sequence[nn.Module]
    notes: list[str] = field(default_factory=list)
    thinking: bool | None = None
    memory: int | None = None
    foreign_template: ChatTemplate | None = None
    _kept: KeptPrompts = field(default_factory=KeptPrompts, init=False, repr=False)
    _endings: dict[bool, Ending] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.tokenizer.eos_token_id is None:
            self.note(f"{self.name} has no end token: completions end at the number of tokens asked for")

    @property
    def sees(self) -> bool:
        """Whether the model takes pictures."""
        return self.processor is not None

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def under(self, template: ChatTemplate) -> "ChatModel":
        """The same model in memory, reading text under another model's chat template."""
        return replace(self, foreign_template=template, notes=[])

    def answerable(self, prompts: Sequence[Prompt]) -> list[Prompt]:
        """The prompts that the model can take: those with a picture where it sees, and others where it needs none."""
        blind, textless = not self.sees, needs_picture(self.model)
        return [prompt for prompt in prompts if not (textless if prompt.modality == "text" else blind)]

    def encode(self, prompts: Sequence[Prompt]) -> list[Encoded]:
        """The prompts as token ids, under the model's chat template.

        Raises CheckpointError where the template fails, rewrites the text or is needed and absent, or the processor
        can't take a picture; SurgeryError for a prompt that is longer than the model reads; ValueError for a picture
        that the model can't see.
        """
        return [self._kept.get(prompt, self._encode) for prompt in prompts]

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
        rendered = self._rendered(asked)
        return opened(rendered[rendered.rfind(asked) + len(asked) :])

    def _encode(self, prompt: Prompt) -> Encoded:
        if prompt.image is not None and self.processor is None:
            raise ValueError(f"prompt {prompt.id} has a picture, but the model does not see")
        if prompt.image is None and needs_picture(self.model):
            raise CheckpointError(
                f"{self.name} reads no text without a picture ({type(self.model).__name__} needs pixel_values), and "
                f"prompt {prompt.id} has none. Ask it prompts with pictures alone."
            )
        text = as_words(prompt.text, self.tokenizer, self.processor)
        pictured = prompt.image is not None
        rendered = self._rendered(text, pictured)
        end = self._ending(pictured).end_of_text(rendered, text)
        special = self._needs_special_tokens(rendered, self.template is not None, pictured)
        plain = self.tokenizer(rendered, add_special_tokens=special, return_offsets_mapping=True)
        ids, extras = torch.tensor(plain["input_ids"]), dict[str, Tensor]()
        post = 0 if self.template is None else tokens_behind(plain["offset_mapping"], end)
        if pictured:
            made = self._processed(prompt, rendered, special)
            ids = torch.as_tensor(made.pop("input_ids"))[0]
            made.pop("attention_mask", None)  # all ones, as a single prompt is not padded
            extras = accepted(self.model, made)
        elif self._processes_text:
            ids = self._text_processed(rendered, special)
        post += self._added(prompt, ids.tolist(), plain["input_ids"], post)
        self._check_length(prompt, len(ids))
        return Encoded(prompt, ids, extras, post)

    def _ending(self, pictured: bool) -> Ending:
        """What stands behind the user's text in prompts with a picture, or without."""
        if pictured not in self._endings:
            one, other = (self._rendered(asked, pictured) for asked in ASKED)
            text, name = common_ending(one, other), self.name if self.template is None else self.template.name
            if behind := next((token for token in placeholders(self.processor) if token in text), None):
                raise CheckpointError(
                    f"the chat template of {name} puts the picture ({behind}) behind the user's text, so the "
                    "tokens behind it differ with the picture. Use a template that puts pictures first."
                )
            self._endings[pictured] = Ending(name, text)
        return self._endings[pictured]

    def _added(self, prompt: Prompt, ids: Sequence[int], plain: Sequence[int], post: int) -> int:
        """How many tokens the processor has put behind a rendered prompt."""
        added = tokens_added(ids, plain, post)
        if added is None:
            raise CheckpointError(
                f"{self.name}: its processor rewrites prompt {prompt.id}, so the last instruction token can't be "
                "found. Take the processor files of the published model."
            )
        return added

    def _processed(self, prompt: Prompt, text: str, special: bool) -> dict[str, Any]:
        """What the processor makes of a prompt with its picture."""
        assert self.processor is not None  # `_encode` has looked.
        assert prompt.image is not None
        try:
            made = dict(
                self.processor(text=[text], images=[rgb(prompt.image)], add_special_tokens=special, return_tensors="pt")
            )
        except (ValueError, TypeError, LookupError, RuntimeError, OSError, AttributeError) as error:
            if is_out_of_memory(error):
                raise
            if not self._has_place:
                raise CheckpointError(self._no_place()) from error
            place = f" ({prompt.image})" if isinstance(prompt.image, Path) else ""
            raise CheckpointError(
                f"{self.name}: its processor can't take the picture of prompt {prompt.id}{place}: {one_line(error)}. "
                "Give another picture, or the processor files of the published model."
            ) from error
        ids = torch.as_tensor(made["input_ids"])
        read = self.tokenizer(text, add_special_tokens=special)["input_ids"]
        shown = torch.isin(ids, torch.tensor(self.picture_ids)).any() or ids[0].tolist() != read
        if self.picture_ids and not shown:  # some processors write other tokens than the one that they look for
            raise CheckpointError(self._no_place())
        if not self._has_place:
            self.note(f"{self.name}: its template has no place for pictures; its processor puts them before the text")
        return made

    def _text_processed(self, text: str, special: bool) -> Tensor:
        """The token ids that the processor makes of a text without a picture: some put a token before or behind it."""
        assert self.processor is not None  # `_processes_text` has looked.
        made = self.processor(text=[text], add_special_tokens=special, return_tensors="pt")
        return torch.as_tensor(made["input_ids"])[0]

    @cached_property
    def _processes_text(self) -> bool:
        """Whether the processor takes text without a picture; else (PaliGemma) the tokenizer does."""
        if self.processor is None:
            return False
        try:
            self._text_processed(self._rendered(ASKED[0]), special=False)
        except (ValueError, TypeError, LookupError, AttributeError):
            return False
        return True

    @cached_property
    def _has_place(self) -> bool:
        """Whether the template shows a picture: a turn with one is not rendered as the text alone is."""
        if self.template is None or not self.template.takes_parts:
            return False
        text = [{"type": "text", "text": ASKED[0]}]
        shown = self.template.render([{"role": "user", "content": text}])
        return self._rendered(ASKED[0], pictured=True) != shown

    def note(self, line: str) -> None:
        """Tell something of results that are measured on the model, once."""
        if line not in self.notes:
            self.notes.append(line)

    def _no_place(self) -> str:
        way = "or use prompts without pictures."
        if self.template is None:
            return (
                f"{self.name} has no chat template, so a picture can't be placed in a prompt. "
                f"Add chat_template.jinja to the checkpoint, {way}"
            )
        fault = "has no place for pictures" if self.template.takes_parts else "takes text alone"
        return (
            f"the chat template of {self.name} {fault}, so a picture can't be placed in a prompt. "
            f"Take the chat_template.jinja of the published model, {way}"
        )

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

    def _rendered(self, text: str, pictured: bool = False) -> str:
        """One user's turn under the chat template, up to where the answer begins; the text itself without one."""
        if self.template is None:
            return text
        takes_text = self.template.takes_text  # first, as it tells of a template that fails
        content: str | list[dict[str, str]] = text
        if pictured and self.template.takes_parts:
            content = [{"type": "image"}, {"type": "text", "text": text}]
        elif not takes_text:
            content = [{"type": "text", "text": text}]
        return self.template.render([{"role": "user", "content": content}])

    @cached_property
    def template(self) -> ChatTemplate | None:
        """The chat template: the processor's own, else the tokenizer's; None where there is none."""
        if self.foreign_template is not None:
            return self.foreign_template
        return chat_template(self.name, self.tokenizer, self.processor, self.thinking)

    @property
    def name(self) -> str:
        """The checkpoint's, as its tokenizer remembers it."""
        return str(self.tokenizer.name_or_path)

    @property
    def placeholder_ids(self) -> list[int]:
        """The ids of pictures' tokens that the head can write: a completion that had one could not be read back, as
        there is nothing behind it. Mllama's head has no row for its own."""
        head: Any = self.model.get_output_embeddings()  # type: ignore[operator]
        return [at for at in self.picture_ids if at < head.weight.shape[0]]

    @cached_property
    def picture_ids(self) -> list[int]:
        """The ids of the tokens that stand for pictures, films and sounds."""
        named = [self.tokenizer.convert_tokens_to_ids(token) for token in placeholders(self.processor)]
        config = None if self.processor is None else getattr(self.model, "config", None)
        held = [getattr(config, name, None) for name in PLACEHOLDER_IDS]
        known = {at for at in [*named, *held] if isinstance(at, int) and 0 <= at < len(self.tokenizer)}
        return sorted(known - {self.tokenizer.unk_token_id})

    @property
    def pad_id(self) -> int:
        """The tokenizer's padding token, else its end token; any id where it has neither: a mask hides it."""
        ids = (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id, 0)
        return next(int(at) for at in ids if at is not None)

    def batches(
        self,
        encoded: Sequence[Encoded],
        completions: Sequence[Tensor] | None = None,
        size: int | None = None,
        pad: Side = "right",
    ) -> Iterator[Batch]:
        """Batches of prompts that go together, on the model's device, each as large as there is room for.

        completions: token ids to append to each prompt. size: prompts in a batch, at most.
        """
        rows = self._rows(encoded, completions, pad)
        for index in rows.divided(size or MAX_ROWS, self.room.tokens):
            yield self._placed(rows.collated(index))

    def each_batch(
        self,
        work: Callable[[Batch], T],
        encoded: Sequence[Encoded],
        completions: Sequence[Tensor] | None = None,
        size: int | None = None,
        pad: Side = "right",
        tokens: int = 0,
        even: bool = False,
    ) -> Iterator[tuple[Batch, T]]:
        """Each batch with what `work` makes of it, without gradients; where memory runs out, halves of it.

        As `batches`. tokens: how many the work writes behind each row. even: whether the rows of a batch must be of
        one length. Raises SurgeryError where a prompt alone does not fit.
        """
        rows = self._rows(encoded, completions, pad, tokens, even)
        return self.room.each(rows, size or MAX_ROWS, lambda batch: work(self._placed(batch)))

    @cached_property
    def room(self) -> Room:
        """The bound on a batch's tokens."""
        return Room(most_tokens(self.model, self.memory))

    def _rows(
        self,
        encoded: Sequence[Encoded],
        completions: Sequence[Tensor] | None,
        pad: Side,
        tokens: int = 0,
        even: bool = False,
    ) -> Rows:
        return Rows(encoded, completions, pad, self.pad_id, text_types(self.model), tokens, even)

    def _placed(self, batch: Batch) -> Batch:
        """The batch on the model's device, its pictures in the dtype of the weights that read them."""
        dtype = picture_dtype(self.model)
        inputs = {
            key: value.to(self.device, dtype if value.is_floating_point() else None)
            for key, value in batch.inputs.items()
        }
        return Batch(inputs, batch.lengths, batch.index)
