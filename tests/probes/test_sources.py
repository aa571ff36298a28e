"""What merges go toward."""

from typing import get_args

import pytest

from vlsurgery.probes.policies import Toward
from vlsurgery.probes.sources import toward_of, toward_roles

CASE = ("base", "adapted", "safety", "safety:dpo", "merged")


def test_all_safety_tuned_models_are_sources():
    assert toward_roles(CASE, "both") == ("base", "safety", "safety:dpo")
    assert toward_roles(CASE, "safety") == ("safety", "safety:dpo")
    assert toward_roles(CASE, "base") == ("base",)
    assert toward_roles(("base", "adapted"), "both") == ("base",)
    assert toward_roles(("base", "adapted"), "safety") == ()


@pytest.mark.parametrize("toward", get_args(Toward))
def test_the_choice_can_be_told_from_the_sources(toward: Toward):
    assert toward_of(toward_roles(CASE, toward)) == toward
