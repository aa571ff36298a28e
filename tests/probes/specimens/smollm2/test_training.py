"""The loop: small steps add up in bfloat16, and what is not trained stays."""

import torch
from torch import nn

from vlsurgery.probes.specimens.smollm2.config import Lesson
from vlsurgery.probes.specimens.smollm2.training import Masters, train


def test_steps_too_small_for_bfloat16_add_up() -> None:
    # Between 1 and .996 there is no bfloat16: a step of 1e-4 alone would round away.
    weight = nn.Parameter(torch.ones(4, dtype=torch.bfloat16))
    masters = Masters([weight])
    for _ in range(100):
        weight.sum().backward()
        masters.step(1e-4)
    assert torch.allclose(weight.float(), torch.full((4,), 0.99), atol=0.003)


def test_training_finds_a_minimum_and_reports_every_step() -> None:
    weight = nn.Parameter(torch.tensor([3.0, -2.0]))
    seen: list[int] = []
    losses = train([weight], [lambda: (weight**2).sum()] * 60, Lesson(60, 0.2, {}), seen.append)
    assert seen == list(range(61))
    assert losses[0] == 13.0
    assert losses[-1] < 0.05
    assert weight.grad is None
