"""Scores of given answers: one forward pass a batch, without generation."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor

from vlsurgery.probes.models import ChatModel
from vlsurgery.probes.models.head import (
    HeadRows,
    answers_at_once,
    head_states,
    logits_beside,
    picked_logits,
)
from vlsurgery.probes.models.row_losses import divergences
from vlsurgery.probes.prompts import Prompt

SCORED_TOGETHER: Final = 32  # answers of a batch, at most


@dataclass(frozen=True)
class ScoredAnswers:
    """A batch of prompts with their answers appended.

    inputs: the arguments of the model's forward. rows, columns: [K] where the logits of each answer token are read.
    targets: [K] the answer tokens. owner: [K] each token's prompt, as a position in the sequence that was batched.
    """

    inputs: dict[str, Tensor]
    rows: Tensor
    columns: Tensor
    targets: Tensor
    owner: Tensor

    def logits(self, chat: ChatModel) -> Tensor:
        """[K, vocabulary] float32 logits, with gradients where parameters require them."""
        return picked_logits(chat, self.inputs, self.rows, self.columns)

    def logits_beside(self, chat: ChatModel, states: Tensor, head: HeadRows) -> tuple[Tensor, Tensor]:
        """[K, vocabulary] logits in the model's dtype, and those of other `states` [N, hidden] under another head."""
        return logits_beside(chat, self.inputs, self.rows, self.columns, states, head)

    def ordered(self, order: Tensor) -> "ScoredAnswers":
        """The same tokens in another order [K]."""
        return replace(
            self,
            rows=self.rows[order],
            columns=self.columns[order],
            targets=self.targets[order],
            owner=self.owner[order],
        )

    def states(self, chat: ChatModel) -> Tensor:
        """[K, hidden] what the head reads at each answer token."""
        return head_states(chat, self.inputs, self.rows, self.columns)


def scored_answers(
    chat: ChatModel, prompts: Sequence[Prompt], answers: Sequence[Tensor], size: int = SCORED_TOGETHER
) -> list[ScoredAnswers]:
    """Batches in which every token of every answer is scored. answers: token ids, one tensor [A] a prompt, A >= 1."""
    encoded = chat.encode(prompts)
    made = []
    for batch in chat.batches(encoded, answers, answers_at_once(chat, answers, size)):
        rows, columns, targets, owner = [], [], [], []
        for row, at in enumerate(batch.index):
            start, answer = int(batch.lengths[row]), answers[at]
            rows.append(torch.full((len(answer),), row))
            columns.append(torch.arange(start - 1, start - 1 + len(answer)))
            targets.append(answer)
            owner.append(torch.full((len(answer),), at))
        tensors = (torch.cat(parts).to(chat.device) for parts in (rows, columns, targets, owner))
        made.append(ScoredAnswers(batch.inputs, *tensors))
    return made


@dataclass(frozen=True)
class RefusalChoices:
    """A batch of prompts, each read at the first token in which a refusal and an answer differ.

    refuse: [B] per prompt, the ids of the tokens that continue as a refusal there. Other fields as in
        `ScoredAnswers`, one row a prompt.
    """

    inputs: dict[str, Tensor]
    rows: Tensor
    columns: Tensor
    refuse: tuple[Tensor, ...]
    owner: Tensor

    @property
    def read(self) -> Tensor:
        """The row in the batch of each token that the head reads."""
        return self.rows

    def log_odds(self, chat: ChatModel) -> Tensor:
        """[B] log p - log(1 - p) in nats, with p the probability of the refusing tokens: the refusal log-odds."""
        logits = picked_logits(chat, self.inputs, self.rows, self.columns)
        odds = []
        for row, refuse in zip(logits, self.refuse, strict=True):
            others = row.index_fill(0, refuse, float("-inf"))
            odds.append(row[refuse].logsumexp(-1) - others.logsumexp(-1))
        return torch.stack(odds)


