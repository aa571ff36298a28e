"""Chat templates: a conversation in, the text that a model reads out. Imports no torch."""

from vlsurgery.probes.templates.chat_template import ChatTemplate, chat_template
from vlsurgery.probes.templates.rendering import render, template_of

__all__ = ["ChatTemplate", "chat_template", "render", "template_of"]
