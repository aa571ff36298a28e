"""The training loop of every stage."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from vlsurgery.probes.specimens.miniature.config import TrainingStage

MAX_GRADIENT_NORM = 1.0
BETAS = (0.9, 0.98)  # of AdamW


def train(
    groups: Sequence[tuple[Sequence[nn.Parameter], float]],
    losses: Iterable[Callable[[], Tensor]],
    stage: TrainingStage,
    after: Callable[[int], None] = lambda _steps: None,
) -> int:
    """The number of AdamW steps taken: one for each loss.

    groups: parameters, and the factor on the stage's learning rate for them. after: called with the number of steps
    taken after each of them.
    """
    optimizer = torch.optim.AdamW(
        [{"params": [*parameters], "lr": stage.rate * share} for parameters, share in groups],
        betas=BETAS,
        fused=True,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _schedule(step, stage))
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    taken = 0
    for loss in losses:
        optimizer.zero_grad()
        loss().backward()
        nn.utils.clip_grad_norm_(trained, MAX_GRADIENT_NORM)
        optimizer.step()
        schedule.step()
        taken += 1
        after(taken)
    return taken


def _schedule(step: int, stage: TrainingStage) -> float:
    """The learning rate at a step as a share of the highest: linear warm-up, then constant or a half cosine."""
    warm = stage.warmup * stage.steps
    if step < warm:
        return (step + 1) / (warm + 1)
    if not stage.decays:
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / (stage.steps - warm)))


@contextmanager
def reproducible_torch(seed: int) -> Iterator[None]:
    """One torch thread, a seeded generator and no denormals within the block; all are restored on exit.

    One thread, because the order of sums over several is not fixed, and models this small gain little from more.
    Denormal numbers make the late steps several times slower.
    """
    threads = torch.get_num_threads()
    flushed = bool(torch.tensor(1e-40) * 1.0 == 0)
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(threads)
        torch.set_flush_denormal(flushed)
