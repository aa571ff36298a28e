import pytest
import torch

from vlsurgery.probes.activations import capture, position_names, recording
from vlsurgery.probes.contrasts import RunningMean, difference_of_means, is_harmful
from vlsurgery.probes.models import load
from vlsurgery.surgery.errors import SurgeryError


@pytest.fixture(scope="module")
def adapted(trio):
    return load(trio.checkpoints["adapted"])


def collect(chat, prompts, size=32):
    encoded = chat.encode(prompts)
    out = [None] * len(prompts)
    for states in capture(chat, encoded, size):
        for value, at in zip(states.values, states.index, strict=True):
            out[at] = value
    return torch.stack(out)


def test_a_batch_of_n_is_n_singles_with_and_without_pictures(adapted, asked):
    together = collect(adapted, asked)
    alone = torch.cat([collect(adapted, [prompt]) for prompt in asked])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_states_are_transformers_hidden_states_at_the_named_tokens(adapted, asked):
    names = position_names(adapted.encode(asked))
    assert names == ["instruction", "-2", "-1"]
    for prompt in (asked[0], asked[-1]):
        (batch,) = adapted.batches(adapted.encode([prompt]))
        with torch.no_grad():
            hidden = adapted.model(**batch.inputs, output_hidden_states=True).hidden_states
        (states,) = collect(adapted, [prompt])
        assert states.shape == (3, 3, 32)
        for layer in range(2):  # the last hidden state of transformers is after the final norm
            torch.testing.assert_close(states[:, layer], hidden[layer + 1][0, -3:], rtol=1e-4, atol=1e-5)


def test_hooks_are_gone_whatever_happens(adapted):
    rows, columns = torch.zeros(1, 1, dtype=torch.long), torch.zeros(1, 1, dtype=torch.long)
    before = [dict(block._forward_hooks) for block in adapted.blocks]  # transformers may have put its own there
    with pytest.raises(KeyError), recording(adapted.blocks, rows, columns):
        raise KeyError
    with pytest.raises(RuntimeError, match="did not run"), recording(adapted.blocks, rows, columns):
        pass
    assert [dict(block._forward_hooks) for block in adapted.blocks] == before


def test_a_broken_model_is_told_by_its_layer(trio, asked):
    chat = load(trio.checkpoints["base"])
    with torch.no_grad():
        chat.blocks[1].mlp.down_proj.weight.fill_(float("nan"))
    with pytest.raises(SurgeryError, match="after layer 1 is not finite"):
        collect(chat, asked[:2])


def test_finite_states_whose_sum_overflows_are_captured(trio, asked):
    chat = load(trio.checkpoints["base"])

    def huge(block, args, output):
        return torch.full_like(output, 3e38)

    handle = chat.blocks[1].register_forward_hook(huge)
    try:
        states = collect(chat, asked[:2])
    finally:
        handle.remove()
    assert states[:, :, 1].eq(3e38).all()


def test_a_running_mean_is_the_mean():
    values = torch.randn(50, 3, 4) * 1e3
    mean = RunningMean()
    for part in values.split(7):
        mean.add(part)
    torch.testing.assert_close(mean.mean, values.double().mean(0))
    with pytest.raises(ValueError, match="no value"):
        _ = RunningMean().mean


def test_a_direction_is_the_difference_of_class_means(adapted, asked):
    prompts = [prompt for prompt in asked if prompt.modality == "benign"]
    states = collect(adapted, prompts).double()
    harmful = torch.tensor([is_harmful(prompt) for prompt in prompts])
    directions = difference_of_means(adapted, prompts)
    torch.testing.assert_close(
        directions.values, states[harmful].mean(0) - states[~harmful].mean(0), rtol=1e-4, atol=1e-5
    )
    torch.testing.assert_close(directions.units.norm(dim=-1), torch.ones(3, 3, dtype=torch.float64))
    assert (directions.split_half.abs() <= 1 + 1e-9).all()


def test_too_few_requests_for_a_direction_say_so(adapted, asked):
    with pytest.raises(SurgeryError, match="at least two harmful and two harmless"):
        difference_of_means(adapted, [prompt for prompt in asked if prompt.set == "harmful"][:4])
