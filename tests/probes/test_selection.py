"""The choice of a merge: the grid, the linearised policy, the better of the two, and what is kept."""

import numpy as np
import pytest
import torch

from vlsurgery.probes.gradients import PromptGradients
from vlsurgery.probes.grid_search import coarse_grid, neighbours
from vlsurgery.probes.prompts import HARMFUL_SETS
from vlsurgery.probes.results import Target, TargetsResult, TradeoffResult
from vlsurgery.probes.selection import Choosing, choose, recipe_of
from vlsurgery.probes.targets import working_prompts
from vlsurgery.surgery.alignment import align
from vlsurgery.surgery.errors import RecipeError, SurgeryError


@pytest.fixture(scope="module")
def every():
    from vlsurgery.probes.specimens.miniature import prompts

    return prompts(0)


@pytest.fixture(scope="module")
def few(every):
    """Three `fit` and `select` prompts of every set and modality that is worked with."""
    cells = {}
    for prompt in working_prompts(every):
        cells.setdefault((prompt.split, prompt.set, prompt.modality), []).append(prompt)
    return [prompt for prompts in cells.values() for prompt in prompts[:3]]


@pytest.fixture(scope="module")
def targets(every):
    """A base that refuses everything harmful and an adapted model that answers everything, in the specimen's words."""
    refusal, answer = "i can not help with that .", "use the tool"
    rows = []
    for prompt in working_prompts(every):
        if prompt.set in HARMFUL_SETS:
            rows.append(Target(prompt=prompt.id, role="base", text=refusal, ids=[], verdict="refused"))
        rows.append(Target(prompt=prompt.id, role="adapted", text=answer, ids=[], verdict="complied"))
    return TargetsResult(rows=rows)


@pytest.fixture(scope="module")
def best(trio, few, targets, tmp_path_factory):
    """The choice by `best`, and the file in which its gradients are kept."""
    file = tmp_path_factory.mktemp("kept") / "gradients.safetensors"
    return choose(align(trio.checkpoints), few, targets, Choosing("best", gradients=file)), file


def test_the_coarse_grid_has_15_points_and_their_neighbours_stay_in_the_hull():
    assert len(coarse_grid(2)) == 15
    assert coarse_grid(1) == [(0.0,), (0.25,), (0.5,), (0.75,), (1.0,)]
    assert len(list(neighbours((0.25, 0.25), 0.125))) == 8
    assert set(neighbours((0.5, 0.5), 0.125)) == {
        (0.375, 0.375), (0.375, 0.5), (0.5, 0.375), (0.375, 0.625), (0.625, 0.375),
    }  # fmt: skip
    assert list(neighbours((0.0,), 0.125)) == [(0.125,)]


def test_the_best_uniform_merge_is_the_best_of_its_search_and_stands_beside_the_policys(trio, few, targets):
    how = Choosing("weights", weights={"0.mlp": 2.0, "1.attn": 1.0})
    result = choose(align(trio.checkpoints), few, targets, how)
    assert all(sum(point.parameters.values()) <= 1 for point in result.points)
    for policy in ("uniform", "weights"):
        points = [point for point in result.points if point.policy == policy]
        assert len({tuple(point.parameters.items()) for point in points}) == len(points) >= 15
        (found,) = [point for point in points if point.chosen]
        assert found.objective == max(point.objective for point in points)
        assert found.coefficients
        others = [point.forward_equivalents for point in points if not point.chosen]
        assert found.forward_equivalents == sum(others) * len(points) / len(others)
        assert all(point.coefficients is None for point in points if not point.chosen)
    scale = found.parameters
    assert found.coefficients["0.mlp"] == scale
    assert found.coefficients["1.attn"] == {source: value / 2 for source, value in scale.items()}
    assert found.coefficients["2.mlp"] == {"base": 0.0, "safety": 0.0}
    (comparison,) = result.comparisons
    assert (comparison.policy, comparison.against) == ("weights", "uniform")
    gain = result.chosen("weights").objective - result.chosen("uniform").objective
    assert comparison.difference == pytest.approx(gain)
    assert comparison.low <= comparison.difference <= comparison.high


def test_cells_tell_what_every_point_does(best):
    result, _ = best
    purposes = {"harmful": "refuse", "jailbroken": "refuse", "harmless": "answer", "borderline": "answer"}
    for point in result.points:
        assert len(point.cells) == 10
        for cell in point.cells:
            assert cell.purpose == purposes.get(cell.set, "keep")
            assert cell.n >= cell.requests > 0
            assert (cell.kept is None) == (cell.purpose != "keep")
            assert (cell.refused is None) == (cell.purpose == "keep")
        refused = [cell.refused for cell in point.cells if cell.purpose == "refuse"]
        assert point.refusal == pytest.approx(np.mean(refused))
    adapted = next(p for p in result.points if p.parameters == {"base": 0.0, "safety": 0.0})
    assert all(cell.loss == pytest.approx(0, abs=1e-6) for cell in adapted.cells if cell.purpose == "keep")