@dataclass(frozen=True)
class OpeningOdds:
    """A batch of prompts, each with the tokens that its answer begins with.

    read, columns, targets: [K] the row, the place and the token of each; all tokens of a prompt stand together. count:
        [B] how many a prompt has. rows: [B] each prompt's row in the batch. owner: as in `RefusalChoices`.
    """

    inputs: dict[str, Tensor]
    read: Tensor
    columns: Tensor
    targets: Tensor
    count: tuple[int, ...]
    rows: Tensor
    owner: Tensor

    @classmethod
    def of(cls, answers: ScoredAnswers, first_owner: int = 0) -> "OpeningOdds":
        """The odds of whole answers. first_owner: what is added to every position in the sequence that was batched."""
        rows, counts = answers.rows.unique_consecutive(return_counts=True)
        ends = counts.cumsum(0) - 1
        owner = answers.owner[ends] + first_owner
        count = tuple(counts.tolist())
        return cls(answers.inputs, answers.rows, answers.columns, answers.targets, count, rows, owner)

    def log_odds(self, chat: ChatModel) -> Tensor:
        """[B] log P - log(1 - P) in nats, with P the probability of the whole opening."""
        return self._odds(picked_logits(chat, self.inputs, self.read, self.columns))

    def log_odds_and_matches(self, chat: ChatModel) -> tuple[Tensor, Tensor]:
        """`log_odds`, and [B] whether greedy decoding as `complete` does it begins so."""
        logits = picked_logits(chat, self.inputs, self.read, self.columns)
        odds = self._odds(logits)
        hits = _without_placeholders(chat, logits).argmax(-1) == self.targets
        return odds, torch.stack([part.all() for part in hits.split(self.count)])

    def _odds(self, logits: Tensor) -> Tensor:
        """1 - P is the sum over tokens of the probability that the answer holds until there and parts there, so that
        neither P nor 1 - P is ever rounded to 0."""
        whole = logits.logsumexp(-1)
        ours = logits.gather(-1, self.targets[:, None])[:, 0] - whole
        others = logits.scatter(-1, self.targets[:, None], -torch.inf).logsumexp(-1) - whole
        odds = []
        for held, parted in zip(ours.split(self.count), others.split(self.count), strict=True):
            before = held.cumsum(0) - held
            odds.append(held.sum() - (before + parted).logsumexp(0))
        return torch.stack(odds)


def refusal_choices(
    chat: ChatModel,
    prompts: Sequence[Prompt],
    refusals: Sequence[Tensor],
    answers: Sequence[Tensor],
    size: int = SCORED_TOGETHER,
) -> list[RefusalChoices]:
    """Batches of refusal log-odds. refusals, answers: token ids of both completions; neither may begin with the other.

    Each prompt is followed by the prefix that the two share, and read at the first token in which they differ. A token
    counts as refusing there if it follows the same prefix in any of the refusals and in none of the answers; the
    prompt's own refusal always counts. So refusals in other words count too, as in Arditi et al. (arXiv 2406.11717,
    section 2.3), whose list of refusal tokens is written by hand.
    """
    forks = [_fork(refusal, answer) for refusal, answer in zip(refusals, answers, strict=True)]
    prefixes = [refusal[:fork] for refusal, fork in zip(refusals, forks, strict=True)]
    refusing, answering = _continuations(refusals), _continuations(answers)
    encoded = chat.encode(prompts)
    made = []
    for batch in chat.batches(encoded, prefixes, answers_at_once(chat, [torch.zeros(1)], size)):
        index = list(batch.index)
        refuse = []
        for at in index:
            prefix = tuple(prefixes[at].tolist())
            tokens = refusing[prefix] - answering.get(prefix, set()) | {int(refusals[at][forks[at]])}
            refuse.append(torch.tensor(sorted(tokens), device=chat.device))
        last = batch.lengths + torch.tensor([forks[at] for at in index]) - 1
        rows, columns, owner = (t.to(chat.device) for t in (torch.arange(len(index)), last, torch.tensor(index)))
        made.append(RefusalChoices(batch.inputs, rows, columns, tuple(refuse), owner))
    return made


