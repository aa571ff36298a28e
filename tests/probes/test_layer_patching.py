"""Patching states of the graft into the adapted model: its ends, and the same by a hook of one's own."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from vlsurgery.probes.evaluation.intervals import resample
from vlsurgery.probes.in_memory_merge import InMemoryMerge
from vlsurgery.probes.layer_patching import MAX_LAYERS, PatchedOdds, patched_odds, patching, shares
from vlsurgery.probes.lens import evenly_from_last
from vlsurgery.probes.models import load
from vlsurgery.probes.next_tokens import next_tokens, read_openings
from vlsurgery.surgery.alignment import align

OPENINGS = [7, 11, 30]


@pytest.fixture(scope="module")
def live(trio):
    alignment = align(trio.checkpoints)
    return InMemoryMerge(load(trio.checkpoints["adapted"]), alignment.among(("adapted", "base")), ("base",))


@pytest.fixture(scope="module")
def pictured(asked):
    return [prompt for prompt in asked if prompt.set == "harmful" and prompt.modality == "benign"]


@pytest.fixture(scope="module")
def layers_alone(live):
    """The base's decoder blocks under the adapted model's final norm and head."""
    return {block: {"base": 1.0} for block in live.blocks if block[0].isdigit() or block == "embed"}


@pytest.fixture(scope="module")
def found(live, pictured, layers_alone):
    return patched_odds(live, layers_alone, pictured, OPENINGS)


def test_all_tokens_behind_the_last_layer_give_the_grafts_log_odds(found):
    assert found.layers == [0, 1, 2]
    assert found.patched["all"][-1] == pytest.approx(found.graft, abs=1e-4)
    assert not np.allclose(found.graft, found.adapted, atol=1e-2)


def test_behind_the_last_layer_only_the_token_that_is_read_counts(found):
    assert found.patched["text"][-1] == pytest.approx(found.graft, abs=1e-4)
    assert found.patched["image"][-1] == pytest.approx(found.adapted, abs=1e-4)
    assert not np.allclose(found.patched["image"][0], found.adapted, atol=1e-4)


def test_a_model_patched_into_itself_is_unchanged(live, pictured):
    same = patched_odds(live, live.everywhere(base=0.0), pictured, OPENINGS)
    for odds in same.patched.values():
        assert odds == pytest.approx(np.broadcast_to(same.adapted, odds.shape), abs=1e-5)
    result = patching(same, pictured)
    assert result.gap.value == pytest.approx(0, abs=1e-6)
    assert all(bound is None for each in result.curves for bound in each.low)


def test_the_model_is_left_as_it_was(live, pictured, found):
    again = read_openings(live.chat, next_tokens(live.chat, pictured), torch.tensor(OPENINGS)).odds
    assert again.numpy() == pytest.approx(found.adapted, abs=1e-5)


def test_image_tokens_are_patched_as_a_hook_by_hand_patches_them(live, pictured, layers_alone, found):
    chat, at, layer = live.chat, 3, 1
    (batch,) = chat.batches(chat.encode([pictured[at]]))
    image = torch.isin(batch.inputs["input_ids"], torch.tensor(chat.picture_ids))
    with torch.no_grad(), live.at(layers_alone):
        theirs = chat.model(**batch.inputs, output_hidden_states=True).hidden_states[layer + 1]
    handle = chat.blocks[layer].register_forward_hook(
        lambda module, args, output: torch.where(  # noqa: ARG005
            image[..., None], theirs, output if isinstance(output, torch.Tensor) else output[0]
        )
    )
    with torch.no_grad():
        logits = chat.model(**batch.inputs).logits[0, -1]
    handle.remove()
    assert found.patched["image"][layer, at] == pytest.approx(
        float(torch.logit(logits.double().softmax(-1)[OPENINGS].sum())), abs=1e-3
    )


def test_prompts_in_words_are_patched_at_all_tokens_alone(live, asked, layers_alone):
    words = [prompt for prompt in asked if prompt.modality == "text"][:2]
    assert [*patched_odds(live, layers_alone, words, OPENINGS).patched] == ["all"]


def test_shares_are_of_requests_and_have_an_interval_where_there_is_a_gap(pictured):
    twice = [*pictured[:2], replace(pictured[0], id="again")]
    adapted, graft = np.zeros(3), np.array([2.0, 4.0, 2.0])
    result = patching(PatchedOdds([5], adapted, graft, {"all": np.array([[1.0, 3.0, 1.0]])}), twice)
    assert (result.requests, result.gap.value, result.gap.n) == (2, 3.0, 2)
    (curve,) = result.curves
    assert curve.share == [pytest.approx(2 / 3, abs=1e-4)]
    assert curve.low[0] == pytest.approx(0.5)
    assert curve.high[0] == pytest.approx(0.75)


def test_no_interval_where_the_gap_may_be_nothing():
    gaps = np.array([1.0, -1.0, 1.0, -0.5])
    share, low, high = shares(gaps, gaps / 2, resample(4))
    assert share == pytest.approx(0.5)
    assert (low, high) == (None, None)
    assert shares(np.zeros(3), np.ones(3), resample(3)) == (None, None, None)
    assert shares(np.ones(1), np.ones(1), resample(1)) == (1.0, None, None)


@pytest.mark.parametrize(("count", "step"), [(3, 1), (16, 1), (17, 2), (30, 2), (80, 5)])
def test_deep_models_are_patched_behind_every_few_layers_the_last_among_them(count, step):
    layers = evenly_from_last(count, MAX_LAYERS)
    assert layers[-1] == count - 1
    assert len(layers) <= 16
    assert set(np.diff(layers).tolist()) == {step}
