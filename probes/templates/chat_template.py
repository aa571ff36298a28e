"""The chat template of a model, with what it is told beside the messages."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from vlsurgery.probes.templates.rendering import Messages, render, template_of
from vlsurgery.surgery.errors import CheckpointError

THINKING_SWITCHES = ("enable_thinking", "thinking")  # the variables of published templates
_ASKED = "the request here"
_AS_PARTS = [{"type": "text", "text": _ASKED}]


@dataclass(frozen=True)
class ChatTemplate:
    """A template in Jinja. name: the checkpoint's. variables: its special tokens and switches. is_processors: whether
    it is a processor's, which takes a turn's content as a list of parts."""

    name: str
    text: str
    variables: Mapping[str, Any]
    is_processors: bool

    def render(self, messages: Messages) -> str:
        """The conversation up to where the answer begins. Raises CheckpointError where the template fails."""
        return render(self.name, self.text, messages, self.variables)

    @cached_property
    def takes_text(self) -> bool:
        """Whether a turn's content is given as text, else as a list of parts: a processor's template takes parts, a
        tokenizer's text, and where its own way fails, the other is taken.

        Raises CheckpointError where both fail.
        """
        ways = [self._fault_of(_AS_PARTS), self._fault_of(_ASKED)]
        if not self.is_processors:
            ways.reverse()
        if ways[0] is None or ways[1] is None:
            return self.is_processors == (ways[0] is not None)
        raise ways[0]

    @cached_property
    def takes_parts(self) -> bool:
        """Whether a turn's content may be a list of parts, as one with a picture is."""
        return self._fault_of(_AS_PARTS) is None

    def _fault_of(self, content: object) -> CheckpointError | None:
        """Why the template can't take a turn of such content: it fails, leaves the text out, or prints a list as
        Python writes it."""
        try:
            rendered = self.render([{"role": "user", "content": content}])
        except CheckpointError as error:
            return error
        if _ASKED in rendered and not re.search(rf"""['"]{_ASKED}""", rendered):
            return None
        return CheckpointError(
            f"{self.name}: its chat template does not show what the user asks. Take the chat_template.jinja of the "
            "published model."
        )

    @property
    def knows_thinking(self) -> bool:
        """Whether it reads a switch for thoughts."""
        return any(re.search(rf"\b{name}\b", self.text) for name in THINKING_SWITCHES)


def chat_template(name: str, tokenizer: Any, processor: Any | None, thinking: bool | None) -> ChatTemplate | None:
    """The template of a model: its processor's where it has one, else its tokenizer's; None where there is none.

    thinking: what the template is told of thoughts; None for nothing.
    """
    own = None if processor is None else template_of(name, processor)
    text = own or template_of(name, tokenizer)
    if text is None:
        return None
    switches = {} if thinking is None else dict.fromkeys(THINKING_SWITCHES, thinking)
    return ChatTemplate(name, text, {**tokenizer.special_tokens_map, **switches}, own is not None)
