"""The choice of a merge: the grid, the linearised policy, the better of the two, and what is kept."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from vlsurgery.probes import limited
from vlsurgery.probes.evaluation.limits import Limits
from vlsurgery.probes.gradient_store import reused_gradients
from vlsurgery.probes.gradients import prompt_gradients
from vlsurgery.probes.grid_search import coarse_grid, neighbours, search
from vlsurgery.probes.in_memory_merge import InMemoryMerge
from vlsurgery.probes.known_price import at_known_price
from vlsurgery.probes.left_out import MAX_BLOCKS
from vlsurgery.probes.models import load
from vlsurgery.probes.objective import Requirements, requirements
from vlsurgery.probes.objective_scorer import MAX_FIT, ObjectiveScorer
from vlsurgery.probes.results import TargetsResult, TradeoffPoint, TradeoffResult
from vlsurgery.probes.selection import Choosing, choose, decided, recipe_of
from vlsurgery.probes.targets import working_prompts, working_set
from vlsurgery.probes.trials import Bench, Cost, Trial
from vlsurgery.probes.trust_region import is_better
from vlsurgery.surgery.alignment import align
from vlsurgery.surgery.errors import RecipeError, SurgeryError
from vlsurgery.surgery.merge.recipe import Recipe
from vlsurgery.surgery.runtime.progress import no_progress


@pytest.fixture(scope="module")
def few(every):
    """Five `fit` and `select` prompts of every set and modality that is worked with."""
    cells = {}
    for prompt in working_prompts(every):
        cells.setdefault((prompt.split, prompt.set, prompt.modality), []).append(prompt)
    return [prompt for prompts in cells.values() for prompt in prompts[:5]]


@pytest.fixture(scope="module")
def result(trio, few, targets):
    """The choice by `best`."""
    return choose(align(trio.checkpoints), few, targets)


def test_the_coarse_grid_has_15_points_and_their_neighbours_stay_in_the_hull():
    assert len(coarse_grid(2)) == 15
    assert coarse_grid(1) == [(0.0,), (0.25,), (0.5,), (0.75,), (1.0,)]
    assert len(list(neighbours((0.25, 0.25), 0.125))) == 8
    assert set(neighbours((0.5, 0.5), 0.125)) == {
        (0.375, 0.375), (0.375, 0.5), (0.5, 0.375), (0.375, 0.625), (0.625, 0.375),
    }  # fmt: skip
    assert list(neighbours((0.0,), 0.125)) == [(0.125,)]
    assert len(coarse_grid(3)) == 35
    moved = list(neighbours((0.25, 0.25, 0.25), 0.125))
    assert len(moved) == 18  # one or two strengths at a time
    assert (0.375, 0.125, 0.25) in moved


def test_every_safety_tuned_model_is_a_source_and_a_copy_brings_nothing_new(trio, few, targets, tmp_path):
    """Whatever goes toward a copy may as well go toward the model itself."""
    copied = align({**trio.checkpoints, "safety:copy": trio.checkpoints["safety"]})
    found = choose(copied, few, targets, Choosing(policy="uniform", toward="safety"))
    objectives = {tuple(p.parameters.values()): p.objective for p in found.points}
    assert list(found.points[0].parameters) == ["safety", "safety:copy"]
    assert len(objectives) >= 15
    for (one, other), objective in objectives.items():
        assert objective == pytest.approx(objectives.get((other, one), objective), abs=1e-4)
        assert objective == pytest.approx(objectives.get((one + other, 0.0), objective), abs=1e-4)
    recipe = recipe_of(found, copied.checkpoints, {})
    assert set(recipe.checkpoints) == {"adapted", "safety", "safety:copy"}
    recipe.save(tmp_path / "recipe.yaml")
    assert Recipe.load(tmp_path / "recipe.yaml").coefficients == recipe.coefficients


class Bowl:
    """A bench whose merges are the worse, the further they are from one place."""

    elsewhere, each = None, Bench.each

    def __init__(self, *place: float) -> None:
        self.place = np.array(place)
        self.live = SimpleNamespace(sources=("base", "safety")[: len(place)], blocks=("0.mlp",))

    def tried(self, policy, parameters, coefficients):
        assert coefficients == {"0.mlp": parameters}
        distance = float(np.abs(np.array(list(parameters.values())) - self.place).sum())
        point = TradeoffPoint(
            policy=policy, parameters=parameters, coefficients=coefficients, refusal=0.5, capability=0.5,
            objective=-distance, forward_equivalents=1, seconds=1.0, chosen=False,
        )  # fmt: skip
        return Trial(point, np.zeros(1))


@pytest.mark.parametrize("place", [(0.3125, 0.1875), (0.0, 0.0), (0.4375, 0.5625), (0.9375,), (0.0625, 0.875)])
def test_the_search_finds_the_best_strengths_from_wherever_the_grid_begins(place):
    trials = search(Bowl(*place), "uniform", {"0.mlp": 1.0}, no_progress)
    (found,) = [trial for trial in trials if trial.point.chosen]
    assert tuple(found.point.parameters.values()) == place
    assert len(trials) <= 45
    assert found.cost == Cost(len(trials), float(len(trials)))


def test_of_equally_good_merges_the_smallest_is_taken():
    bowl = Bowl(0.5, 0.5)
    bowl.tried = lambda policy, parameters, table: Bowl.tried(Bowl(*parameters.values()), policy, parameters, table)
    (found,) = [trial for trial in search(bowl, "uniform", {"0.mlp": 1.0}, no_progress) if trial.point.chosen]
    assert found.point.parameters == {"base": 0.0, "safety": 0.0}


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


def test_cells_tell_what_every_point_does(result):
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


def test_pareto_points_are_not_beaten(result):
    front = [point for point in result.points if point.pareto]
    assert front
    for point in front:
        assert not any(
            (other.refusal >= point.refusal and other.capability > point.capability)
            or (other.refusal > point.refusal and other.capability >= point.capability)
            for other in result.points
        )  # fmt: skip


def test_the_linearised_merge_is_a_mixture_and_better_than_the_uniform_one_that_it_starts_from(result):
    uniform, found = result.chosen("uniform"), result.chosen("linearised")
    assert found.objective > uniform.objective + 0.05
    assert found.forward_equivalents > uniform.forward_equivalents
    for block, row in found.coefficients.items():
        assert set(row) == {"base", "safety"}
        assert min(row.values()) >= 0
        assert sum(row.values()) <= 1
        for source in row:
            low, high = found.intervals[block][source]
            assert 0 <= low <= high <= 1


def trial(policy: str, z: np.ndarray, wanted: Requirements) -> Trial:
    """The best merge of a policy, made up."""
    point = TradeoffPoint(
        policy=policy, parameters={"base": 0.5}, coefficients={"0.mlp": {"base": 0.5}}, refusal=0.5, capability=0.5,
        objective=-float(wanted.objective(z)), forward_equivalents=1, seconds=1.0, chosen=True,
    )  # fmt: skip
    return Trial(point, z)


@pytest.mark.parametrize(
    ("gain", "coefficient", "accepted"),
    [
        (0.1, 0.9, True),
        (0.0, 0.4, True),
        (-0.004, 0.4, True),
        (0.0, 0.5, False),
        (-0.004, 0.6, False),
        (-0.1, 0, False),
    ],
)
def test_a_step_is_accepted_where_it_is_better_or_as_good_at_less_change(gain, coefficient, accepted):
    wanted = requirements([("a", "a", ("harmful", "text"), "refuse")], np.zeros(1))
    centre = trial("uniform", np.zeros(1), wanted)
    ahead = centre.named(objective=centre.objective + gain, coefficients={"0.mlp": {"base": coefficient}})
    assert is_better(ahead, centre) == accepted


@pytest.mark.parametrize(
    ("gain", "policy", "said"),
    [
        (1.0, "linearised", "The objective of linearised is better by"),
        (0.0, "uniform", "Linearised is not clearly better, so the merge with fewer numbers stays."),
        (-1.0, "uniform", "Linearised is not clearly better"),
    ],
)
def test_the_better_merge_is_written_and_of_equals_the_one_with_fewer_numbers(gain, policy, said):
    rng = np.random.default_rng(0)
    rows = [(str(i), str(i), ("harmful", "text"), "refuse") for i in range(60)]
    wanted = requirements(rows, np.zeros(60))
    z = rng.normal(0, 2, 60)
    ours = z + gain + rng.normal(0, 0.5, 60) - (0.1 if gain == 0 else 0)
    found = decided(wanted, [trial("uniform", z, wanted), trial("linearised", ours, wanted)], "best")
    assert found.policy == policy
    assert said in found.verdict
    (comparison,) = found.comparisons
    assert comparison.policy == policy
    assert comparison.requests == 60
    assert f"{abs(comparison.difference):.2f} nats (better by {comparison.low:+.2f} to {comparison.high:+.2f}" in (
        found.verdict
    )
    # Who names a policy gets it, and is told of a better one.
    named = decided(wanted, [trial("uniform", z, wanted), trial("linearised", ours, wanted)], "linearised")
    assert named.policy == "linearised"
    assert ("--policy uniform writes the better one." in named.verdict) == (gain < 0)


def test_kept_gradients_are_taken_again_where_the_model_says_the_same(trio, few, targets, tmp_path, monkeypatch):
    chat = load(trio.checkpoints["adapted"])
    live = InMemoryMerge(chat, align(trio.checkpoints), ("base", "safety"))
    scorer = ObjectiveScorer.of(chat, working_set(chat, few, targets, "fit"), "fit", MAX_FIT)
    file, asked = tmp_path / "gradients.safetensors", []

    def counted(live, coefficients, *rest):
        asked.append(coefficients)
        return prompt_gradients(live, coefficients, *rest)

    monkeypatch.setattr("vlsurgery.probes.gradient_store.prompt_gradients", counted)
    start, later = live.everywhere(base=0.25, safety=0.5), live.everywhere(base=0.5, safety=0.25)
    take = reused_gradients(live, scorer, file, no_progress)
    first = take(start)
    before = file.read_bytes()
    take(later)
    assert file.read_bytes() == before  # the first stay, as every run begins with them
    assert asked == [start, later]

    again = reused_gradients(live, scorer, file, no_progress)(start)
    assert asked == [start, later]
    assert torch.equal(again.jacobian, first.jacobian)
    reused_gradients(live, scorer, file, no_progress)(later)
    assert asked == [start, later, later]
    file.write_bytes(before)
    # Of other weights they are computed again, whatever the file says.
    replace(first, z=first.z + 1, jacobian=0 * first.jacobian).save(file)
    again = reused_gradients(live, scorer, file, no_progress)(start)
    assert asked[3:] == [start]
    assert torch.equal(again.jacobian, first.jacobian)
    assert file.read_bytes() == before


def test_gradients_are_those_of_single_prompts_by_a_finite_difference(trio, few, targets):
    """Of openings too, which read several tokens a prompt."""
    chat = load(trio.checkpoints["adapted"])
    live = InMemoryMerge(chat, align(trio.checkpoints), ("base", "safety"))
    scorer = ObjectiveScorer.of(chat, working_set(chat, few, targets, "fit"), "fit", MAX_FIT)
    found = prompt_gradients(live, live.everywhere(base=0.25), scorer.batches, scorer.wanted.prompts)
    step = {"1.mlp": {"base": 0.02, "safety": 0.0}}

    def moved(sign):
        table = live.everywhere(base=0.25)
        table["1.mlp"] = {"base": 0.25 + sign * 0.02}
        with live.at(table) as model:
            return scorer.measure(model).z

    slope = (moved(1) - moved(-1)) / (2 * step["1.mlp"]["base"])
    ours = found.jacobian[:, live.blocks.index("1.mlp"), 0].double().numpy()
    np.testing.assert_allclose(ours, slope, atol=0.02 * np.abs(slope).max())


def test_the_frontier_runs_from_strict_to_lax_and_sparse_coefficients_are_0_where_they_may_be(trio, few, targets):
    result = choose(align(trio.checkpoints), few, targets, Choosing("linearised", sparse=True, frontier=5))
    traced = [point for point in result.points if point.policy == "frontier"]
    prices = [point.parameters["price"] for point in traced]
    assert prices == pytest.approx(np.geomspace(0.1, 20, 5), rel=0.01)
    assert [point.price for point in result.frontier.points] == prices
    assert [point.coefficients for point in result.frontier.points] == [point.coefficients for point in traced]
    assert result.frontier.gain.low <= result.frontier.gain.value <= result.frontier.gain.high

    over_refusal = [np.mean([cell.loss for cell in point.cells if cell.purpose == "answer"]) for point in traced]
    assert over_refusal[-1] < over_refusal[0]  # the dearer, the less of it
    assert all(point.coefficients and not point.chosen for point in traced)
    whole, found = (point for point in result.points if point.policy == "linearised")
    assert (whole.chosen, found.chosen) == (False, True)
    may_be_0 = [(b, s) for b, row in found.intervals.items() for s, (low, _) in row.items() if low <= 0.005]
    assert may_be_0
    assert all(found.coefficients[block][source] == 0 for block, source in may_be_0)
    mixed_in = {block for block, row in found.coefficients.items() if any(row.values())}
    assert {effect.block for effect in result.effects} <= mixed_in
    assert len(result.effects) == min(MAX_BLOCKS, len(mixed_in))
    assert all(effect.gain.low <= effect.gain.value <= effect.gain.high for effect in result.effects)


def test_a_price_writes_its_merge_and_one_that_was_solved_is_only_measured(trio, few, targets, result):
    """The same coefficients, to the last digit, whether they are solved again or taken from the choice before."""
    solved = result.frontier.points[14]
    assert not [point for point in result.points if point.policy == "frontier"]  # none was asked to be measured
    again = choose(align(trio.checkpoints), few, targets, Choosing(price=solved.price))
    assert again.policy == "frontier"
    assert again.chosen().coefficients == solved.coefficients
    known = at_known_price(align(trio.checkpoints), few, targets, result, solved.price)
    assert known.chosen().coefficients == solved.coefficients
    assert known.chosen().rates == again.chosen().rates
    assert known.chosen().parameters["price"] == solved.price
    assert known.frontier == result.frontier
    assert known.chosen("uniform").coefficients == result.chosen("uniform").coefficients
    assert {each.against for each in known.comparisons} == {"uniform", "linearised"}
    other = at_known_price(align(trio.checkpoints), few, targets, known, result.frontier.points[2].price)
    assert [p.parameters["price"] for p in other.points if p.policy == "frontier" and p.chosen] == [
        result.frontier.points[2].price
    ]
    assert len(other.points) == len(known.points) + 1
    with pytest.raises(ValueError, match=r"price of 1\.2345"):
        at_known_price(align(trio.checkpoints), few, targets, result, 1.2345)


def test_limits_that_no_merge_keeps_are_told_with_the_one_that_binds(trio, few, targets, monkeypatch):
    """Of five prompts a cell nothing can be shown to be refused in nine of ten."""
    monkeypatch.setattr(limited, "OVER_REFUSALS", (1.0,))
    asked = Limits.model_validate({"sets": {"harmful": {"refused_at_least": 0.9}}})
    found = choose(align(trio.checkpoints), few, targets, Choosing(limits=asked))
    assert (found.policy, found.chosen().policy) == ("limits", "limits")
    assert "refused_at_least 0.9 binds: it is missed by" in found.missed
    assert {(row.set, row.bound) for row in found.limits} == {("harmful", 0.9)}
    assert "the least coefficients within the limits" in found.verdict


def test_where_no_source_differs_the_uniform_merge_stays(trio, few, targets):
    """A base and a safety model that are the adapted one: every merge is the same, so no number is worth its room."""
    same = dict.fromkeys(("base", "adapted", "safety"), trio.checkpoints["adapted"])
    result = choose(align(same), few, targets)
    assert result.policy == "uniform"
    assert result.chosen().parameters == {"base": 0.0, "safety": 0.0}
    (comparison,) = result.comparisons
    assert comparison.difference == pytest.approx(0, abs=1e-9)
    assert "the merge with fewer numbers stays" in result.verdict
    assert "Every coefficient is 0" in result.verdict
    assert result.effects == []


def test_the_recipe_has_the_winners_coefficients(trio, result):
    recipe = recipe_of(result, trio.checkpoints, {"0.mlp": 1.5})
    assert recipe.coefficients["0.mlp"] == result.chosen().coefficients["0.mlp"]
    assert recipe.why["0.mlp"] == f"by {result.policy}; moved to the base it gives +1.500 nats of refusal"


def test_a_file_of_schema_1_is_still_read(tmp_path, result):
    old = result.model_dump(mode="json", by_alias=True)
    for point in old["points"]:
        for name in ("cells", "intervals", "pareto"):
            del point[name]
    del old["comparisons"]
    old["schema"] = "vlsurgery/tradeoff/1"
    path = tmp_path / "tradeoff.json"
    path.write_text(json.dumps(old))
    found = TradeoffResult.load(path)
    assert found.chosen().coefficients == result.chosen().coefficients
    assert found.points[0].cells == []


def test_what_a_policy_lacks_is_named(trio, every, targets):
    checkpoints = {role: trio.checkpoints[role] for role in ("base", "adapted")}
    with pytest.raises(RecipeError, match="no safety checkpoint"):
        choose(align(checkpoints), every, targets, Choosing("uniform", toward="safety"))
    with pytest.raises(SurgeryError, match="too few prompts to choose coefficients by"):
        choose(align(checkpoints), every, TargetsResult(rows=[]), Choosing("uniform"))