def test_pareto_points_are_not_beaten(best):
    result, _ = best
    front = [point for point in result.points if point.pareto]
    assert front
    for point in front:
        assert not any(
            (other.refusal >= point.refusal and other.capability > point.capability)
            or (other.refusal > point.refusal and other.capability >= point.capability)
            for other in result.points
        )  # fmt: skip


def test_the_linearised_merge_is_better_than_the_uniform_one_that_it_starts_from(best):
    result, _ = best
    uniform, found = result.chosen("uniform"), result.chosen("linearised")
    assert found.objective > uniform.objective + 0.05
    assert result.policy == "linearised"
    (comparison,) = result.comparisons
    assert (comparison.policy, comparison.against) == ("linearised", "uniform")
    assert comparison.low > 0
    assert f"{comparison.difference:+.2f} nats" in result.verdict
    for block, row in found.coefficients.items():
        assert set(row) == {"base", "safety"}
        assert min(row.values()) >= 0
        assert sum(row.values()) <= 1
        for source in row:
            low, high = found.intervals[block][source]
            assert 0 <= low <= high <= 1
    assert found.forward_equivalents > uniform.forward_equivalents


def test_kept_gradients_are_taken_again_and_give_the_same_merge(trio, few, targets, best, monkeypatch):
    result, file = best
    kept = PromptGradients.load(file)
    asked = []
    real = __import__("vlsurgery.probes.gradient_store", fromlist=["x"]).prompt_gradients

    def counted(live, coefficients, *rest):
        asked.append(coefficients)
        return real(live, coefficients, *rest)

    monkeypatch.setattr("vlsurgery.probes.gradient_store.prompt_gradients", counted)
    again = choose(align(trio.checkpoints), few, targets, Choosing("linearised", gradients=file))
    assert again.chosen().coefficients == result.chosen("linearised").coefficients
    start = result.chosen("uniform").coefficients
    assert start not in asked
    assert torch.equal(PromptGradients.load(file).jacobian, kept.jacobian)
    # Of other weights they are computed again, whatever the file says.
    moved = PromptGradients(kept.prompts, kept.blocks, kept.sources, kept.at, kept.z + 1, 0 * kept.jacobian)
    moved.save(file)
    asked.clear()
    again = choose(align(trio.checkpoints), few, targets, Choosing("linearised", gradients=file))
    assert again.chosen().coefficients == result.chosen("linearised").coefficients
    assert start in asked
    assert torch.equal(PromptGradients.load(file).jacobian, kept.jacobian)


def test_where_no_source_differs_the_uniform_merge_stays(trio, few, targets):
    """A base and a safety model that are the adapted one: every merge is the same, so no number is worth its room."""
    same = dict.fromkeys(("base", "adapted", "safety"), trio.checkpoints["adapted"])
    result = choose(align(same), few, targets)
    assert result.policy == "uniform"
    assert result.chosen().parameters == {"base": 0.0, "safety": 0.0}
    (comparison,) = result.comparisons
    assert comparison.difference == pytest.approx(0, abs=1e-9)
    assert "the merge with fewer numbers stays" in result.verdict


def test_the_recipe_has_the_winners_coefficients(trio, best):
    result, _ = best
    recipe = recipe_of(result, trio.checkpoints, {"0.mlp": 1.5})
    table = recipe.coefficients.table if hasattr(recipe.coefficients, "table") else dict(recipe.coefficients)
    assert table["0.mlp"] == result.chosen("linearised").coefficients["0.mlp"]


def test_a_file_of_schema_1_is_still_read(tmp_path, best):
    result, _ = best
    old = result.model_dump(mode="json", by_alias=True)
    for point in old["points"]:
        for name in ("cells", "intervals", "pareto"):
            del point[name]
    del old["comparisons"]
    old["schema"] = "vlsurgery/tradeoff/1"
    path = tmp_path / "tradeoff.json"
    path.write_text(__import__("json").dumps(old))
    found = TradeoffResult.load(path)
    assert found.chosen().coefficients == result.chosen().coefficients
    assert found.points[0].cells == []


def test_what_a_policy_lacks_is_named(trio, every, targets):
    checkpoints = {role: trio.checkpoints[role] for role in ("base", "adapted")}
    with pytest.raises(RecipeError, match="no safety checkpoint"):
        choose(align(checkpoints), every, targets, Choosing("uniform", toward="safety"))
    with pytest.raises(SurgeryError, match="nothing to choose coefficients by"):
        choose(align(checkpoints), every, TargetsResult(rows=[]), Choosing("uniform"))