def _continuations(completions: Sequence[Tensor]) -> dict[tuple[int, ...], set[int]]:
    """Every prefix of the completions, with the tokens that follow it."""
    found: dict[tuple[int, ...], set[int]] = {}
    for completion in completions:
        ids = completion.tolist()
        for at, token in enumerate(ids):
            found.setdefault(tuple(ids[:at]), set()).add(token)
    return found


def _fork(one: Tensor, other: Tensor) -> int:
    """The first position in which two completions differ."""
    shorter = min(len(one), len(other))
    differing = (one[:shorter] != other[:shorter]).nonzero()
    if len(differing) == 0:
        raise ValueError("one completion begins with the whole of the other, so there is no token where they part")
    return int(differing[0])


def refusal_log_odds(chat: ChatModel, batches: Sequence[RefusalChoices]) -> Tensor:
    """[n] refusal log-odds in the order of the prompts that were batched, float64 on the CPU."""
    parts = []
    with torch.no_grad():
        for batch in batches:
            parts.append((batch.owner.cpu(), batch.log_odds(chat).double().cpu()))
    return _ordered(parts)


def greedy_matches(chat: ChatModel, batches: Sequence[ScoredAnswers]) -> Tensor:
    """[n] bool: whether greedy decoding as `complete` does it gives exactly the given answer, in the prompts' order."""
    parts = []
    with torch.no_grad():
        for batch in batches:
            logits = _without_placeholders(chat, batch.logits(chat))
            hit = (logits.argmax(-1) == batch.targets).cpu()
            owner = batch.owner.cpu()
            whole = torch.ones(int(owner.max()) + 1, dtype=torch.long).scatter_reduce(0, owner, hit.long(), "amin")
            ids = owner.unique()
            parts.append((ids, whole[ids].bool()))
    return _ordered(parts)


def _without_placeholders(chat: ChatModel, logits: Tensor) -> Tensor:
    """[K, vocabulary] logits in which tokens that stand for pictures are never the likeliest."""
    never = [at for at in chat.placeholder_ids if at < logits.shape[-1]]  # some lie beyond the head's rows
    return logits.index_fill(-1, torch.tensor(never, dtype=torch.long, device=logits.device), -torch.inf)


def log_probabilities(chat: ChatModel, batches: Sequence[ScoredAnswers]) -> Iterator[Tensor]:
    """Per batch, [K, vocabulary] float32 log-probabilities at each answer token, one batch alive at a time."""
    with torch.no_grad():
        for batch in batches:
            yield torch.log_softmax(batch.logits(chat), -1)


def answer_states(chat: ChatModel, batches: Sequence[ScoredAnswers]) -> list[Tensor]:
    """Per batch, [K, hidden] what the head reads at each answer token: the reference of `divergence`."""
    return [batch.states(chat) for batch in batches]


def divergence(chat: ChatModel, batch: ScoredAnswers, states: Tensor, head: HeadRows) -> Tensor:
    """[K] KL(reference || model) at each answer token, in nats; gradients as in `logits`.

    states: the reference's `answer_states` of the batch. head: gives its head's parameters.
    """
    return divergences(*batch.logits_beside(chat, states, head))


def mean_divergence(
    chat: ChatModel, batches: Sequence[ScoredAnswers], reference: Sequence[Tensor], head: HeadRows
) -> float:
    """Mean KL(reference || model) over all answer tokens, in nats. head: gives the reference's."""
    with torch.no_grad():
        pairs = zip(batches, reference, strict=True)
        parts = [divergence(chat, batch, states, head).double().cpu() for batch, states in pairs]
    return float(torch.cat(parts).mean())


def _ordered(parts: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    owners = torch.cat([owner for owner, _ in parts])
    values = torch.cat([value for _, value in parts])
    return values[owners.argsort()]
