import pytest
import torch
from safetensors.torch import save_file

from vlsurgery.probes.gradients import PromptGradients, prompt_gradients
from vlsurgery.probes.in_memory_merge import InMemoryMerge
from vlsurgery.probes.models import load
from vlsurgery.probes.prompt_slopes import PromptSlopes
from vlsurgery.probes.scoring import refusal_choices, refusal_log_odds
from vlsurgery.surgery.alignment import align
from vlsurgery.surgery.errors import SurgeryError


@pytest.fixture
def live(trio):
    return InMemoryMerge(load(trio.checkpoints["adapted"]), align(trio.checkpoints), ("base", "safety"))


def choices(live, prompts, size=32):
    one, other = ([torch.tensor([token])] * len(prompts) for token in (5, 9))
    return refusal_choices(live.chat, prompts, one, other, size)


def found(live, prompts, size=32, **point):
    ids = [prompt.id for prompt in prompts]
    return prompt_gradients(live, live.everywhere(**point), choices(live, prompts, size), ids)


def test_each_prompts_gradient_is_the_slope_of_its_own_number(live, asked):
    made = found(live, asked, base=0.3, safety=0.2)
    assert made.prompts == tuple(prompt.id for prompt in asked)
    assert made.at.unique().tolist() == pytest.approx([0.2, 0.3])
    for block, source in (("embed", "base"), ("0.attn", "safety"), ("2.mlp", "base"), ("head", "safety")):
        ends = []
        for step in (-0.01, 0.01):
            place = live.everywhere(base=0.3, safety=0.2)
            place[block][source] += step
            with live.at(place) as chat:
                ends.append(refusal_log_odds(chat, choices(live, asked)))
        slope = made.jacobian[:, made.blocks.index(block), made.sources.index(source)].double()
        torch.testing.assert_close(slope, (ends[1] - ends[0]) / 0.02, rtol=0.02, atol=2e-4)


def test_the_batch_changes_nothing(live, asked):
    together, alone = found(live, asked, base=0.3), found(live, asked, size=1, base=0.3)
    torch.testing.assert_close(together.z, alone.z, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(together.jacobian, alone.jacobian, rtol=1e-3, atol=1e-5)


def test_their_mean_is_the_gradient_of_the_mean(live, asked):
    mean = found(live, asked).jacobian.double().mean(0)
    with live.differentiable():
        for batch in choices(live, asked):
            (batch.log_odds(live.chat).sum() / len(asked)).backward()
        torch.testing.assert_close(mean, live.gradient(), rtol=1e-4, atol=1e-6)


def test_activations_that_are_computed_again_give_the_same(live, asked, monkeypatch):
    before = found(live, asked, base=0.3)
    monkeypatch.setattr("vlsurgery.probes.models.forward.MAX_ACTIVATION_BYTES", 0)
    torch.testing.assert_close(found(live, asked, base=0.3).jacobian, before.jacobian, rtol=1e-4, atol=1e-6)


def test_deltas_may_be_read_in_any_chunks(live, asked, monkeypatch):
    before = found(live, asked, base=0.3)
    monkeypatch.setattr("vlsurgery.probes.merge_parameters.CHUNK_ENTRIES", 100)
    torch.testing.assert_close(found(live, asked, base=0.3).jacobian, before.jacobian, rtol=1e-4, atol=1e-6)


def test_the_model_is_as_it_was(live, asked):
    before = {name: value.clone() for name, value in live.chat.model.state_dict().items()}
    found(live, asked, base=0.3)  # in its first pass transformers sets hooks of its own
    hooks = [len(module._forward_hooks) for module in live.chat.model.modules()]
    found(live, asked, base=0.3)
    assert all(torch.equal(before[name], value) for name, value in live.chat.model.state_dict().items())
    assert all(value.grad is None and not value.requires_grad for value in live.chat.model.parameters())
    assert [len(module._forward_hooks) for module in live.chat.model.modules()] == hooks


def test_a_class_that_is_read_wrongly_is_run_prompt_by_prompt(live, asked, monkeypatch):
    """As one that mixes its prompts would be: the tokens' shares go to the wrong prompts."""
    before = found(live, asked, base=0.3)
    add = PromptSlopes._add
    mixed = []

    def shuffled(self, module, block, source, values):
        mixed.append(block)
        add(self, module, block, source, values.flip(0))

    monkeypatch.setattr(PromptSlopes, "_add", shuffled)
    torch.testing.assert_close(found(live, asked, base=0.3).jacobian, before.jacobian, rtol=1e-3, atol=1e-5)
    assert mixed


def test_a_file_gives_them_back(live, asked, tmp_path):
    made, path = found(live, asked, base=0.3), tmp_path / "gradients.safetensors"
    made.save(path)
    bytes_before = path.read_bytes()
    back = PromptGradients.load(path)
    assert (back.prompts, back.blocks, back.sources) == (made.prompts, made.blocks, made.sources)
    assert all(torch.equal(getattr(back, name), getattr(made, name)) for name in ("at", "z", "jacobian"))
    back.save(path)
    assert path.read_bytes() == bytes_before


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "gradients.safetensors"
    for content, reason in ((b"no such format", "can't be read"), (None, "holds no gradients")):
        if content is None:
            save_file({"a": torch.zeros(1)}, path)
        else:
            path.write_bytes(content)
        with pytest.raises(SurgeryError, match=reason):
            PromptGradients.load(path)
    nan = PromptGradients(
        ("a",), ("0.attn",), ("base",), torch.zeros(1, 1), torch.zeros(1), torch.full((1, 1, 1), torch.nan)
    )
    nan.save(path)
    with pytest.raises(SurgeryError, match="not finite"):
        PromptGradients.load(path)
