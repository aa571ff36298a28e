"""One prompt, layer by layer: by hand, alone and among others, with and without a picture."""

import pytest
import torch

from vlsurgery.probes.activations import capture
from vlsurgery.probes.models import ChatModel, load
from vlsurgery.probes.next_tokens import next_tokens, read_openings
from vlsurgery.probes.prompt_reading import read_layers
from vlsurgery.probes.prompts import Prompt
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.errors import SurgeryError

OPENINGS = [7, 12]


@pytest.fixture(scope="module")
def adapted(trio) -> ChatModel:
    return load(Checkpoint.open(trio.adapted))


@pytest.fixture(scope="module")
def directions(adapted) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return 5 * torch.randn(len(adapted.blocks), 32, generator=generator)


@pytest.mark.parametrize("modality", ["text", "benign"])
def test_the_lens_ends_at_the_model_s_own_log_odds(adapted, directions, asked, modality) -> None:
    prompts = [prompt for prompt in asked if prompt.modality == modality]
    found = read_layers(adapted, prompts, directions, "-1", OPENINGS)
    own = read_openings(adapted, next_tokens(adapted, prompts), torch.tensor(OPENINGS)).odds
    torch.testing.assert_close(found.odds[:, -1], own, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(found.odds[:, 0], own, atol=1e-2)


@pytest.mark.parametrize(("position", "at"), [("instruction", 0), ("-1", -1)])
def test_projections_are_dot_products_and_do_not_depend_on_the_batch(adapted, directions, asked, position, at) -> None:
    prompts = [prompt for prompt in asked if prompt.modality == "text"]
    found = read_layers(adapted, prompts, directions, position, OPENINGS)
    for row, prompt in enumerate(prompts[:3]):
        (streams,) = capture(adapted, adapted.encode([prompt]))
        wanted = [float(s @ d / d.norm()) for s, d in zip(streams.values[0, at], directions, strict=True)]
        assert found.along[row].tolist() == pytest.approx(wanted, abs=1e-4)
        alone = read_layers(adapted, [prompt], directions, position, OPENINGS)
        torch.testing.assert_close(alone.odds[0], found.odds[row], atol=1e-4, rtol=1e-4)


def test_the_length_of_a_direction_does_not_matter_and_its_sign_does(adapted, directions, asked) -> None:
    prompts = asked[:2]
    once, longer, other = (
        read_layers(adapted, prompts, scale * directions, "-1", OPENINGS).along for scale in (1, 9, -1)
    )
    torch.testing.assert_close(once, longer)
    torch.testing.assert_close(once, -other)


def test_the_model_is_left_as_it_was(adapted, directions, asked) -> None:
    before = [dict(module._forward_hooks) for module in adapted.model.modules()]
    read_layers(adapted, asked[:2], directions, "-1", OPENINGS)
    assert [dict(module._forward_hooks) for module in adapted.model.modules()] == before


def test_without_openings_there_is_no_lens(adapted, directions, asked) -> None:
    assert read_layers(adapted, asked[:2], directions, "-1", []).odds is None


def test_what_does_not_fit_is_said(adapted, directions) -> None:
    prompt = Prompt("p", "p", "harmful", "i want to kill the cat", "report")
    with pytest.raises(SurgeryError, match=r"no position -9, only instruction, .*-1"):
        read_layers(adapted, [prompt], directions, "-9", [])
    with pytest.raises(SurgeryError, match=r"\[2, 32\] .*\[3, 32\]"):
        read_layers(adapted, [prompt], directions[:2], "-1", [])
