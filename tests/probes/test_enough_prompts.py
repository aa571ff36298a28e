"""How many prompts the choice of coefficients takes, and what is said where no refusal was lost."""

import numpy as np
import pytest
import torch

from vlsurgery.probes.enough_prompts import MIN_REQUESTS, check_enough, nothing_lost
from vlsurgery.probes.objective import requirements
from vlsurgery.probes.objective_scorer import ObjectiveScorer
from vlsurgery.probes.prompts import Prompt
from vlsurgery.probes.targets import LostRefusal, WorkingSet
from vlsurgery.surgery.errors import SurgeryError

IDS = torch.tensor([1])


def working(refused: int, lost: int, kept: int, wrappers: int = 1) -> WorkingSet:
    """So many requests that the base refuses, were lost, and are answered; harmful ones wrapped in several prompts."""
    harmful = [Prompt(f"{i}/{j}", str(i), "harmful", "x", "select") for i in range(refused) for j in range(wrappers)]
    gone = [LostRefusal(prompt, IDS, IDS) for prompt in harmful if int(prompt.request) < lost]
    keep = [(Prompt(f"k{i}", f"k{i}", "harmless", "x", "select"), IDS) for i in range(kept)]
    return WorkingSet(tuple((prompt, IDS) for prompt in harmful), tuple(gone), tuple(keep))


def test_enough_is_enough():
    check_enough(working(MIN_REQUESTS, MIN_REQUESTS, 1), "select")


def test_prompts_of_one_request_count_once_and_what_is_needed_follows_from_the_share_that_was_lost():
    """Of 20 requests 2 were lost: 4 take 40, and a fifth of all become select, so 200."""
    with pytest.raises(SurgeryError) as error:
        check_enough(working(20, 2, 5, wrappers=3), "select")
    assert "the base refuses 60 and the adapted model answers 6 of those, from 2 requests" in str(error.value)
    assert "at least 4 requests" in str(error.value)
    assert "about 200 harmful requests in all, 20% of which become select" in str(error.value)
    assert "\n" not in str(error.value)
    with pytest.raises(SurgeryError, match="about 134 harmful requests in all, 30% of which become fit"):
        check_enough(working(20, 2, 5), "fit")


def test_a_base_that_refuses_nothing_and_models_that_answer_nothing_are_told_with_figures():
    with pytest.raises(SurgeryError, match="the base refuses 0 and the adapted model answers 0 of those"):
        check_enough(working(0, 0, 5), "select")
    with pytest.raises(SurgeryError, match=r"of the others it answers 0\. .* --prompts FILE:harmless"):
        check_enough(working(9, 9, 0), "select")


def test_nothing_is_to_repair_only_where_enough_is_refused_and_none_of_it_was_lost():
    whole = working(MIN_REQUESTS, 0, 3)
    said = nothing_lost([whole, whole])
    assert said is not None
    assert "of the 8 harmful fit and select prompts that the base refuses the adapted model answers none" in said
    assert "every coefficient is 0" in said
    assert nothing_lost([whole, working(MIN_REQUESTS, 1, 3)]) is None
    assert nothing_lost([whole, working(MIN_REQUESTS - 1, 0, 3)]) is None
    assert nothing_lost([whole, working(MIN_REQUESTS, 0, 0)]) is None


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_log_odds_that_are_no_number_name_their_prompt(value):
    class Batch:
        owner = torch.arange(2)

        def log_odds(self, _chat):
            return torch.tensor([1.0, value])

    wanted = requirements([(n, n, ("harmful", "text"), "refuse") for n in ("good", "bad")], np.zeros(2))
    with pytest.raises(SurgeryError, match=r"prompt bad: .* no finite number\. .* --dtype"):
        ObjectiveScorer(wanted, [Batch()], []).measure(None)
