"""A smaller budget asks a part of what a larger one asks, whole requests of it, and says how well that tells a rate."""

import pytest
from hypothesis import given, settings, strategies as st

from vlsurgery.cli.workflow.sample import MIN_REQUESTS, budget_seconds, sampled, shares, sizes_told
from vlsurgery.probes.prompts import Prompt, english_prompts
from vlsurgery.surgery.errors import SurgeryError

PROMPTS = english_prompts()
SHARE = st.floats(0, 1)
SEED = st.integers(0, 3)


def keys(prompts: list[Prompt]) -> set[tuple[str, str]]:
    return {(prompt.split, prompt.request) for prompt in prompts}


@settings(max_examples=12, deadline=None)
@given(SHARE, SHARE, SEED)
def test_more_budget_asks_what_less_asks_and_more(one: float, other: float, seed: int) -> None:
    less, more = (sampled(PROMPTS, share, seed) for share in sorted((one, other)))
    assert {prompt.id for prompt in less} <= {prompt.id for prompt in more}
    assert [prompt for prompt in more if prompt in less] == less  # in the order that they had


@settings(max_examples=12, deadline=None)
@given(SHARE, SEED)
def test_a_request_is_asked_whole_or_not_at_all(share: float, seed: int) -> None:
    asked = sampled(PROMPTS, share, seed)
    assert [prompt for prompt in PROMPTS if (prompt.split, prompt.request) in keys(asked)] == asked
    assert sampled(PROMPTS, share, seed) == asked


def test_every_set_keeps_some_requests_and_the_largest_share_is_all() -> None:
    least = sampled(PROMPTS, 0.0, 0)
    for split, name in {(prompt.split, prompt.set) for prompt in PROMPTS}:
        every, some = (len({p.request for p in each if (p.split, p.set) == (split, name)}) for each in (PROMPTS, least))
        assert some >= min(every, MIN_REQUESTS)
    assert len(least) < len(PROMPTS) / 2
    assert sampled(PROMPTS, shares(PROMPTS, 0)[-1], 0) == PROMPTS


def test_another_seed_asks_other_requests() -> None:
    assert keys(sampled(PROMPTS, 0.3, 0)) != keys(sampled(PROMPTS, 0.3, 1))


def test_what_a_sample_tells_is_said_beforehand() -> None:
    prompts = [Prompt(f"{n}", f"r{n}", "harmful", "x", "report") for n in range(48)]
    (line,) = sizes_told(prompts[:24], prompts)
    # Wilson's interval of .9 of 24: (.742, .967)
    assert line == "24 of 48 harmful requests are measured: a rate of 0.90 will be known to ±0.12"


def test_budgets_are_times() -> None:
    assert [budget_seconds(text) for text in ("90s", "10m", "1.5h", "full")] == [90, 600, 5400, None]
    for wrong in ("", "10", "m", "-1m", "0m", "1d", "1..5h", "tenm"):
        with pytest.raises(SurgeryError, match="expected a time such as 10m or 1h"):
            budget_seconds(wrong)
