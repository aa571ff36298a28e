"""Choose coefficients: a policy's, beside the best uniform merge, all compared on `select` prompts by one objective.

Points are compared without generation, by the log-odds of refusing and of the adapted model's own answers
(`probes.objective`). Behaviour on `report` is measured later, by generation.
"""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vlsurgery.probes.barrier import barriers, warned
from vlsurgery.probes.enough_prompts import check_enough, nothing_lost
from vlsurgery.probes.evaluation.limits import Limits
from vlsurgery.probes.fitting import fit
from vlsurgery.probes.frontier import POINTS, prices
from vlsurgery.probes.gradient_store import reused_gradients
from vlsurgery.probes.grid_search import search
from vlsurgery.probes.in_memory_merge import InMemoryMerge
from vlsurgery.probes.left_out import left_out
from vlsurgery.probes.linearised import BEYOND, HULL, LinearModel
from vlsurgery.probes.merge_workers import MergeWorkers, merge_workers
from vlsurgery.probes.models import AS_FOUND, ChatModel, Loader
from vlsurgery.probes.models.forward import keeping_pictures
from vlsurgery.probes.objective import Requirements, paired_objectives
from vlsurgery.probes.objective_scorer import MAX_FIT, MAX_SELECT, ObjectivePrompts, ObjectiveScorer
from vlsurgery.probes.policies import Policy, Toward
from vlsurgery.probes.prompts import Prompt
from vlsurgery.probes.results import (
    Barrier,
    Frontier,
    PolicyDifference,
    TargetsResult,
    TradeoffPoint,
    TradeoffResult,
)
from vlsurgery.probes.sources import toward_roles
from vlsurgery.probes.starting_points import better_start, by_gains
from vlsurgery.probes.targets import WORKING_SPLITS, WorkingSet, working_set
from vlsurgery.probes.tracing import frontier_of, measured, traced
from vlsurgery.probes.trials import Bench, Cost, Trial, with_pareto
from vlsurgery.probes.trust_region import Linearised, linearised, main_blocks, sparser
from vlsurgery.probes.within_limits import Within, within_limits
from vlsurgery.surgery.alignment import Alignment
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.errors import RecipeError
from vlsurgery.surgery.merge.coefficients import Coefficients
from vlsurgery.surgery.merge.recipe import Recipe
from vlsurgery.surgery.methods import METHODS
from vlsurgery.surgery.runtime.engine import Engine
from vlsurgery.surgery.runtime.progress import Progress, no_progress

_KINDS = {
    "linearised": "linearised coefficients",
    "frontier": "linearised coefficients at another price",
    "limits": "the least coefficients within the limits",
    "fit": "fitted coefficients",
    "attribution": "coefficients by attribution",
    "weights": "coefficients by weight change",
}
_CALLED = {"frontier": "the merge at this price", "limits": "the merge within the limits"}


@dataclass(frozen=True)
class Choosing:
    """How coefficients are chosen.

    policy: `best` compares the uniform and the linearised merge and takes the better one. toward: the sources.
    attribution: block -> path gain; weights: block -> relative weight change; needed by the policies of these names.
    gradients: the file in which those of the prompts are kept, and from which they are taken again. sparse: whether
    linearised coefficients whose interval holds 0 become 0. frontier: at how many prices of over-refusal linearised
    merges are measured beside. price: the one whose linearised merge is written, whatever does best at the usual one.
    limits: the user's; the least intervention that keeps those which can be predicted is written. extrapolate: whether
    linearised coefficients, and a block's sum of them, may be up to 1.5, so that a merge lies beyond its models.
    engine: whose workers measure merges that don't wait for one another, each with models of its own; None: the model
    of this process is moved from one to the next. What is measured is the same.
    """

    policy: Policy = "best"
    toward: Toward = "both"
    attribution: Mapping[str, float] = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=dict)
    gradients: Path | None = None
    sparse: bool = False
    frontier: int = 0
    price: float | None = None
    limits: Limits | None = None
    extrapolate: bool = False
    engine: Engine | None = None


@dataclass(frozen=True)
class _Room:
    """What every policy needs: the live merge with its `select` prompts, all prompts, and their targets. fit: prompts
    that linearised coefficients are solved on; None for other policies."""

    bench: Bench
    fit: ObjectivePrompts | None
    workers: MergeWorkers | None
    prompts: Sequence[Prompt]
    targets: TargetsResult
    how: Choosing
    progress: Progress

    @property
    def chat(self) -> ChatModel:
        return self.bench.live.chat


