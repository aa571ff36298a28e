"""One prompt as one model reads it: how far it lies along a direction, and its refusal log-odds, layer by layer.

The numbers of one prompt mean little alone, so that reference prompts, harmful and harmless, are read the same way.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vlsurgery.probes.activations import capture, position_names
from vlsurgery.probes.lens import keeps_one_stream, lens_odds, read_out, states_at_once
from vlsurgery.probes.models import ChatModel, Encoded
from vlsurgery.probes.prompts import Prompt
from vlsurgery.surgery.errors import SurgeryError


@dataclass(frozen=True)
class PromptLayers:
    """What a model makes of prompts, layer by layer.

    along: [n, layers] the residual stream at one position, along a direction of length 1. odds: [n, layers] refusal
    log-odds of the next token by the logit lens, in nats; None where no token is known to begin a refusal, and of a
    model that passes several streams on.
    """

    along: Tensor
    odds: Tensor | None


def read_layers(
    chat: ChatModel, prompts: Sequence[Prompt], directions: Tensor, position: str, openings: Sequence[int]
) -> PromptLayers:
    """Read prompts of one kind: all with a picture, or all without.

    directions: [layers, hidden], of any length but 0. position: where the stream is read, by its name. openings: the
    tokens that begin a refusal.

    Raises SurgeryError where the directions do not fit the model, or its prompts have no such position.
    """
    encoded = chat.encode(prompts)
    names = position_names(encoded)
    if position not in names:
        raise SurgeryError(
            f"{chat.name}: its prompts have no position {position}, only {', '.join(names)}. Choose one of these."
        )
    along: list[Tensor] = [torch.empty(0)] * len(prompts)
    last: list[Tensor] = [torch.empty(0)] * len(prompts)
    for streams in capture(chat, encoded):
        states = streams.values[:, names.index(position)]
        for at, row, end in zip(streams.index, _along(states, directions), streams.values[:, -1], strict=True):
            along[at], last[at] = row, end
    return PromptLayers(torch.stack(along), _odds(chat, encoded, torch.stack(last), openings))


def _odds(chat: ChatModel, encoded: Sequence[Encoded], states: Tensor, openings: Sequence[int]) -> Tensor | None:
    """[n, layers] what the lens reads off the states of prompts' last tokens."""
    if not openings or not keeps_one_stream(chat):
        return None
    ids = torch.tensor(list(openings), device=chat.device)
    return lens_odds(states, read_out(chat, encoded), ids, states_at_once(chat))


def _along(states: Tensor, directions: Tensor) -> Tensor:
    """[n, layers] the parts of states [n, layers, hidden] along each layer's direction."""
    if states.shape[1:] != directions.shape:
        raise SurgeryError(
            f"the direction is {list(directions.shape)} (layers, width), but the model's states are "
            f"{list(states.shape[1:])}. Choose a direction of this role."
        )
    units = torch.nn.functional.normalize(directions.double(), dim=-1)
    return (states.double() * units).sum(-1)
