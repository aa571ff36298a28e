"""Patching the graft's residual stream into the adapted model, layer by layer: what the picture does, and where.

The graft is the adapted model at the base's weights. Its states behind layer l are put into the adapted model at all
tokens, at those of the picture alone, or at the others: how much of the difference in refusal log-odds comes back
tells behind which layer, and at which tokens, the refusal is there (Meng et al., arXiv 2202.05262; Zhang and Nanda,
arXiv 2309.16042). Behind the last layer all tokens give the graft's log-odds, but for its final norm and head.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, get_args

import numpy as np
import torch
from torch import Tensor

from vlsurgery.probes.evaluation.intervals import Floats, percentiles, resample
from vlsurgery.probes.evaluation.mean_intervals import mean_estimate, request_means
from vlsurgery.probes.in_memory_merge import BlockCoefficients, InMemoryMerge
from vlsurgery.probes.interventions import Recording, patch, record
from vlsurgery.probes.layer_results import PatchCurve, PatchedTokens, Patching
from vlsurgery.probes.lens import evenly_from_last, rounded
from vlsurgery.probes.models import ChatModel
from vlsurgery.probes.models.points import RunningModel
from vlsurgery.probes.next_tokens import NextTokens, next_tokens, opening_odds
from vlsurgery.probes.prompts import Prompt
from vlsurgery.surgery.runtime.progress import Progress, no_progress

MAX_LAYERS: Final = 16  # behind which is patched; deeper models are patched behind every second one, or every third
MAX_STATES_BYTES: Final = 2**30  # of the graft's states that are kept at once
MAX_BATCH: Final = 8
TOKENS: Final[tuple[PatchedTokens, ...]] = get_args(PatchedTokens)


def shares(gaps: Floats, gains: Floats, weights: Floats) -> tuple[float | None, float | None, float | None]:
    """The part of the mean gap [requests] that the mean gain makes up, with its 95% bootstrap interval.

    weights: bootstrap draws [draws, requests]. The share has no interval where the gap's own holds 0, and is missing
    where the mean gap is 0.
    """
    if gaps.mean() == 0:
        return None, None, None
    share = float(gains.mean() / gaps.mean())
    if len(gaps) < 2:
        return share, None, None
    drawn = weights @ gaps
    low, high = percentiles(drawn)
    if low <= 0 <= high:
        return share, None, None
    return share, *percentiles((weights @ gains) / drawn)


@dataclass(frozen=True)
class PatchedOdds:
    """Refusal log-odds in nats. adapted, graft: [prompts]. patched: kind of token -> [layers, prompts]."""

    layers: list[int]
    adapted: Floats
    graft: Floats
    patched: dict[PatchedTokens, Floats]


def patched_odds(
    live: InMemoryMerge,
    graft: BlockCoefficients,
    prompts: Sequence[Prompt],
    openings: Sequence[int],
    progress: Progress = no_progress,
) -> PatchedOdds:
    """Log-odds with the graft's states put behind each of some layers, at each kind of token.

    live: the adapted model. graft: the coefficients that make the other model of it; its final norm and head are not
    patched. openings: tokens with which refusals begin.
    """
    chat, ids = live.chat, torch.tensor(list(openings), device=live.chat.device)
    layers, kinds = evenly_from_last(len(chat.blocks), MAX_LAYERS), _kinds(chat, prompts)
    adapted, grafted = np.empty(len(prompts)), np.empty(len(prompts))
    patched = {kind: np.empty((len(layers), len(prompts))) for kind in kinds}
    rounds = list(_rounds(chat, next_tokens(chat, prompts, MAX_BATCH), len(layers)))
    for some in progress(rounds, "patching the graft's states into the adapted model", len(rounds)):
        with live.at(graft):
            recorded = [_recorded(chat, batch, layers, ids, grafted) for batch in some]
        for batch, states in zip(some, recorded, strict=True):
            at = batch.owner.cpu().numpy()
            adapted[at] = _odds(chat, batch, ids)
            for kind, odds in patched.items():
                for row, layer in enumerate(layers):
                    with patch(chat, states, layers=layer, tokens=None if kind == "all" else kind):
                        odds[row, at] = _odds(chat, batch, ids)
    return PatchedOdds(layers, adapted, grafted, patched)


def patching(found: PatchedOdds, prompts: Sequence[Prompt]) -> Patching:
    """Log-odds as shares of the gap, with intervals over requests. prompts: of one modality."""
    requests = [prompt.request for prompt in prompts]
    gaps = request_means(found.graft - found.adapted, requests)
    weights = resample(len(gaps))
    curves = []
    for kind, odds in found.patched.items():
        points = [shares(gaps, request_means(row - found.adapted, requests), weights) for row in odds]
        columns = [[rounded(each[at]) for each in points] for at in range(3)]
        curves.append(PatchCurve(tokens=kind, share=columns[0], low=columns[1], high=columns[2]))
    ends = (found.adapted, found.graft, found.graft - found.adapted)
    adapted, graft, gap = (mean_estimate(values.tolist(), requests) for values in ends)
    return Patching(
        modality=prompts[0].modality,
        layers=found.layers,
        adapted=adapted,
        graft=graft,
        gap=gap,
        curves=curves,
        requests=len(gaps),
    )


def _kinds(chat: ChatModel, prompts: Sequence[Prompt]) -> tuple[PatchedTokens, ...]:
    """Image and text tokens apart where pictures stand in the text as tokens."""
    return TOKENS if prompts[0].image is not None and chat.picture_ids else ("all",)


def _rounds(chat: ChatModel, batches: Sequence[NextTokens], layers: int) -> Iterator[list[NextTokens]]:
    """Batches whose states are kept together, so that the weights are moved as seldom as memory allows."""
    width, size = RunningModel.of(chat).width, next(chat.model.parameters()).element_size()
    some: list[NextTokens] = []
    kept = 0
    for batch in batches:
        needed = batch.inputs["input_ids"].numel() * width * size * layers
        if some and kept + needed > MAX_STATES_BYTES:
            yield some
            some, kept = [], 0
        some.append(batch)
        kept += needed
    if some:
        yield some


def _recorded(chat: ChatModel, batch: NextTokens, layers: Sequence[int], ids: Tensor, into: Floats) -> Recording:
    """The states of a batch behind some layers; its log-odds are put `into` their places."""
    with record(chat, layers=layers) as states:
        into[batch.owner.cpu().numpy()] = _odds(chat, batch, ids)
    return states


def _odds(chat: ChatModel, batch: NextTokens, ids: Tensor) -> Floats:
    with torch.no_grad():
        found: Floats = opening_odds(batch.logits(chat), ids).double().cpu().numpy()
    return found