def choose(
    alignment: Alignment,
    prompts: Sequence[Prompt],
    targets: TargetsResult,
    how: Choosing = Choosing(),
    progress: Progress = no_progress,
    loader: Loader = AS_FOUND,
    warn: Callable[[str], None] | None = None,
) -> TradeoffResult:
    """The merges of a policy and uniform ones toward the same sources, all measured, and which of them is to be made.

    alignment: of all roles. loader: how the checkpoint is loaded. warn: is told of a barrier on the way to a source,
    before coefficients are searched block by block.
    The best point of each policy is marked `chosen` and keeps its coefficients. Raises RecipeError where a source or
    a finding that the policy needs is missing, SurgeryError where there are too few prompts to choose by. Where no
    refusal was lost, nothing is measured and every coefficient is 0.
    """
    live = _live(alignment, how.toward, loader)
    working = {split: working_set(live.chat, prompts, targets, split) for split in WORKING_SPLITS}
    if reason := nothing_lost(list(working.values())):
        return _unchanged(live, working["select"], targets, reason)
    for split in WORKING_SPLITS:
        check_enough(working[split], split)
    asked = ObjectivePrompts.of(working["select"], "select", MAX_SELECT)
    select = ObjectiveScorer.over(live.chat, asked)
    fit = ObjectivePrompts.of(working["fit"], "fit", MAX_FIT) if how.policy in ("best", "linearised") else None
    with merge_workers(how.engine, live, loader, (asked, select.wanted), fit) as workers:
        bench = Bench(live, select, None if workers is None else workers.measure)
        return _chosen_in(_Room(bench, fit, workers, prompts, targets, how, progress), warn)


def _chosen_in(room: _Room, warn: Callable[[str], None] | None) -> TradeoffResult:
    """The merges of `choose`, and which of them is to be made."""
    how, live, wanted = room.how, room.bench.live, room.bench.select.wanted
    with keeping_pictures(live.chat):
        with live.staying():
            trials = search(room.bench, "uniform", dict.fromkeys(live.blocks, 1.0), room.progress)
            in_the_way = barriers(wanted, trials, live.sources)
            if warn is not None and (warning := warned(in_the_way)):
                warn(warning)
            if how.policy in ("attribution", "weights"):
                scores = _relative_scores(live.blocks, getattr(how, how.policy), how.policy)
                trials += search(room.bench, how.policy, scores, room.progress)
        if how.policy in ("best", "linearised"):
            found = _linearised(room, trials)
            return _explained(room, found, [*trials, *found.trials], in_the_way)
    if how.policy == "fit":
        trials.append(_fitted(room))
    return decided(wanted, trials, how.policy, in_the_way=in_the_way)


def bench_of(
    alignment: Alignment, prompts: Sequence[Prompt], targets: TargetsResult, toward: Toward, loader: Loader
) -> Bench:
    """The adapted model, loaded, with the sources to merge toward, and its `select` prompts. Raises as `choose`."""
    live = _live(alignment, toward, loader)
    working = working_set(live.chat, prompts, targets, "select")
    return Bench(live, ObjectiveScorer.of(live.chat, working, "select", MAX_SELECT))


def _live(alignment: Alignment, toward: Toward, loader: Loader) -> InMemoryMerge:
    """The adapted model, loaded, with the sources to merge toward."""
    sources = sources_of(alignment.checkpoints, toward)
    chat = loader.load(alignment.checkpoints["adapted"])
    return InMemoryMerge(chat, alignment.among(("adapted", *sources)), sources)


def _unchanged(live: InMemoryMerge, working: WorkingSet, targets: TargetsResult, reason: str) -> TradeoffResult:
    """The adapted model as it is, as the one merge. working: of `select`."""
    asked = {prompt.id for prompt, _ in working.refuse}
    own = [row.verdict == "refused" for row in targets.records if row.role == "adapted" and row.prompt in asked]
    nothing = dict.fromkeys(live.sources, 0.0)
    point = TradeoffPoint(
        policy="uniform",
        parameters=nothing,
        coefficients=live.everywhere(**nothing),
        refusal=sum(own) / len(own),
        capability=1.0,
        objective=0.0,
        forward_equivalents=0,
        seconds=0.0,
        chosen=True,
        pareto=True,
    )
    return TradeoffResult(points=[point], policy="uniform", verdict=reason)


def sources_of(checkpoints: Collection[str], toward: Toward) -> tuple[str, ...]:
    """The roles among `checkpoints` to merge toward. Raises RecipeError where there is none."""
    sources = toward_roles(checkpoints, toward)
    if not sources:
        raise RecipeError(
            f"there is no {toward} checkpoint in this case to merge toward; it has {', '.join(checkpoints)}"
        )
    return sources


