"""A model's directions: the mean of harmful minus the mean of harmless residual streams, per position and layer.

Arditi et al., "Refusal in Language Models Is Mediated by a Single Direction" (arXiv 2406.11717), section 2.3. Means
are streamed in float64. Directions are made on `fit` prompts, selected on `select` and shown on `report`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vlsurgery.probes.activations import INSTRUCTION, capture, position_names
from vlsurgery.probes.evaluation.intervals import cluster_ids
from vlsurgery.probes.evaluation.separation import AUROC_ROUNDING, auroc, best_by_chance, separation
from vlsurgery.probes.models import ChatModel
from vlsurgery.probes.prompts import Prompt
from vlsurgery.probes.results import Estimate, Selected, SeparationRow
from vlsurgery.surgery.errors import SurgeryError


class RunningMean:
    """The mean of tensors of one shape, accumulated in float64."""

    def __init__(self) -> None:
        self.count = 0
        self._sum: Tensor | None = None

    def add(self, values: Tensor) -> None:
        """Add values [n, ...] to the mean."""
        total = values.double().sum(0)
        self._sum = total if self._sum is None else self._sum + total
        self.count += len(values)

    @property
    def mean(self) -> Tensor:
        if self._sum is None:
            raise ValueError("no value was added, so there is no mean")
        return self._sum / self.count


@dataclass(frozen=True)
class Directions:
    """Directions of one model and modality, candidates for a refusal direction.

    positions: names, in the order of the tensors' first dimension.
    values: [positions, layers, hidden] float64, not normalised. halves: the same from each half of the requests.
    """

    positions: tuple[str, ...]
    values: Tensor
    halves: tuple[Tensor, Tensor]

    @property
    def units(self) -> Tensor:
        """Directions of length 1; a direction of length 0 stays 0."""
        return torch.nn.functional.normalize(self.values, dim=-1)

    @property
    def split_half(self) -> Tensor:
        """Cosine between the directions of the halves, [positions, layers]: their reliability."""
        return torch.nn.functional.cosine_similarity(self.halves[0], self.halves[1], dim=-1)


def is_harmful(prompt: Prompt) -> bool:
    """Whether a prompt is on the harmful side of a contrast."""
    return prompt.set == "harmful"


def contrast(prompts: Sequence[Prompt], split: str, modality: str) -> list[Prompt]:
    """Harmful and harmless prompts of one split and modality."""
    return [p for p in prompts if p.split == split and p.modality == modality and p.set in ("harmful", "harmless")]


def difference_of_means(chat: ChatModel, prompts: Sequence[Prompt]) -> Directions:
    """Directions from contrasting prompts, both classes mixed.

    Raises SurgeryError where a class, or a half of one, is empty.
    """
    encoded = chat.encode(prompts)
    clusters = cluster_ids([prompt.request for prompt in prompts])
    means = {(harmful, half): RunningMean() for harmful in (True, False) for half in (0, 1)}
    for states in capture(chat, encoded):
        for value, at in zip(states.values, states.index, strict=True):
            means[is_harmful(prompts[at]), int(clusters[at] % 2)].add(value[None])
    short = [key for key, mean in means.items() if mean.count == 0]
    if short:
        raise SurgeryError(
            f"a direction needs at least two harmful and two harmless requests; found {len(prompts)} prompts "
            f"of {len(set(clusters.tolist()))} requests. Give more prompts with --prompts."
        )
    whole = []
    for harmful in (True, False):
        first, second = means[harmful, 0], means[harmful, 1]
        whole.append((first.mean * first.count + second.mean * second.count) / (first.count + second.count))
    halves = tuple(means[True, half].mean - means[False, half].mean for half in (0, 1))
    return Directions(tuple(position_names(encoded)), whole[0] - whole[1], (halves[0], halves[1]))


def projections(chat: ChatModel, prompts: Sequence[Prompt], directions: Directions) -> np.ndarray:
    """Projections of each prompt on each unit direction: [n, positions, layers] float64."""
    encoded = chat.encode(prompts)
    units = directions.units
    scores = np.empty((len(prompts), *units.shape[:2]))
    for states in capture(chat, encoded):
        scores[list(states.index)] = torch.einsum("npld,pld->npl", states.values.double(), units).numpy()
    return scores


@dataclass(frozen=True)
class SeparatedRole:
    """How well one model's directions separate. null: as `Selected.null`, of the best at the last instruction token."""

    rows: list[SeparationRow]
    null: float

    @property
    def best(self) -> Estimate:
        """The best AUROC over layers at the last instruction token."""
        return max((row.auroc for row in self.rows if row.position == INSTRUCTION), key=lambda each: each.value or 0.0)


def separate(
    chat: ChatModel, prompts: Sequence[Prompt], directions: Directions, role: str, modality: str
) -> SeparatedRole:
    """AUROC and d' of projections on the directions, on prompts that did not make them, with norms."""
    scores = projections(chat, prompts, directions)
    positive = np.array([is_harmful(prompt) for prompt in prompts])
    count, positions, layers = scores.shape
    requests = [prompt.request for prompt in prompts]
    estimates = separation(scores.reshape(count, -1), positive, requests)
    norms = directions.values.norm(dim=-1)
    rows = [
        SeparationRow(
            role=role,
            modality=modality,
            position=directions.positions[position],
            layer=layer,
            norm=float(norms[position, layer]),
            auroc=estimates[position * layers + layer][0],
            dprime=estimates[position * layers + layer][1],
        )
        for position in range(positions)
        for layer in range(layers)
    ]
    at = directions.positions.index(INSTRUCTION)
    return SeparatedRole(rows, best_by_chance(scores[:, at], positive, requests))


@dataclass(frozen=True)
class Separations:
    """How well each candidate direction separates prompts that did not make it.

    aurocs: [positions, layers]. best: the best layer at the last instruction token, with its ties. null: of the best
    over all positions and layers, as `Selected.null`.
    """

    aurocs: np.ndarray
    best: Selected
    null: float


def separations(chat: ChatModel, prompts: Sequence[Prompt], directions: Directions) -> Separations:
    """AUROC of every position and layer on `select` prompts, with nulls of the maxima. The first of ties is best."""
    scores = projections(chat, prompts, directions)
    positive, requests = np.array([is_harmful(prompt) for prompt in prompts]), [prompt.request for prompt in prompts]
    flat = scores.reshape(len(prompts), -1)
    areas = auroc(flat, positive).reshape(scores.shape[1:])
    at = directions.positions.index(INSTRUCTION)
    ties = [int(layer) for layer in np.flatnonzero(areas[at] > areas[at].max() - AUROC_ROUNDING)]
    best = Selected(
        layer=ties[0],
        position=INSTRUCTION,
        auroc=float(areas[at].max()),
        null=best_by_chance(scores[:, at], positive, requests),
        ties=ties[1:],
    )
    return Separations(areas, best, best_by_chance(flat, positive, requests))
