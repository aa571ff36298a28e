import pytest
import torch

from vlsurgery.probes.specimens.miniature.config import TrainingStage
from vlsurgery.probes.specimens.miniature.training import reproducible_torch, train


def descend(stage, losses=None, after=lambda _steps: None):
    weight = torch.nn.Parameter(torch.tensor([3.0, -2.0]))
    taken = train([([weight], 1.0)], losses or [lambda: weight.square().sum()] * stage.steps, stage, after)
    return weight.detach(), taken


def test_training_lowers_the_loss_and_counts_its_steps():
    weight, taken = descend(TrainingStage(200, 0.1, {}))
    assert weight.norm() < 0.2
    assert taken == 200


def test_every_step_is_told_once_and_in_order():
    told = []
    descend(TrainingStage(7, 0.1, {}), after=told.append)
    assert told == [1, 2, 3, 4, 5, 6, 7]


def test_a_learning_rate_of_zero_moves_nothing():
    still, moving = (torch.nn.Parameter(torch.ones(1)) for _ in range(2))
    train([([still], 0.0), ([moving], 1.0)], [lambda: (still + moving).sum()] * 3, TrainingStage(3, 0.1, {}))
    assert still.item() == 1.0
    assert moving.item() < 1.0


def interrupted():
    with reproducible_torch(3):
        torch.rand(5)
        assert torch.get_num_threads() == 1
        raise KeyboardInterrupt


@pytest.mark.parametrize("threads", [1, 2])
def test_torch_settings_are_restored(threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        state = torch.get_rng_state()
        with pytest.raises(KeyboardInterrupt):
            interrupted()
        assert torch.get_num_threads() == threads
        assert torch.equal(torch.get_rng_state(), state)
        assert (torch.tensor(1e-40) * 1.0).item() != 0
    finally:
        torch.set_num_threads(before)


def test_the_same_seed_draws_the_same():
    with reproducible_torch(3):
        first = torch.rand(5)
    with reproducible_torch(3):
        assert torch.equal(torch.rand(5), first)
