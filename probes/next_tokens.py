"""What a model writes next behind a prompt: whether it begins a refusal, and how far it is from what it was."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from vlsurgery.probes.models import ChatModel
from vlsurgery.probes.models.head import answers_at_once, head_of, head_states, logits_beside, picked_logits
from vlsurgery.probes.models.row_losses import divergences
from vlsurgery.probes.prompts import Prompt


@dataclass(frozen=True)
class NextTokens:
    """A batch of prompts, each read at its last token. rows, columns: [B] where. owner: as in `ScoredAnswers`."""

    inputs: dict[str, Tensor]
    rows: Tensor
    columns: Tensor
    owner: Tensor

    def logits(self, chat: ChatModel) -> Tensor:
        """[B, vocabulary] float32."""
        return picked_logits(chat, self.inputs, self.rows, self.columns)


def next_tokens(chat: ChatModel, prompts: Sequence[Prompt], size: int = 32) -> list[NextTokens]:
    """The prompts in batches, each to be read at its last token."""
    made = []
    for batch in chat.batches(chat.encode(prompts), size=answers_at_once(chat, [torch.zeros(1)], size)):
        count = len(batch.index)
        tensors = (each.to(chat.device) for each in (torch.arange(count), batch.lengths - 1, torch.tensor(batch.index)))
        made.append(NextTokens(batch.inputs, *tensors))
    return made


def opening_tokens(chat: ChatModel, batches: Sequence[NextTokens]) -> list[int]:
    """The likeliest next token of every prompt, in the order of the batches."""
    with torch.no_grad():
        return [token for batch in batches for token in batch.logits(chat).argmax(-1).tolist()]


def refusal_openings(refusals: Sequence[Sequence[int]], others: Sequence[int]) -> list[int]:
    """The tokens that begin refusals more often than other answers.

    refusals: token ids of refusals. others: the first tokens of answers to harmless prompts. A token counts where its
    share among the refusals is the larger one, so that a model which refuses some harmless prompts has its openings
    counted all the same, and one that both kinds share alike has not.
    """
    ours, theirs = Counter(ids[0] for ids in refusals if ids), Counter(others)
    whole, rest = max(1, ours.total()), max(1, theirs.total())
    return sorted(token for token, count in ours.items() if count / whole > theirs[token] / rest)


def opening_odds(logits: Tensor, openings: Tensor) -> Tensor:
    """[...] log P - log(1 - P) in nats of logits [..., vocabulary], with P the probability of the openings."""
    others = logits.index_fill(-1, openings, -torch.inf)
    return logits[..., openings].logsumexp(-1) - others.logsumexp(-1)


class OpeningReading(NamedTuple):
    """How likely prompts are answered by a refusal, in their order, on the CPU.

    odds: [n] log P - log(1 - P) in nats, with P the probability of the openings as the next token; float64.
    refused: [n] bool, whether the likeliest next token is one of them, as greedy decoding takes it.
    """

    odds: Tensor
    refused: Tensor


def read_openings(chat: ChatModel, batches: Sequence[NextTokens], openings: Tensor) -> OpeningReading:
    """What the next tokens say of refusals."""
    count = sum(len(batch.owner) for batch in batches)
    found = OpeningReading(torch.empty(count, dtype=torch.float64), torch.empty(count, dtype=torch.bool))
    with torch.no_grad():
        for batch in batches:
            logits, owner = batch.logits(chat), batch.owner.cpu()
            found.odds[owner] = opening_odds(logits, openings).double().cpu()
            found.refused[owner] = torch.isin(logits.argmax(-1), openings).cpu()
    return found


def next_states(chat: ChatModel, batches: Sequence[NextTokens]) -> list[Tensor]:
    """Per batch, what the head reads at each prompt's last token: the reference of `next_divergence`."""
    return [head_states(chat, batch.inputs, batch.rows, batch.columns) for batch in batches]


def next_divergence(chat: ChatModel, batches: Sequence[NextTokens], reference: Sequence[Tensor]) -> float:
    """Mean KL(reference || model) of the next token, in nats, under the head as it is."""

    def own_head() -> Iterator[Mapping[str, Tensor]]:
        yield {name: value.detach() for name, value in head_of(chat).named_parameters()}

    with torch.no_grad():
        parts = [
            divergences(*logits_beside(chat, batch.inputs, batch.rows, batch.columns, states, own_head)).double().cpu()
            for batch, states in zip(batches, reference, strict=True)
        ]
    return float(torch.cat(parts).mean())
