"""Coefficients fitted by gradient, to bring refusals back at little change of other answers.

Each block mixes the adapted model with its sources by a softmax, so coefficients are positive and sum to less than 1.
Minimised by Adam: cross-entropy of the base's own refusals + KL_WEIGHT x KL(adapted || merged) on answers to
keep + COEFFICIENT_PENALTY x mean coefficient, which prefers small coefficients among equals. Each step takes one of
NUM_PARTS equal parts of the prompts in turn, which fits as well in as many steps, at a fraction of the passes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vlsurgery.probes.in_memory_merge import InMemoryMerge
from vlsurgery.probes.models.forward import checkpointing, keeping_pictures, short_attention
from vlsurgery.probes.models.row_losses import divergences, surprisals
from vlsurgery.probes.prompts import Prompt
from vlsurgery.probes.scoring import ScoredAnswers, answer_states, scored_answers
from vlsurgery.probes.targets import WorkingSet, evenly_spaced
from vlsurgery.surgery.runtime.progress import Progress, no_progress

STEPS = 80  # of Adam
NUM_PARTS = 4
LEARNING_RATE = 0.15
KL_WEIGHT = 3.0
COEFFICIENT_PENALTY = 0.02
START_COEFFICIENT = 0.1  # of each source, before the first step
MAX_REFUSED = 256  # prompts with a refusal to bring back
MAX_KEPT = 384  # prompts with an answer to keep

Answered = tuple[Prompt, Tensor]  # a prompt with the token ids of its answer


@dataclass(frozen=True)
class Fit:
    """Fitted coefficients. losses: at each step, on that step's prompts. passes: prompts run over all steps."""

    coefficients: dict[str, dict[str, float]]
    losses: tuple[float, ...]
    passes: int


@dataclass(frozen=True)
class _Part:
    """The prompts of one step, those to refuse and those to keep in the same batches.

    refused: of each batch, how many of its tokens are a refusal's; they come first. reference: what the adapted model's
    head reads at the others. refuse_tokens, keep_tokens: in all batches.
    """

    batches: Sequence[ScoredAnswers]
    refused: Sequence[int]
    reference: Sequence[Tensor]
    refuse_tokens: int
    keep_tokens: int
    prompts: int


def fit(live: InMemoryMerge, working: WorkingSet, progress: Progress = no_progress, steps: int = STEPS) -> Fit:
    """Fit one coefficient per block and source on the prompts of `working`. Deterministic; restores the live model."""
    parts = _parts(live, working)
    start = torch.log(torch.tensor(START_COEFFICIENT / (1 - START_COEFFICIENT * len(live.sources))))
    logits = torch.full((len(live.blocks), len(live.sources)), float(start), requires_grad=True)
    optimiser = torch.optim.Adam([logits], lr=LEARNING_RATE)
    losses = []
    with keeping_pictures(live.chat), live.differentiable():
        for step in progress(range(steps), "fitting coefficients"):
            coefficients = _mix(logits)
            live.move(coefficients.detach())
            loss, slope = _loss_and_slope(live, parts[step % len(parts)])
            penalty = COEFFICIENT_PENALTY * coefficients.sum(1).mean()
            optimiser.zero_grad()
            torch.autograd.backward([coefficients, penalty], [slope.to(coefficients.dtype), None])
            optimiser.step()
            losses.append(loss + float(penalty.detach()))
    passes = sum(parts[step % len(parts)].prompts for step in range(steps))
    return Fit(_rounded(live.named(_mix(logits).detach())), tuple(losses), passes)


def _rounded(coefficients: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """Coefficients with four digits: behaviour shows no more, and people read the recipe."""
    return {block: {source: round(value, 4) for source, value in row.items()} for block, row in coefficients.items()}


def _parts(live: InMemoryMerge, working: WorkingSet) -> list[_Part]:
    """NUM_PARTS parts of the prompts, each with its share of every set and modality."""
    refused, kept = evenly_spaced(working.refuse, MAX_REFUSED), evenly_spaced(working.keep, MAX_KEPT)
    count = max(1, min(NUM_PARTS, len(refused), len(kept)))
    parts = []
    for at in range(count):
        ours, theirs = refused[at::count], kept[at::count]
        parts.append(_part(live, ours, theirs))
    return parts


def _part(live: InMemoryMerge, refuse: Sequence[Answered], keep: Sequence[Answered]) -> _Part:
    prompts, answers = zip(*refuse, *keep, strict=True)
    batches, refused = [], []
    for batch in scored_answers(live.chat, prompts, answers):
        kept = batch.owner >= len(refuse)
        batches.append(batch.ordered(kept.int().argsort(stable=True)))
        refused.append(int((~kept).sum()))
    states = answer_states(live.chat, batches)
    return _Part(
        batches,
        refused,
        [each[count:].clone() for each, count in zip(states, refused, strict=True)],
        sum(refused),
        sum(len(batch.targets) for batch in batches) - sum(refused),
        len(prompts),
    )


def _mix(logits: Tensor) -> Tensor:
    """The sources' part of the softmax over (adapted, sources...), with the adapted model's logit fixed at 0."""
    adapted = torch.zeros(len(logits), 1)
    return torch.softmax(torch.cat([adapted, logits], dim=1), dim=1)[:, 1:]


def _loss_and_slope(live: InMemoryMerge, part: _Part) -> tuple[float, Tensor]:
    """Loss at the live model's coefficients, and its gradient by coefficient. Means are over answer tokens."""
    total = 0.0
    for batch, refused, states in zip(part.batches, part.refused, part.reference, strict=True):
        with checkpointing(live.chat, batch.inputs), short_attention(live.chat, batch.inputs):
            ours, theirs = batch.logits_beside(live.chat, states, live.adapted_head)
            again, kept = ours.split([refused, len(states)])
            loss = surprisals(again, batch.targets[:refused]).sum() / part.refuse_tokens
            loss = loss + KL_WEIGHT * divergences(kept, theirs).sum() / part.keep_tokens
            loss.backward()
        total += float(loss.detach())
    return total, live.gradient()
