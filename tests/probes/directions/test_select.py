"""Choosing a direction by the published rules, one row at a time."""

import json
import re
from typing import Any

import numpy as np
import pytest

from vlsurgery.probes import directions
from vlsurgery.surgery.errors import SurgeryError

NAN = float("nan")


def row(position: Any, layer: Any, refusal: Any, steering: Any = 1.0, kl: Any = 0.01) -> dict[str, Any]:
    scores = {"refusal_score": refusal, "steering_score": steering, "kl_div_score": kl}
    return {"position": position, "layer": layer, **scores}


def test_the_least_refusal_score_is_chosen() -> None:
    found = directions.select([row(-2, 3, -1.0), row(-1, 4, -7.0), row(-1, 5, -3.0)], n_layers=10)
    assert (found.position, found.layer) == (-1, 4)
    assert found.ties == []
    assert found.passed == 3
    assert found.discarded == {}


@pytest.mark.parametrize(
    ("better", "reason"),
    [
        (row(-1, 8, -9.0), "in the last fifth of the layers"),
        (row(-1, 2, -9.0, kl=0.1001), "KL above 0.1"),
        (row(-1, 2, -9.0, steering=-0.001), "does not induce refusals"),
        (row(-1, 2, NAN), "not a number"),
        (row(-1, 2, -9.0, steering=NAN), "not a number"),
        (row(-1, 2, -9.0, kl=NAN), "not a number"),
        (row(-1, 2, -9.0, kl=None), "not a number"),
    ],
)
def test_each_rule_alone_discards(better: dict[str, Any], reason: str) -> None:
    found = directions.select([better, row(-1, 3, 4.0)], n_layers=10)
    assert (found.position, found.layer) == (-1, 3)
    assert found.discarded == {reason: 1}


@pytest.mark.parametrize(
    "edge",
    [row(-1, 7, -9.0), row(-1, 2, -9.0, kl=0.1), row(-1, 2, -9.0, steering=0.0), row(-1, 0, -9.0)],
)
def test_the_edges_of_the_rules_pass(edge: dict[str, Any]) -> None:
    assert directions.select([row(-1, 3, 4.0), edge], n_layers=10).layer == edge["layer"]


@pytest.mark.parametrize(("n_layers", "last"), [(18, 13), (24, 18), (32, 24), (5, 3), (1, None)])
def test_layers_below_four_fifths_rounded_down_pass(n_layers: int, last: int | None) -> None:
    rows = [row(-1, layer, -float(layer)) for layer in range(n_layers)]
    assert directions.select(rows, n_layers).layer == last


def test_ties_are_told_and_the_first_row_is_chosen() -> None:
    rows = [row(-1, 6, -5.0), row("instruction", 2, -5.0), row(-2, 9, -5.0), row(-2, 4, -4.0)]
    found = directions.select(rows, n_layers=10)
    assert (found.position, found.layer) == (-1, 6)
    assert [(each.position, each.layer) for each in found.ties] == [("instruction", 2)]


def test_where_nothing_passes_nothing_is_chosen() -> None:
    found = directions.select([row(-1, 2, NAN), row(-1, 9, -3.0)], n_layers=10)
    assert found.chosen is None
    assert (found.position, found.layer, found.ties, found.passed) == (None, None, [], 0)
    assert directions.select([], n_layers=10).chosen is None


def test_a_published_table_is_read_with_its_bare_nan_and_further_keys() -> None:
    text = json.dumps([{**row(-1, 2, NAN), "note": "x"}, row(-5, 3, -2.5)])
    assert "NaN" in text
    found = directions.select(json.loads(text), n_layers=12)
    assert (found.position, found.layer) == (-5, 3)
    again = type(found).model_validate_json(found.model_dump_json())
    assert again == found


def test_numbers_of_numpy_and_whole_floats_are_taken() -> None:
    found = directions.select([row(np.int64(-1), np.float64(3.0), np.float32(-2.0))], n_layers=10)
    assert (found.position, found.layer) == (-1, 3)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"position": -1, "layer": 2}], "row 0 lacks refusal_score, steering_score, kl_div_score"),
        ([row(-1, 1, 0.0), row(-1, 10, 0.0)], "row 1 is of layer 10, but a model of 10 layers has 0 to 9"),
        ([row(-1, -1, 0.0)], "row 0 is of layer -1"),
        ([row(-1, 1, 0.0), row(-1, 1, 1.0)], "position -1, layer 1 has several rows"),
        ([row(-1, "one", 0.0)], "the layer of row 0 is 'one'"),
        ([row(None, 1, 0.0)], "the position of row 0 is None"),
    ],
)
def test_tables_that_are_none_say_why(rows: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(SurgeryError, match=re.escape(message)):
        directions.select(rows, n_layers=10)
