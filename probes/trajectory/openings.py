"""Refusal log-odds without a forced answer: how probable the openings of the base's refusals are, against all others.

A refusal and an answer may begin alike ("I can't", "I can show you"), so that no single token tells them apart. The
completions of the base make a tree of openings; a refusal opens where its way parts from those of the answers.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vlsurgery.probes.models import ChatModel, Encoded
from vlsurgery.probes.models.head import answers_at_once, picked_logits
from vlsurgery.probes.prompts import Prompt
from vlsurgery.surgery.errors import SurgeryError
from vlsurgery.surgery.runtime.progress import Progress, no_progress

OPENING_TOKENS = 8  # in which a refusal must have parted from all answers
MIN_REFUSALS = 2  # that begin alike before their opening counts: one may begin with its topic
MAX_ANSWER_SHARE = 0.05  # of the share of refusals that begin so: how many answers may, since judges err
BATCH = 32

Opening = tuple[int, ...]


@dataclass(frozen=True)
class OpeningFork:
    """What may follow a prefix of tokens. refusing: tokens with which it becomes a refusal. undecided: tokens behind
    which another fork stands. Every other token is no refusal of the base's."""

    refusing: tuple[int, ...]
    undecided: tuple[int, ...]


@dataclass(frozen=True)
class RefusalOpenings:
    """The openings of the base's refusals as forks, by the tokens that lead to them; the empty prefix is always one."""

    forks: Mapping[Opening, OpeningFork]

    @property
    def openings(self) -> list[Opening]:
        """The token ids of every refusing opening, those of the shortest prefixes first."""
        return [(*prefix, token) for prefix, fork in self.forks.items() for token in fork.refusing]

    @property
    def paths(self) -> list[Opening]:
        """Prefixes that lead past every fork: all that are no beginning of another."""
        return [one for one in self.forks if not any(other != one and _begins(other, one) for other in self.forks)]


def refusal_openings(refusals: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]) -> RefusalOpenings:
    """The openings that at least MIN_REFUSALS refusals have and answers have not. Both: completions as token ids.

    An opening is as short as it can be, OPENING_TOKENS at most. It may also begin answers, where their share of all
    answers is at most MAX_ANSWER_SHARE of the refusals' share.

    Raises SurgeryError where there is no such opening.
    """
    refused, answered = _beginnings(refusals), _beginnings(answers)
    allowed = MAX_ANSWER_SHARE * len(answers) / max(1, len(refusals))
    forks: dict[Opening, OpeningFork] = {}

    def grow(prefix: Opening) -> bool:
        """Add the fork at a prefix and those behind it; whether any refusal opens there."""
        shared = [way for way, count in refused.items() if way[:-1] == prefix and count >= MIN_REFUSALS]
        refusing = [way[-1] for way in shared if answered[way] <= allowed * refused[way]]
        forks[prefix] = OpeningFork((), ())  # before those behind it: shorter prefixes come first
        undecided = [way[-1] for way in shared if way[-1] not in refusing and grow(way)]
        forks[prefix] = OpeningFork(tuple(sorted(refusing)), tuple(sorted(undecided)))
        if not refusing and not undecided:
            del forks[prefix]
        return prefix in forks

    if not grow(()):
        raise SurgeryError(
            f"of the base's {len(refusals)} refusals, no {MIN_REFUSALS} begin in the same words that its "
            f"{len(answers)} answers do not begin with, so there is no refusal to measure. Give more harmful requests "
            "that the base refuses with --prompts FILE:harmful."
        )
    return RefusalOpenings(forks)


def opening_log_odds(
    chat: ChatModel,
    prompts: Sequence[Prompt],
    openings: RefusalOpenings,
    label: str = "scoring",
    progress: Progress = no_progress,
) -> Tensor:
    """[n] refusal log-odds in nats, float64 on the CPU: log p - log(1 - p), p the probability that a completion begins
    with one of the openings. Exact: both p and 1 - p are sums over the tree, each in the order of the prompts."""
    if not prompts:
        return torch.zeros(0, dtype=torch.float64)
    encoded = chat.encode(prompts)
    refusing, other = (torch.full((len(prompts),), -torch.inf, dtype=torch.float64) for _ in range(2))
    done: set[Opening] = set()
    for path in progress(openings.paths, label):
        new = [path[:length] for length in range(len(path) + 1)]
        new = [prefix for prefix in new if prefix in openings.forks and prefix not in done]
        done.update(new)
        for owner, scores in _along(chat, encoded, path):
            for prefix in new:
                fork, at = openings.forks[prefix], len(prefix)
                before = _way(scores, prefix)
                refusing[owner] = torch.logaddexp(refusing[owner], before + _mass(scores[:, at], fork.refusing))
                rest = scores[:, at].index_fill(1, torch.tensor([*fork.refusing, *fork.undecided]), -torch.inf)
                other[owner] = torch.logaddexp(other[owner], before + rest.logsumexp(-1))
    return refusing - other


def _along(chat: ChatModel, encoded: Sequence[Encoded], path: Opening) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of prompts as positions [B], and [B, len(path) + 1, vocabulary] log-probabilities of the token at each
    place of the path and behind it, float64."""
    tokens = torch.tensor(path, dtype=torch.long)
    size = answers_at_once(chat, [torch.zeros(len(path) + 1)], BATCH)
    places = torch.arange(len(path) + 1)
    for batch in chat.batches(encoded, [tokens] * len(encoded), size):
        rows = torch.arange(len(batch.index)).repeat_interleave(len(places))
        columns = (torch.as_tensor(batch.lengths).cpu()[:, None] - 1 + places).flatten()
        with torch.no_grad():
            logits = picked_logits(chat, batch.inputs, rows.to(chat.device), columns.to(chat.device))
        scores = torch.log_softmax(logits.double().cpu(), -1).unflatten(0, (-1, len(places)))
        yield torch.tensor(list(batch.index)), scores


def _way(scores: Tensor, prefix: Opening) -> Tensor:
    """[B] log-probability of the tokens of a prefix."""
    return sum((scores[:, at, token] for at, token in enumerate(prefix)), torch.zeros(len(scores), dtype=scores.dtype))


def _mass(scores: Tensor, tokens: Sequence[int]) -> Tensor:
    """[B] log-probability of any of some tokens; -inf of none."""
    return scores[:, list(tokens)].logsumexp(-1)


def _beginnings(completions: Sequence[Sequence[int]]) -> Counter[Opening]:
    """How many completions begin with each opening of up to OPENING_TOKENS tokens."""
    return Counter(tuple(ids[:length]) for ids in completions for length in range(1, min(len(ids), OPENING_TOKENS) + 1))


def _begins(way: Opening, prefix: Opening) -> bool:
    return way[: len(prefix)] == prefix
