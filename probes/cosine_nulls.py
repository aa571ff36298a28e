"""What the cosine of two models' directions is if labels mean nothing.

Two models that were made of each other have much in common whatever is asked: the difference between any two halves of
the prompts lies alike in both. Labels are therefore shuffled by request, in the same way for both models, and the
cosine of the directions that they then give is the null. A random direction's cosine is far lower, and no test of
drift.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from scipy.special import ndtri
from torch import Tensor
from torch.nn.functional import cosine_similarity

from vlsurgery.probes.tensor_file import tensor_file
from vlsurgery.surgery.errors import SurgeryError
from vlsurgery.surgery.runtime.atomic_file import replacing

DRAWS: Final = 200


@dataclass(frozen=True)
class LabelledStates:
    """States of prompts of both classes. values: [n, layers, hidden]. harmful: [n] bool. requests: of each prompt."""

    values: Tensor
    harmful: Tensor
    requests: tuple[str, ...]


def save_states(path: Path, states: Mapping[str, LabelledStates]) -> None:
    """Write states by position to a file, for other processes."""
    tensors = {f"values/{position}": each.values for position, each in states.items()}
    tensors |= {f"harmful/{position}": each.harmful for position, each in states.items()}
    requests = {position: json.dumps(each.requests) for position, each in states.items()}
    with replacing(path) as fresh:
        fresh.write_bytes(tensor_file(tensors, requests))


def load_states(path: Path) -> dict[str, LabelledStates]:
    """What `save_states` wrote. Raises SurgeryError where the file is gone or broken."""
    try:
        with safe_open(path, "pt") as file:
            return {
                position: LabelledStates(
                    file.get_tensor(f"values/{position}"),
                    file.get_tensor(f"harmful/{position}"),
                    tuple(json.loads(requests)),
                )
                for position, requests in (file.metadata() or {}).items()
            }
    except (OSError, SafetensorError, ValueError) as error:
        raise SurgeryError(
            f"{path}: the base's states can't be read ({error}). All workers must see the case's folder under the same "
            "path."
        ) from error


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
