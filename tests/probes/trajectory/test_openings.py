"""Refusing openings: what parts refusals from answers, and its probability by brute force over whole vocabularies."""

from itertools import product

import pytest
import torch

from vlsurgery.probes.models import load
from vlsurgery.probes.trajectory.openings import OpeningFork, opening_log_odds, refusal_openings
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.errors import SurgeryError


def test_an_opening_is_as_short_as_it_can_be() -> None:
    found = refusal_openings([[1, 2, 3, 4], [1, 2, 3, 5], [7, 8], [7, 9]], [[1, 2, 6], [4, 4]])
    assert set(found.openings) == {(1, 2, 3), (7,)}
    assert found.forks[()] == OpeningFork((7,), (1,))
    assert found.forks[1,] == OpeningFork((), (2,))
    assert found.paths == [(1, 2)]


def test_a_refusal_alone_opens_nothing_as_it_may_begin_with_its_topic() -> None:
    assert refusal_openings([[1, 2], [1, 3], [8, 2]], [[4]]).openings == [(1,)]


def test_few_answers_that_begin_as_refusals_do_are_taken_for_errors_of_the_judge() -> None:
    refusals = [[1, 2]] * 10
    assert refusal_openings(refusals, [[1, 2]] + [[3]] * 39).openings == [(1,)]
    with pytest.raises(SurgeryError, match=r"of the base's 10 refusals, no 2 begin .* --prompts FILE:harmful"):
        refusal_openings(refusals, [[1, 2]] * 3 + [[3]] * 37)


def test_nothing_to_find_is_said() -> None:
    for refusals in ([], [[1, 2]], [[1], [2]]):
        with pytest.raises(SurgeryError, match=f"of the base's {len(refusals)} refusals"):
            refusal_openings(refusals, [[5]])


def test_the_odds_are_those_of_all_ways_to_go_on(taught_run) -> None:
    """An oracle that writes every continuation of two tokens out, and sums up those that begin with an opening."""
    chat = load(Checkpoint.open(taught_run.base))
    prompts = taught_run.prompts[:2] + taught_run.prompts[-2:]
    openings = refusal_openings([[5, 6], [5, 6], [9, 1], [9, 2]], [[5, 7]])
    assert set(openings.openings) == {(5, 6), (9,)}
    found = opening_log_odds(chat, prompts, openings)
    for prompt, odds in zip(chat.encode(prompts), found, strict=True):
        share = 0.0
        with torch.no_grad():
            first = chat.model(prompt.ids[None]).logits[0, -1].double().softmax(-1)
            for one, two in product((5, 9), range(len(first))):
                if (one, two) == (5, 6) or one == 9:
                    behind = torch.tensor([*prompt.ids.tolist(), one])[None]
                    share += float(first[one] * chat.model(behind).logits[0, -1].double().softmax(-1)[two])
        assert odds.item() == pytest.approx(torch.logit(torch.tensor(share, dtype=torch.float64)).item(), abs=1e-4)


def test_a_batch_is_its_prompts_alone(taught_run) -> None:
    chat = load(Checkpoint.open(taught_run.base))
    openings = refusal_openings([[5, 6], [5, 6]], [[5, 7]])
    whole = opening_log_odds(chat, taught_run.prompts, openings)
    for at in (0, 7, len(whole) - 1):
        alone = opening_log_odds(chat, [taught_run.prompts[at]], openings)
        assert alone.item() == pytest.approx(whole[at].item(), abs=1e-4)
    assert opening_log_odds(chat, [], openings).shape == (0,)