def _chosen(trials: Sequence[Trial], policy: str) -> Trial:
    return next(trial for trial in trials if trial.point.chosen and trial.point.policy == policy)


@dataclass(frozen=True)
class _Found:
    """Linearised merges, the best one marked `chosen`, the blocks that bring most of it, what other prices buy, and
    what keeps the user's limits. model: the last one, in which other prices were solved."""

    trials: list[Trial]
    model: LinearModel
    main_blocks: list[str]
    frontier: Frontier
    within: Within | None


def _linearised(room: _Room, uniform: Sequence[Trial]) -> _Found:
    assert room.fit is not None
    fit_prompts = ObjectiveScorer.over(room.chat, room.fit)
    take = reused_gradients(room.bench.live, fit_prompts, room.how.gradients, room.progress, room.workers)
    tries = by_gains(room.bench, room.how.attribution, room.progress)
    start = better_start(_chosen(uniform, "uniform"), tries)
    found = linearised(room.bench, fit_prompts, start, take, BEYOND if room.how.extrapolate else HULL)
    blocks, trials = main_blocks(room.bench, found), [found.trial]
    if room.how.sparse and found.last is not None:
        trials = [found.trial.named(chosen=False), sparser(room.bench, found.trial, found.last)]
    at_prices, frontier = _frontier(room, found, uniform)
    trials += at_prices
    within = None if room.how.limits is None else within_limits(room.bench, found.latest, room.how.limits)
    started = [trial.named(coefficients=None) for trial in tries]
    trials = [*started, *trials, *([within.trial] if within else [])]
    return _Found(trials, found.latest.model, blocks, frontier, within)


def _explained(room: _Room, found: _Found, trials: Sequence[Trial], in_the_way: Sequence[Barrier]) -> TradeoffResult:
    """The choice among trials, with what each block of its merge brings where it is not the same everywhere."""
    within = found.within
    policy = "frontier" if room.how.price is not None else "limits" if within else room.how.policy
    result = decided(room.bench.select.wanted, trials, policy, found.main_blocks, found.frontier, in_the_way)
    if within is not None:
        result = result.model_copy(update={"limits": within.rows, "missed": within.missed})
    merged = next((trial for trial in found.trials if trial.point.chosen and trial.point.policy == result.policy), None)
    if merged is None:
        return result
    blocks = [block for block, row in merged.table.items() if any(row.values())]
    with room.bench.live.staying():
        effects = left_out(room.bench, merged, blocks, found.model, room.progress)
    return result.model_copy(update={"effects": effects})


def _frontier(room: _Room, found: Linearised, uniform: Sequence[Trial]) -> tuple[list[Trial], Frontier]:
    """Merges at other prices: those that were measured, the one at the wanted price marked `chosen`, and the whole."""
    how = room.how
    wanted = set() if how.price is None else {how.price}
    at = prices(how.frontier or POINTS)
    solutions = traced(found.latest, sorted({*at, *wanted}), room.progress)
    shown = [each for each in solutions if how.frontier or each.price in wanted]
    trials = measured(room.bench, shown, room.progress)
    curve = frontier_of(room.bench, found.latest, solutions, trials if how.frontier else [], uniform)
    return [trial.named(chosen=trial.point.parameters["price"] in wanted) for trial in trials], curve


def _fitted(room: _Room) -> Trial:
    began = time.perf_counter()
    fitted = fit(room.bench.live, working_set(room.chat, room.prompts, room.targets, "fit"), room.progress)
    trial = room.bench.tried("fit", room.bench.means(fitted.coefficients), fitted.coefficients)
    passes = 3 * fitted.passes + room.bench.select.prompts  # a backward pass counts two
    return trial.named(chosen=True).costing(Cost(passes, time.perf_counter() - began))


def _relative_scores(blocks: Sequence[str], scores: Mapping[str, float], policy: Policy) -> dict[str, float]:
    """Scores divided by the largest, in [0, 1]; negative scores count 0."""
    positive = {block: max(0.0, scores.get(block, 0.0)) for block in blocks}
    largest = max(positive.values(), default=0.0)
    if largest <= 0:
        raise RecipeError(
            f"policy {policy!r} needs a finding that favours at least one block, and there is none. Use --policy best."
        )
    return {block: score / largest for block, score in positive.items()}


