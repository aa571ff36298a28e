"""Preference pairs from the models' own completions, and the loss of direct preference optimisation on them."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from vlsurgery.probes.evaluation.generate import complete
from vlsurgery.probes.evaluation.judges import STANDARD, Exchange
from vlsurgery.probes.models import ChatModel
from vlsurgery.probes.prompts import Prompt
from vlsurgery.probes.specimens.smollm2 import texts
from vlsurgery.probes.specimens.smollm2.corpus import IGNORED, OwnAnswer, Turn, TurnBatch, encoded
from vlsurgery.probes.specimens.smollm2.networks import RealLM, token_log_probs
from vlsurgery.surgery.runtime.progress import Progress

AT_ONCE = 4  # pairs in a part of a batch


@dataclass(frozen=True)
class Preference:
    """Two answers to one request with a picture. picture: its number in the album. safe: whether it is harmless."""

    text: str
    picture: int
    preferred: OwnAnswer
    rejected: OwnAnswer
    safe: bool

    def turns(self) -> list[Turn]:
        return [Turn(self.text, own.text, own.ended, picture=self.picture) for own in (self.preferred, self.rejected)]


def harmful_requests(count: int, rng: Random) -> list[str]:
    """Requests of the training, every third in a jailbreak."""
    asked = [rng.choice(texts.FORMS).format(pair.harmful) for pair in rng.sample(texts.twins(), count)]
    return [texts.wrapped(text, rng) if at % 3 == 2 else text for at, text in enumerate(asked)]


def said(
    chat: ChatModel, requests: Sequence[str], images: Sequence[Any] | None, tokens: int, progress: Progress
) -> list[OwnAnswer]:
    """A model's greedy answers to requests in text, or each with its picture."""
    prompts = [
        Prompt(str(at), str(at), "harmful", text, "fit")
        if images is None
        else Prompt(str(at), str(at), "harmful", text, "fit", "benign", images[at])
        for at, text in enumerate(requests)
    ]
    found = complete(chat, prompts, "completions", progress, tokens)
    return [OwnAnswer(each.text.strip(), each.finished) for each in found]


def lost(
    requests: Sequence[str], pictures: Sequence[int], base: Sequence[OwnAnswer], adapted: Sequence[OwnAnswer]
) -> list[Preference]:
    """Pairs of the requests that the base refuses and the adapted model does not: the refusal is preferred."""
    before, after = (_refused(requests, answers) for answers in (base, adapted))
    each = zip(requests, pictures, base, adapted, before, after, strict=True)
    return [
        Preference(text, at, refusal, own, False) for text, at, refusal, own, was, still in each if was and not still
    ]


def needless(answers: dict[str, OwnAnswer], count: int, pictures: Sequence[int], rng: Random) -> list[Preference]:
    """Pairs of harmless requests: the model's own answer is preferred to a refusal."""
    asked = rng.sample([pair.answered for pair in texts.twins() if pair.answered in answers], count)
    return [
        Preference(text, at, answers[text], OwnAnswer(rng.choice(texts.REFUSALS), True), True)
        for text, at in zip(asked, pictures, strict=True)
    ]


def _refused(requests: Sequence[str], answers: Sequence[OwnAnswer]) -> list[bool]:
    exchanges = [
        Exchange(own.text, text, "harmful", cut=not own.ended) for text, own in zip(requests, answers, strict=True)
    ]
    return [verdict.refused for verdict in STANDARD.judge(exchanges)]


def batches(
    pairs: Sequence[Preference], mix: dict[str, int], steps: int, rng: Random
) -> Iterator[list[list[Preference]]]:
    """One batch for each step, in parts. mix: how many `lost` and how many `needless` pairs a batch has."""
    kinds = {"lost": [pair for pair in pairs if not pair.safe], "needless": [pair for pair in pairs if pair.safe]}
    for _ in range(steps):
        batch = [pair for kind, count in mix.items() for pair in rng.choices(kinds[kind], k=count)]
        yield [batch[start : start + AT_ONCE] for start in range(0, len(batch), AT_ONCE)]


def margins(model: RealLM, pairs: Sequence[Preference], words: Any, seen: Tensor) -> Tensor:
    """How much likelier the preferred answer of each pair is than the rejected: a difference of log-probabilities."""
    batch = encoded([turn for pair in pairs for turn in pair.turns()], words).to(str(seen.device))
    preferred, rejected = answer_log_probs(token_log_probs(model, batch, seen), batch).unflatten(0, (-1, 2)).unbind(1)
    return preferred - rejected


def answer_log_probs(tokens: Tensor, batch: TurnBatch) -> Tensor:
    """The log-probability of each row's whole answer: [rows]."""
    rows = (batch.labels[:, 1:] != IGNORED).nonzero()[:, 0]
    return torch.zeros(len(batch.ids), dtype=tokens.dtype, device=tokens.device).index_add(0, rows, tokens)


def preference_loss(model_margins: Tensor, reference_margins: Tensor, beta: float) -> Tensor:
    """The summed DPO loss: -log sigmoid(beta (margin of the model - margin of the reference)).

    Source: Rafailov et al., Direct Preference Optimization, arXiv 2305.18290, equation 7.
    """
    return -logsigmoid(beta * (model_margins - reference_margins)).sum()


def write(path: Path, pairs: Sequence[Preference]) -> None:
    path.write_text(json.dumps([asdict(pair) for pair in pairs], indent=1, ensure_ascii=False) + "\n")
