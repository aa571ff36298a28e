"""The training loop of every lesson: AdamW on float32 copies of weights that may run in a shorter dtype."""

import math
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from vlsurgery.probes.specimens.smollm2.config import Lesson

MAX_NORM = 1.0  # of a step's gradient
BETAS = (0.9, 0.98)
WARMUP = 0.1  # share of the steps over which the rate rises
LEAST = 0.1  # share of the highest rate that is left at the end, where it falls


class Masters:
    """Weights in training, each with a float32 copy that takes the steps: in bfloat16 small steps would round away."""

    def __init__(self, weights: Sequence[nn.Parameter]) -> None:
        self._weights = list(weights)
        for weight in self._weights:
            weight.requires_grad_(True)
        self._copies = [weight.detach().float().clone() for weight in self._weights]
        self._optimizer = torch.optim.AdamW(self._copies, betas=BETAS, weight_decay=0.0, fused=True)

    def gather(self) -> None:
        """Add the gradients that the weights hold to those of the step, in float32, and set them free."""
        for weight, copy in zip(self._weights, self._copies, strict=True):
            if weight.grad is not None:
                found = weight.grad.float()
                copy.grad = found if copy.grad is None else copy.grad.add_(found)
                weight.grad = None

    @property
    def gathered(self) -> list[Tensor]:
        """The gradients of the step so far."""
        return [copy.grad for copy in self._copies if copy.grad is not None]

    def step(self, rate: float) -> None:
        """Take a step along the gathered gradients, clipped, and set them free."""
        nn.utils.clip_grad_norm_(self._copies, MAX_NORM)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.step()
        with torch.no_grad():
            for weight, copy in zip(self._weights, self._copies, strict=True):
                weight.copy_(copy)
        self._optimizer.zero_grad(set_to_none=True)


def train(
    weights: Sequence[nn.Parameter],
    losses: Iterable[Sequence[Callable[[], Tensor]]],
    lesson: Lesson,
    after: Callable[[int], None] = lambda _taken: None,
) -> list[float]:
    """The loss of each step.

    losses: the parts of each step's loss, whose sum it is: each part's memory is free before the next is worked out.
    after: called with the number of steps taken, before the first and after each of them.
    """
    masters = Masters(weights)
    found: list[float] = []
    after(0)
    for taken, parts in enumerate(losses):
        found.append(0.0)
        for part in parts:
            value = part()
            value.backward()
            masters.gather()
            found[-1] += value.item()
        masters.step(lesson.rate * share(taken, lesson))
        after(taken + 1)
    return found


def share(taken: int, lesson: Lesson) -> float:
    """The share of the highest rate at a step: it rises, then stays or falls along half a cosine."""
    warm = WARMUP * lesson.steps
    if taken < warm:
        return (taken + 1) / (warm + 1)
    if not lesson.falls:
        return 1.0
    return LEAST + (1 - LEAST) * 0.5 * (1 + math.cos(math.pi * (taken - warm) / (lesson.steps - warm)))
