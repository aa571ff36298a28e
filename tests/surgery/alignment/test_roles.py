"""Which role plays which part, and the names of models that users give in order."""

import string

from hypothesis import given, strategies as st

from vlsurgery.surgery.alignment.roles import named_roles, safety_role, safety_roles


def test_the_safety_role_is_the_plain_one_or_the_first() -> None:
    assert safety_role(["base", "adapted"]) is None
    assert safety_role(["base", "safety:b", "safety:a"]) == "safety:b"
    assert safety_role(["safety:a", "safety"]) == "safety"
    assert safety_roles(["safety:a", "base", "safety", "safetynet"]) == ("safety", "safety:a")


def test_one_safety_tuned_model_is_safety_and_more_bear_their_names() -> None:
    assert named_roles("b", "a") == {"base": "b", "adapted": "a"}
    found = named_roles("b", "a", ["runs/sft/", "runs/dpo/", "org/mild", "other/dpo", "x/dpo-6", "dpo"])
    assert found == {
        "base": "b",
        "adapted": "a",
        "safety": "runs/sft/",
        "safety:dpo": "runs/dpo/",
        "safety:mild": "org/mild",
        "safety:dpo-4": "other/dpo",
        "safety:dpo-6": "x/dpo-6",
        "safety:dpo-7": "dpo",
    }


@given(st.lists(st.text(string.ascii_lowercase[:2] + "/-3", min_size=1, max_size=4), max_size=6))
def test_every_model_has_a_role_of_its_own(references: list[str]) -> None:
    found = named_roles("b", "a", references)
    assert list(found.values()) == ["b", "a", *references]
    assert safety_roles(found) == tuple(found)[2:]
