"""Refusing openings: what parts refusals from answers, and its probability by brute force over whole vocabularies."""

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
    """An oracle: one pass for the first token and one for the second, each a plain softmax over the vocabulary."""
    chat = load(Checkpoint.open(taught_run.base))
    prompts = taught_run.prompts[:2] + taught_run.prompts[-2:]
    openings = refusal_openings([[5, 6], [5, 6], [9, 1], [9, 2]], [[5, 7]])
    assert set(openings.openings) == {(5, 6), (9,)}
    found = opening_log_odds(chat, prompts, openings)
    for prompt, odds in zip(chat.encode(prompts), found, strict=True):
        with torch.no_grad():
            first = chat.model(prompt.ids[None]).logits[0, -1].double().softmax(-1)
            behind = torch.tensor([*prompt.ids.tolist(), 5])[None]
            second = chat.model(behind).logits[0, -1].double().softmax(-1)
        share = float(first[9] + first[5] * second[6])
        assert odds.item() == pytest.approx(torch.logit(torch.tensor(share, dtype=torch.float64)).item(), abs=1e-4)


def test_a_batch_is_its_prompts_alone(taught_run) -> None:
    chat = load(Checkpoint.open(taught_run.base))
    openings = refusal_openings([[5, 6], [5, 6]], [[5, 7]])
    whole = opening_log_odds(chat, taught_run.prompts, openings)
    for at in (0, 7, len(whole) - 1):
        alone = opening_log_odds(chat, [taught_run.prompts[at]], openings)
        assert alone.item() == pytest.approx(whole[at].item(), abs=1e-4)
    assert opening_log_odds(chat, [], openings).shape == (0,)
