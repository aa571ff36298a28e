"""The tables of docs/scaling.md are what the formulas give, and its worked figures follow from its inputs."""

import re
from dataclasses import astuple
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

from vlsurgery.cli.workflow.work import SCORED_ROWS
from vlsurgery.probes.grid_search import coarse_grid, neighbours
from vlsurgery.probes.left_out import MAX_BLOCKS
from vlsurgery.probes.objective_scorer import MAX_FIT, MAX_SELECT
from vlsurgery.probes.starting_points import RAY

HOUSE = Path(__file__).parent.parent
PAGE = (HOUSE / "docs" / "scaling.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def scaling() -> Any:
    spec = spec_from_file_location("scaling", HOUSE / "tests" / "benchmarks" / "scaling.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tables_are_what_the_formulas_give(scaling: Any) -> None:
    for line in scaling.tables():
        assert line in PAGE.splitlines()


def test_inputs_are_those_of_the_page(scaling: Any) -> None:
    assert pytest.approx(1e6 / (1 / 361 + 1 / 1069), rel=0.002) == scaling.MERGED
    told = [float(number) for number in re.findall(r"\d[\d.e-]*(?= (?:MB|s \|))", PAGE.split("Assumed:")[0])]
    assert {361.0, scaling.MERGED / 1e6, scaling.SPECTRUM} <= set(told)
    hours = [round(model.operations * scaling.SPECTRUM / 3600) for model in scaling.MODELS]
    assert hours == [int(hour) for hour in re.findall(r"(\d+) at (?:70 B|405 B|1 T) \(", PAGE.split("Core hours")[1])]


@pytest.mark.parametrize("machines", [1, 8, 64])
def test_more_machines_are_never_slower_and_never_faster_than_their_number(scaling: Any, machines: int) -> None:
    for work in (scaling.merge, scaling.diff):
        for model in scaling.MODELS:
            alone, together = work(model, 1)[0], work(model, machines)[0]
            assert alone / machines <= together <= alone


def test_a_choice_takes_as_many_passes_as_the_page_says() -> None:
    around = (8, 7, 6)
    assert max(around) == len(list(neighbours((0.5, 0.25), 0.125)))
    lists = (len(coarse_grid(2)), *around, len(RAY), MAX_BLOCKS)
    fit, each = sum(astuple(MAX_FIT)), sum(astuple(MAX_SELECT))

    def passes(workers: int) -> float:
        merges = sum(-(-count // workers) for count in lists)
        return fit + (4 + merges) * each + 2.5 * 3 * SCORED_ROWS * -(-(fit // SCORED_ROWS) // workers)

    found = [passes(workers) for workers in (1, 2, 4, 8, 15)]
    assert f"| passes one after another | {' | '.join(f'{count:,.0f}' for count in found)} |" in PAGE.splitlines()
