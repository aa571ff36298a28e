"""The loop: small steps add up in bfloat16, and what is not trained stays."""

import pytest
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
        masters.gather()
        masters.step(1e-4)
    assert torch.allclose(weight.float(), torch.full((4,), 0.99), atol=0.003)


def test_training_finds_a_minimum_and_reports_every_step() -> None:
    weight = nn.Parameter(torch.tensor([3.0, -2.0]))
    seen: list[int] = []
    losses = train([weight], [[lambda: (weight**2).sum()]] * 60, Lesson(60, 0.2, {}), seen.append)
    assert seen == list(range(61))
    assert losses[0] == 13.0
    assert losses[-1] < 0.05
    assert weight.grad is None


def test_parts_of_a_loss_take_the_step_of_their_sum() -> None:
    parts = [lambda weight: (weight[0] - 3) ** 2, lambda weight: weight[1] ** 4, lambda weight: weight.prod()]
    found = []
    for together in (True, False):
        weight = nn.Parameter(torch.tensor([1.0, 2.0]))
        whole = [lambda weight=weight: sum(part(weight) for part in parts)]
        apart = [lambda weight=weight, part=part: part(weight) for part in parts]
        losses = train([weight], [whole if together else apart] * 5, Lesson(5, 0.1, {}))
        found.append((weight.detach().clone(), losses))
    assert torch.allclose(found[0][0], found[1][0])
    assert found[0][1] == pytest.approx(found[1][1])


def test_gradients_add_up_in_float32() -> None:
    # 1 and then 100 times .001: in bfloat16 the small ones would round away.
    weight = nn.Parameter(torch.zeros(1, dtype=torch.bfloat16))
    masters = Masters([weight])
    for slope in (1.0, *[0.001] * 100):
        (weight * slope).sum().backward()
        masters.gather()
        assert weight.grad is None
    assert masters.gathered[0].item() == pytest.approx(1.1, abs=1e-3)