def decided(
    wanted: Requirements,
    trials: Sequence[Trial],
    policy: str,
    blocks: Sequence[str] = (),
    frontier: Frontier | None = None,
    in_the_way: Sequence[Barrier] = (),
) -> TradeoffResult:
    """The points, the policy whose point is merged, and how it compares with the others.

    policy: that of `Choosing`, or `frontier` where a merge of it was asked for. blocks: that bring most of linearised
    coefficients. in_the_way: barriers to the sources.
    """
    best = {trial.point.policy: trial for trial in trials if trial.point.chosen}
    merged: str = policy
    if policy == "best":
        gain = paired_objectives(wanted, best["linearised"].z, best["uniform"].z)
        merged = "linearised" if gain.low > 0 else "uniform"  # of equals, the one with fewer numbers
    comparisons = []
    for other, trial in best.items():
        if other != merged:
            gain = paired_objectives(wanted, best[merged].z, trial.z)
            comparisons.append(
                PolicyDifference(
                    policy=merged,
                    against=other,
                    difference=gain.value,
                    low=gain.low,
                    high=gain.high,
                    requests=gain.requests,
                )
            )
    points = with_pareto([trial.point for trial in trials])
    verdict = _verdict({name: trial.point for name, trial in best.items()}, merged, comparisons, policy == "best")
    if merged == "linearised" and blocks:
        total = len(best[merged].table)
        verdict += f" Nine tenths of its predicted gain come from {len(blocks)} of {total} blocks: {', '.join(blocks)}."
    if warning := warned(in_the_way):
        verdict += f" {warning}"
    return TradeoffResult(
        points=points,
        policy=merged,
        comparisons=comparisons,
        main_blocks=list(blocks),
        frontier=frontier,
        barriers=list(in_the_way),
        verdict=verdict,
    )


def _verdict(
    best: Mapping[str, TradeoffPoint], merged: str, comparisons: Sequence[PolicyDifference], free: bool
) -> str:
    """What is merged, what it is compared with, and by how much it is better. free: whether the policy was open."""
    sentences = [f"On select prompts {_told(best[merged])}."]
    if not any(best[merged].parameters.values()):
        sentences.append("Every coefficient is 0: no merge toward these sources is better than the adapted model.")
    for found in comparisons:
        sentences.append(f"Beside it, {_told(best[found.against])}.")
        interval = f"better by {found.low:+.2f} to {found.high:+.2f}, paired, {found.requests} requests"
        word = "worse" if found.difference < 0 else "better"
        name = _CALLED.get(merged, merged)
        sentences.append(f"The objective of {name} is {word} by {abs(found.difference):.2f} nats ({interval}).")
        if free and merged == "uniform":
            sentences.append(
                f"{found.against.capitalize()} is not clearly better, so the merge with fewer numbers stays."
            )
        elif found.high < 0 and merged not in _CALLED:
            sentences.append(f"--policy {found.against} writes the better one.")
        elif found.low <= 0 and merged not in _CALLED:
            sentences.append(f"The difference may be 0; --policy {found.against} writes the other one.")
    return " ".join(sentences)


def _told(point: TradeoffPoint) -> str:
    values = {source: value for source, value in point.parameters.items() if source != "price"}
    mixture = ", ".join(f"{value:.2f} toward {source}" for source, value in values.items())
    kind = "the best uniform merge" if point.policy == "uniform" else f"the merge with {_KINDS[point.policy]}"
    mean = "" if point.policy == "uniform" else "on average "
    return (
        f"{kind} ({mean}{mixture}) refuses {point.refusal:.0%} of what the base refuses and leaves "
        f"{point.capability:.0%} of the other answers as they are"
    )


def recipe_of(result: TradeoffResult, checkpoints: Mapping[str, Checkpoint], gains: Mapping[str, float]) -> Recipe:
    """The recipe of the chosen coefficients, each with its reason: the policy, and the block's path gain.

    checkpoints: role -> checkpoint, of all roles. gains: block -> nats of refusal that moving it to the base gives.
    """
    chosen = result.chosen()
    blocks = (chosen.coefficients if chosen else None) or {}
    sources = list(next(iter(blocks.values()), {}))
    table = {"default": dict.fromkeys(sources, 0.0), **blocks}
    used = {role: checkpoint for role, checkpoint in checkpoints.items() if role in ("adapted", *sources)}
    why = {
        block: f"by {result.policy}; moved to the base it gives {gains[block]:+.3f} nats of refusal"
        for block in blocks
        if block in gains
    }
    return Recipe.of(used, Coefficients(table, high=METHODS["blend"].coefficient.high), why)
