"""What the cosine of two models' directions is if labels mean nothing.

Two models that were made of each other have much in common whatever is asked: the difference between any two halves of
the prompts lies alike in both. Labels are therefore shuffled by request, in the same way for both models, and the
cosine of the directions that they then give is the null. A random direction's cosine is far lower, and no test of
drift.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from scipy.special import ndtri
from torch import Tensor
from torch.nn.functional import cosine_similarity

DRAWS: Final = 200


@dataclass(frozen=True)
class LabelledStates:
    """States of prompts of both classes. values: [n, layers, hidden]. harmful: [n] bool. requests: of each prompt."""

    values: Tensor
    harmful: Tensor
    requests: tuple[str, ...]


def shuffled_cosines(first: LabelledStates, second: LabelledStates, seed: int = 0) -> Tensor:
    """[draws, layers] cosines of the differences of class means, with labels shuffled by request.

    A request keeps its labels or has them turned, with even odds, in both models alike; a harmful prompt and its
    harmless twin so swap them. Draws that leave a class of either without a prompt are left out.
    """
    signs = _signs([*first.requests, *second.requests], seed)
    made = [_contrasts(each, signs) for each in (first, second)]
    usable = torch.stack([weights.isfinite().all(1) for weights in made]).all(0)
    ours, theirs = (weights[usable] for weights in made)
    layers = [
        cosine_similarity(ours @ first.values[:, at].double(), theirs @ second.values[:, at].double(), dim=-1)
        for at in range(first.values.shape[1])
    ]
    return torch.stack(layers, dim=1)


def random_bound(width: int, layers: int, level: float = 0.95) -> float:
    """The quantile of the greatest size of a random direction's cosine with a fixed one, over independent layers.

    In d dimensions such a cosine has about the normal distribution of variance 1/d.
    """
    each = level ** (1 / layers)
    return float(min(1.0, ndtri((1 + each) / 2) / np.sqrt(width)))


def _signs(requests: Sequence[str], seed: int) -> dict[str, Tensor]:
    """[draws] of 1 and -1 for every request, whatever the order of requests."""
    names = sorted(set(requests))
    drawn = torch.from_numpy(np.random.default_rng(seed).choice([-1.0, 1.0], size=(len(names), DRAWS)))
    return dict(zip(names, drawn, strict=True))


def _contrasts(states: LabelledStates, signs: dict[str, Tensor]) -> Tensor:
    """[draws, n] weights that make the shuffled difference of class means; not finite where a class is empty."""
    turned = torch.stack([signs[request] for request in states.requests], dim=1)
    positive = (torch.where(states.harmful, 1.0, -1.0) * turned) > 0
    counts = positive.sum(1, keepdim=True).double()
    weights = torch.where(positive, 1.0 / counts, -1.0 / (positive.shape[1] - counts))
    empty = (counts == 0) | (counts == positive.shape[1])
    return weights.masked_fill(empty, torch.nan)
