"""The most specific key decides for every role; what is not text is left alone unless it is named."""

import math

import pytest
from hypothesis import given, strategies as st

from vlsurgery.surgery.architecture.site import Site
from vlsurgery.surgery.errors import RecipeError
from vlsurgery.surgery.merge.coefficients import Coefficients
from vlsurgery.surgery.merge.recipe_keys import keys_of

GATE = Site("text", 3, "mlp.gate")
# From the most specific key of this site to the least.
LADDER = ["text.3.mlp.gate", "3.mlp", "mlp.gate", "3", "default", "everywhere"]


@given(st.sets(st.sampled_from(LADDER)))
def test_the_most_specific_key_wins(keys: set[str]) -> None:
    table = {key: {"base": LADDER.index(key) / 10} for key in keys}
    winner = next((key for key in LADDER if key in keys), None)
    assert Coefficients(table).resolve(GATE) == (table[winner] if winner else {})


def test_the_ladder_is_what_the_site_says() -> None:
    assert list(keys_of(GATE)) == LADDER
    assert keys_of(Site("text", None, "embed")) == ("text.embed", "embed", "embed", "default", "everywhere")
    assert keys_of(Site("text", 3, "norm.mlp"))[1] == "3.mlp"


@pytest.mark.parametrize("site", [Site("vision", 3, "attn.q"), Site("projector", None, "raw:linear_1.weight")])
def test_outside_of_text_only_its_own_names_count(site: Site) -> None:
    loud = Coefficients({key: {"base": 1.0} for key in ("default", "3", "attn.q", "3.attn", "raw:linear_1.weight")})
    assert loud.resolve(site) == {}
    assert Coefficients({site.block or "": {"safety": 0.5}}).resolve(site) == {"safety": 0.5}
    assert Coefficients({site.key: {"safety": 0.25}, site.block or "": {"safety": 0.5}}).resolve(site) == {
        "safety": 0.25
    }


@pytest.mark.parametrize("coefficient", [-0.01, 1.01, math.nan, math.inf])
def test_coefficients_lie_between_0_and_1(coefficient: float) -> None:
    with pytest.raises(RecipeError, match=r"3\.mlp\.base: .* is not between 0 and 1"):
        Coefficients({"3.mlp": {"base": coefficient}})


@pytest.mark.parametrize("key", ["", "3.mpl", "mlp", "layer 3", "Default", "-1", "3.", "txt.3.mlp.gate"])
def test_a_key_that_names_nothing_is_refused(key: str) -> None:
    with pytest.raises(RecipeError, match="no such key"):
        Coefficients({key: {"base": 0.1}})


def test_default_reaches_every_text_site_and_no_other() -> None:
    row = {"base": 0.3, "safety": 0.2}
    coefficients = Coefficients({"default": row})
    for site in (GATE, Site("text", None, "head"), Site("text", 0, "raw:odd.weight")):
        assert coefficients.resolve(site) == row
    assert coefficients.resolve(Site("vision", 0, "attn.q")) == {}


def test_more_keys_than_any_model_has_sites_are_refused() -> None:
    table = {f"text.{number}.mlp.gate": {"base": 0.5} for number in range(200_000)}
    with pytest.raises(RecipeError, match="200000 keys, more than 100000"):
        Coefficients(table)
