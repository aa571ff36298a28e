"""What adding the base's direction to the adapted model brings back of its lost refusals, beside random directions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from vlsurgery.probes.directions.choice import LATE_SHARE
from vlsurgery.probes.evaluation.intervals import Floats, resample
from vlsurgery.probes.evaluation.mean_intervals import request_means
from vlsurgery.probes.interventions import add
from vlsurgery.probes.layer_patching import PatchedOdds, shares
from vlsurgery.probes.lens import evenly_from_last
from vlsurgery.probes.models import ChatModel
from vlsurgery.probes.next_tokens import NextTokens, next_tokens, read_openings
from vlsurgery.probes.prompts import Prompt
from vlsurgery.probes.results import Estimate

RANDOMS: Final = 5
MAX_TRIED: Final = 8  # layers


@dataclass(frozen=True)
class BroughtBack:
    """What adding a direction behind a layer brings of the gap between adapted and graft: `added`, and `randoms` of
    random directions as long. layer: None where it was not measured; `added` has the reason."""

    layer: int | None
    added: Estimate
    randoms: tuple[float, ...] = ()


def random_directions(vector: Tensor, seed: int, count: int = RANDOMS) -> Tensor:
    """[count, hidden] random directions as long as a vector, always the same."""
    made = torch.Generator().manual_seed(seed)
    drawn = torch.randn(count, len(vector), generator=made, dtype=torch.float64)
    return torch.nn.functional.normalize(drawn, dim=1) * vector.double().norm().cpu()


def strongest_layer(chat: ChatModel, prompts: Sequence[Prompt], openings: Tensor, vectors: Tensor) -> int:
    """The layer whose direction, added behind it, raises the refusal log-odds of prompts most.

    vectors: [layers, hidden] one a layer. Of the layers before the last fifth, MAX_TRIED at most are tried: what is
    added later is too near to the tokens that it writes.
    """
    batches = next_tokens(chat, prompts)
    tried = evenly_from_last(max(1, int(len(vectors) * (1.0 - LATE_SHARE))), MAX_TRIED)
    return max(tried, key=lambda layer: float(_added(chat, batches, openings, vectors[layer], layer).mean()))


def brought_back(
    chat: ChatModel, prompts: Sequence[Prompt], openings: Sequence[int], vectors: Tensor, layer: int, found: PatchedOdds
) -> BroughtBack:
    """The part of the gap that adding the direction behind its layer brings, at all tokens.

    found: log-odds of the same prompts, of adapted and graft.
    """
    ids, batches = torch.tensor(list(openings), device=chat.device), next_tokens(chat, prompts)
    tried = [vectors[layer], *random_directions(vectors[layer], layer)]
    requests = [prompt.request for prompt in prompts]
    gaps = request_means(found.graft - found.adapted, requests)
    gains = [request_means(_added(chat, batches, ids, vector, layer) - found.adapted, requests) for vector in tried]
    value, low, high = shares(gaps, gains[0], resample(len(gaps)))
    reason = None if low is not None else "the graft's refusal log-odds are not clearly above the adapted model's"
    randoms = tuple(float(each.mean() / gaps.mean()) for each in gains[1:]) if gaps.mean() else ()
    return BroughtBack(layer, Estimate(value=value, low=low, high=high, n=len(gaps), reason=reason), randoms)


def _added(chat: ChatModel, batches: Sequence[NextTokens], ids: Tensor, vector: Tensor, layer: int) -> Floats:
    """[prompts] refusal log-odds with a vector added behind a layer."""
    with add(chat, vector, layers=layer):
        found: Floats = read_openings(chat, batches, ids).odds.numpy()
    return found
