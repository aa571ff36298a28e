"""One prompt as one model reads it: how far it lies along a direction, and its refusal log-odds, layer by layer.

The numbers of one prompt mean little alone, so that reference prompts, harmful and harmless, are read the same way.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vlsurgery.probes.activations import capture, position_names
from vlsurgery.probes.models import ChatModel
from vlsurgery.probes.models.head import MAX_LOGIT_BYTES, vocabulary_size
from vlsurgery.probes.models.taps import tapped
from vlsurgery.probes.prompts import Prompt
from vlsurgery.surgery.errors import SurgeryError


@dataclass(frozen=True)
class LayerReadings:
    """What a model makes of prompts, layer by layer.

    along: [n, layers] the residual stream at one position, along a direction of length 1. odds: [n, layers] refusal
    log-odds of the next token by the logit lens, in nats; None where no token is known to begin a refusal.
    """

    along: Tensor
    odds: Tensor | None


def read_layers(
    chat: ChatModel, prompts: Sequence[Prompt], directions: Tensor, position: str, openings: Sequence[int]
) -> LayerReadings:
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
    odds = lens_odds(chat, prompts[0], torch.stack(last), openings) if openings else None
    return LayerReadings(torch.stack(along), odds)


def _along(states: Tensor, directions: Tensor) -> Tensor:
    """[n, layers] the parts of states [n, layers, hidden] along each layer's direction."""
    if states.shape[1:] != directions.shape:
        raise SurgeryError(
            f"the direction is {list(directions.shape)} (layers, width), but the model's states are "
            f"{list(states.shape[1:])}. Choose a direction of this role."
        )
    units = torch.nn.functional.normalize(directions.double(), dim=-1)
    return (states.double() * units).sum(-1)


def lens_odds(chat: ChatModel, prompt: Prompt, states: Tensor, openings: Sequence[int]) -> Tensor:
    """[n, layers] refusal log-odds that the model's own end (final norm, head and what follows) reads off states
    [n, layers, hidden] of prompts' last tokens, in nats (nostalgebraist, "interpreting GPT: the logit lens", 2020).

    The states are put in place of what the last block returns, so that at the last layer the lens gives the model's
    own log-odds. prompt: any that the model takes; what it says is not read.
    """
    (batch,) = chat.batches(chat.encode([prompt]))
    ids = torch.tensor(list(openings), device=chat.device)
    rows = max(1, MAX_LOGIT_BYTES["cpu"] // (4 * vocabulary_size(chat)))
    found = []
    for some in states.flatten(0, 1).split(rows):
        with torch.no_grad(), tapped(chat.blocks[-1], "output", lambda hidden, some=some: some.to(hidden)[None]):  # type: ignore[misc]
            logits = chat.model(**batch.inputs, use_cache=False).logits[0].float()
        others = logits.index_fill(-1, ids, -torch.inf)
        found.append((logits[:, ids].logsumexp(-1) - others.logsumexp(-1)).double().cpu())
    return torch.cat(found).unflatten(0, states.shape[:2])
