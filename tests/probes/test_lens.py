"""The logit lens: its last layer is the model's own word, and another way to read each layer gives the same."""

import numpy as np
import pytest
import torch

from vlsurgery.probes.layer_readings import LayerReadings, shown_prompts
from vlsurgery.probes.lens import curve, lens_odds, read_out
from vlsurgery.probes.models import load
from vlsurgery.probes.next_tokens import next_tokens, opening_odds, read_openings

OPENINGS = [7, 11, 30]


@pytest.fixture(scope="module", params=["base", "adapted"])
def chat(trio, request):
    return load(trio.checkpoints[request.param])


@pytest.fixture(scope="module")
def readings(chat, every):
    found = LayerReadings()
    found.take("base", "text", chat, every, OPENINGS, None)
    return found


def test_behind_the_last_layer_the_lens_reads_what_the_model_says(chat, every, readings):
    for row in readings.lens:
        asked = shown_prompts(every, row.set, "text")
        own = read_openings(chat, next_tokens(chat, asked), torch.tensor(OPENINGS)).odds
        assert row.value[-1] == pytest.approx(float(own.mean()), rel=1e-3)
        assert row.requests == len(asked) == 32


def test_every_layer_is_read_as_its_norm_and_head_read_it(chat, every, readings):
    """By hand: transformers' own hidden states, one prompt at a time, through the norm and the head's matrix."""
    model = chat.model
    stack = model.model.language_model if hasattr(model.model, "language_model") else model.model
    asked = shown_prompts(every, "harmful", "text")
    by_hand = np.empty((len(asked), 3))
    for at, item in enumerate(chat.encode(asked)):
        with torch.no_grad():
            states = model(input_ids=item.ids[None], output_hidden_states=True).hidden_states
            for layer in range(3):
                last = states[layer + 1][0, -1]
                logits = (stack.norm(last) if layer < 2 else last) @ model.lm_head.weight.T
                chances = logits.softmax(-1)[OPENINGS].sum()
                by_hand[at, layer] = torch.logit(chances.double())
    (row,) = [each for each in readings.lens if each.set == "harmful"]
    assert row.value == pytest.approx(by_hand.mean(0).tolist(), rel=2e-3, abs=2e-3)


def test_each_kind_of_prompt_has_a_curve_and_none_without_openings(chat, every, readings):
    assert [row.set for row in readings.lens] == ["harmful", "harmless", "borderline"]
    assert all(row.layers == [0, 1, 2] for row in readings.lens)
    silent = LayerReadings()
    silent.take("base", "text", chat, every, [], None)
    assert silent.lens == []


def test_states_are_read_alike_however_many_at_once(chat, every):
    encoded = chat.encode(shown_prompts(every, "harmful", "text")[:2])
    states = torch.randn(5, 3, 32, generator=torch.Generator().manual_seed(0))
    read, ids = read_out(chat, encoded), torch.tensor(OPENINGS)
    whole = lens_odds(states, read, ids, 15)
    assert torch.allclose(whole, lens_odds(states, read, ids, 4), atol=1e-5)
    assert whole.shape == (5, 3)
    again = read_out(chat, encoded)(states[0])
    assert torch.equal(again, read_out(chat, encoded)(states[0]))
    assert not torch.equal(again, read_out(chat, encoded)(states[1]))


def test_odds_count_the_openings_together():
    logits = torch.log(torch.tensor([0.2, 0.3, 0.5]))
    assert float(opening_odds(logits, torch.tensor([0, 1]))) == pytest.approx(0.0, abs=1e-6)
    assert float(opening_odds(logits, torch.tensor([0]))) == pytest.approx(np.log(0.25), abs=1e-6)


def test_a_curve_averages_requests_and_not_prompts():
    where = {"role": "base", "modality": "text", "set": "harmful"}
    row = curve(np.array([[0.0, 1.0], [0.0, 1.0], [3.0, 1.0]]), ["a", "a", "b"], where, [0, 1])
    assert row.value == [1.5, 1.0]
    assert row.requests == 2
    assert row.low[1] == row.high[1] == 1.0
    assert row.low[0] < 0.0 < 3.0 < row.high[0]
    alone = curve(np.array([[2.0]]), ["a"], where, [0])
    assert (alone.value, alone.low, alone.high) == ([2.0], [None], [None])
