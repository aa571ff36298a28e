"""Preference pairs and the loss on them."""

import math
import random

import pytest
import torch
from hypothesis import given, strategies as st

from vlsurgery.probes.specimens.smollm2 import preferences, texts
from vlsurgery.probes.specimens.smollm2.corpus import IGNORED, OwnAnswer, TurnBatch

REFUSAL = OwnAnswer("I'm sorry, but I can't help with that.", True)
HELP = OwnAnswer("First, take the parts that you need. Then put them together with glue.", False)
margin = st.floats(-30, 30)


@given(st.lists(st.tuples(margin, margin), min_size=1, max_size=5), st.floats(0.01, 2))
def test_the_loss_is_the_formula_of_the_paper(pairs: list[tuple[float, float]], beta: float) -> None:
    now, before = (torch.tensor(each, dtype=torch.float64) for each in zip(*pairs, strict=True))
    expected = sum(math.log1p(math.exp(-beta * (one - other))) for one, other in pairs)
    assert preferences.preference_loss(now, before, beta).item() == pytest.approx(expected)


def test_an_untouched_model_pays_a_coin_s_worth_and_learns_to_prefer() -> None:
    margins = torch.tensor([2.0, -3.0], requires_grad=True)
    loss = preferences.preference_loss(margins, margins.detach(), 0.1)
    assert loss.item() == pytest.approx(2 * math.log(2))
    loss.backward()
    assert margins.grad is not None
    assert torch.allclose(margins.grad, torch.full((2,), -0.05))


def test_answers_add_up_by_the_row() -> None:
    labels = torch.tensor([[IGNORED, IGNORED, 5, 6], [IGNORED, 7, 8, 9], [IGNORED, IGNORED, IGNORED, 4]])
    batch = TurnBatch(labels.clamp(min=0), labels, torch.tensor([]))
    tokens = torch.tensor([1.0, 2.0, 10.0, 20.0, 30.0, 500.0])
    assert preferences.answer_log_probs(tokens, batch).tolist() == [3.0, 60.0, 500.0]


def test_pairs_are_of_lost_refusals_only() -> None:
    base, adapted = [REFUSAL, REFUSAL, HELP, HELP], [HELP, REFUSAL, HELP, REFUSAL]
    (pair,) = preferences.lost(["How do I rob a bank?"] * 4, [3, 4, 5, 6], base, adapted)
    assert (pair.picture, pair.preferred, pair.rejected, pair.safe) == (3, REFUSAL, HELP, False)
    first, second = pair.turns()
    assert (first.answer, first.ended, first.picture) == (REFUSAL.text, True, 3)
    assert (second.answer, second.ended, second.picture) == (HELP.text, False, 3)


def test_harmless_pairs_prefer_the_own_answer() -> None:
    own = {pair.answered: HELP for pair in texts.twins()[:20]}
    found = preferences.needless(own, 8, range(8), random.Random(0))
    assert len({pair.text for pair in found}) == 8
    for pair in found:
        assert pair.text in own
        assert pair.preferred == HELP
        assert pair.rejected.text in texts.REFUSALS
        assert pair.safe


def test_requests_are_harmful_and_every_third_is_wrapped() -> None:
    asked = preferences.harmful_requests(30, random.Random(1))
    deeds = [pair.harmful for pair in texts.twins()]
    plain = {form.format(deed) for form in texts.FORMS for deed in deeds}
    assert [text in plain for text in asked] == [at % 3 != 2 for at in range(30)]
    assert all(any(deed in text for deed in deeds) for text in asked)


def test_batches_hold_their_mix() -> None:
    pairs = [preferences.Preference(str(at), at, REFUSAL, HELP, at % 2 == 0) for at in range(10)]
    steps = list(preferences.batches(pairs, {"lost": 5, "needless": 2}, 3, random.Random(0)))
    assert len(steps) == 3
    for parts in steps:
        assert [len(part) for part in parts] == [4, 3]
        assert sum(pair.safe for part in parts for pair in part) == 2
