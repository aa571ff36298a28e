"""Choose coefficients: a policy's, beside the best uniform merge, all compared on `select` prompts.

Points are compared without generation. A lost refusal counts as back when its refusal log-odds are positive; an answer
counts as kept when greedy decoding gives the adapted model's first OPENING_TOKENS tokens (long answers rarely match to
the end). Behaviour on `report` is measured later, by generation.
"""

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import torch
from torch import Tensor

from vlsurgery.probes.attribution import lost_choices
from vlsurgery.probes.fitting import fit
from vlsurgery.probes.in_memory_merge import InMemoryMerge
from vlsurgery.probes.models import AS_FOUND, ChatModel, Loader
from vlsurgery.probes.models.forward import keeping_pictures
from vlsurgery.probes.policies import Policy, Toward
from vlsurgery.probes.prompts import Prompt
from vlsurgery.probes.results import TargetsResult, TradeoffPoint, TradeoffResult
from vlsurgery.probes.scoring import RefusalChoices, ScoredAnswers, greedy_matches, refusal_log_odds, scored_answers
from vlsurgery.probes.targets import OPENING_TOKENS, WorkingSet, evenly_spaced, working_set
from vlsurgery.surgery.alignment import Alignment
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.errors import RecipeError, SurgeryError
from vlsurgery.surgery.merge.coefficients import Coefficients
from vlsurgery.surgery.merge.recipe import Recipe
from vlsurgery.surgery.runtime.progress import Progress, no_progress

GRID = tuple(step / 10 for step in range(11))  # coefficients of each source that are tried
MAX_LOST = 128  # prompts whose refusal was lost that are scored
MAX_KEPT = 192  # prompts with an answer to keep that are scored


@dataclass(frozen=True)
class SelectionScorer:
    """The encoded `select` prompts that score a live model. Cells are (set, modality).

    The objective takes the worst cells: a mean would hide that a merge no longer sees.
    """

    lost: Sequence[RefusalChoices]
    lost_cells: Sequence[tuple[str, str]]
    keep: Sequence[ScoredAnswers]
    keep_cells: Sequence[tuple[str, str]]

    @classmethod
    def of(cls, chat: ChatModel, select: WorkingSet) -> "SelectionScorer":
        """Raises SurgeryError where no refusal was lost or no answer can be kept on `select`."""
        lost, keep = evenly_spaced(select.lost, MAX_LOST), evenly_spaced(select.keep, MAX_KEPT)
        if not lost or not keep:
            raise SurgeryError(
                f"there is nothing to choose coefficients by: of the harmful select prompts the base refuses "
                f"{len(select.refuse)} and the adapted model answers {len(lost)} of those; of the others it answers "
                f"{len(keep)}. Give other prompts with --prompts, or other checkpoints."
            )
        return cls(
            lost_choices(chat, lost),
            [_cell(item.prompt) for item in lost],
            scored_answers(chat, [prompt for prompt, _ in keep], [answer[:OPENING_TOKENS] for _, answer in keep]),
            [_cell(prompt) for prompt, _ in keep],
        )

    def score(self, chat: ChatModel) -> tuple[list[float], list[float]]:
        """Two lists with a rate per cell: refusals that are back, and answers that are kept."""
        back = refusal_log_odds(chat, self.lost) > 0
        kept = greedy_matches(chat, self.keep)
        return _by_cell(back, self.lost_cells), _by_cell(kept, self.keep_cells)

    @property
    def prompts(self) -> int:
        return len(self.lost_cells) + len(self.keep_cells)


def choose(
    alignment: Alignment,
    prompts: Sequence[Prompt],
    targets: TargetsResult,
    policy: Policy = "fit",
    toward: Toward = "both",
    attribution: Mapping[str, float] | None = None,
    weights: Mapping[str, float] | None = None,
    progress: Progress = no_progress,
    loader: Loader = AS_FOUND,
) -> TradeoffResult:
    """The points of `policy` and of uniform merges on a grid over the same sources.

    alignment: of all roles. attribution: block -> path gain; weights: block -> relative weight change; needed by the
        policies of these names. loader: how the checkpoint is loaded.
    The best point of each policy is marked `chosen` and keeps its coefficients. Raises RecipeError where a source or
    a finding that the policy needs is missing, SurgeryError where there is nothing to choose by.
    """
    sources = sources_of(alignment.checkpoints, toward)
    chat = loader.load(alignment.checkpoints["adapted"])
    live = InMemoryMerge(chat, alignment.among(("adapted", *sources)), sources)
    scorer = SelectionScorer.of(chat, working_set(chat, prompts, targets, "select"))
    with keeping_pictures(chat), live.staying():
        points = _best_of(_grid_points(live, scorer, "uniform", dict.fromkeys(live.blocks, 1.0), progress))
    if policy == "fit":
        points.append(_fitted_point(live, scorer, working_set(chat, prompts, targets, "fit"), progress))
    elif policy != "uniform":
        scores = _relative_scores(live.blocks, attribution if policy == "attribution" else weights, policy)
        points += _best_of(_grid_points(live, scorer, policy, scores, progress))
    return TradeoffResult(points=points, policy=policy, verdict=_verdict(points, policy))


def sources_of(checkpoints: Collection[str], toward: Toward) -> tuple[str, ...]:
    """The roles among `checkpoints` to merge toward. Raises RecipeError where there is none."""
    wanted = ("base", "safety") if toward == "both" else (toward,)
    sources = tuple(role for role in wanted if role in checkpoints)
    if not sources:
        raise RecipeError(
            f"there is no {toward} checkpoint in this case to merge toward; it has {', '.join(checkpoints)}"
        )
    return sources


def _cell(prompt: Prompt) -> tuple[str, str]:
    return prompt.set, prompt.modality


def _by_cell(hits: Tensor, cells: Sequence[tuple[str, str]]) -> list[float]:
    rates = []
    for cell in sorted(set(cells)):
        member = torch.tensor([other == cell for other in cells])
        rates.append(float(hits[member].double().mean()))
    return rates


def _grid(sources: Sequence[str]) -> list[dict[str, float]]:
    """All coefficients of the sources on the grid that sum to at most 1, so that the merge stays in their hull."""
    if len(sources) == 1:
        return [{sources[0]: coefficient} for coefficient in GRID]
    return [{"base": b, "safety": s} for b in GRID for s in GRID if b + s <= 1 + 1e-9]


def _grid_points(
    live: InMemoryMerge, scorer: SelectionScorer, policy: Policy, scores: Mapping[str, float], progress: Progress
) -> Iterable[TradeoffPoint]:
    """One point per grid point: its coefficients, times each block's score in [0, 1]."""
    for scale in progress(_grid(live.sources), f"comparing {policy} merges"):
        coefficients = {
            block: {source: value * scores[block] for source, value in scale.items()} for block in live.blocks
        }
        yield _point(live, scorer, policy, scale, coefficients)


def _point(
    live: InMemoryMerge,
    scorer: SelectionScorer,
    policy: Policy,
    parameters: Mapping[str, float],
    coefficients: dict[str, dict[str, float]],
    equivalents: int = 0,
    began: float | None = None,
) -> TradeoffPoint:
    began = time.perf_counter() if began is None else began
    with live.at(coefficients) as chat:
        back, kept = scorer.score(chat)
    return TradeoffPoint(
        policy=policy,
        parameters=dict(parameters),
        coefficients=coefficients,
        refusal=fmean(back),
        capability=fmean(kept),
        objective=(min(back) + min(kept)) / 2,
        forward_equivalents=equivalents + scorer.prompts,
        seconds=time.perf_counter() - began,
        chosen=False,
    )


def _best_of(points: Iterable[TradeoffPoint]) -> list[TradeoffPoint]:
    """All points, the best marked `chosen`; of equally good ones that with the smallest coefficients.

    Only the best keeps its coefficients, and its cost is that of the whole grid.
    """
    made = list(points)
    best = max(made, key=lambda point: (point.objective, -sum(point.parameters.values())))
    cost = {
        "forward_equivalents": sum(point.forward_equivalents for point in made),
        "seconds": sum(point.seconds for point in made),
    }
    return [
        point.model_copy(update={"chosen": True, **cost} if point is best else {"coefficients": None}) for point in made
    ]


def _fitted_point(
    live: InMemoryMerge, scorer: SelectionScorer, fit_prompts: WorkingSet, progress: Progress
) -> TradeoffPoint:
    began = time.perf_counter()
    fitted = fit(live, fit_prompts, progress)
    equivalents = 3 * fitted.passes  # a backward pass counts two
    mean = {
        source: sum(row[source] for row in fitted.coefficients.values()) / len(fitted.coefficients)
        for source in live.sources
    }
    point = _point(live, scorer, "fit", mean, fitted.coefficients, equivalents, began)
    return point.model_copy(update={"chosen": True})


def _relative_scores(blocks: Sequence[str], scores: Mapping[str, float] | None, policy: Policy) -> dict[str, float]:
    """Scores divided by the largest, in [0, 1]; negative scores count 0."""
    positive = {block: max(0.0, (scores or {}).get(block, 0.0)) for block in blocks}
    largest = max(positive.values(), default=0.0)
    if largest <= 0:
        raise RecipeError(
            f"policy {policy!r} needs a finding that favours at least one block, and there is none. Use --policy fit."
        )
    return {block: score / largest for block, score in positive.items()}


def _verdict(points: Sequence[TradeoffPoint], policy: Policy) -> str:
    def told(point: TradeoffPoint) -> str:
        return f"{point.refusal:.0%} of the lost refusals come back and {point.capability:.0%} of the answers stay"

    chosen = {point.policy: point for point in points if point.chosen}
    uniform = chosen["uniform"]
    mixture = ", ".join(f"{value:.1f} toward {source}" for source, value in uniform.parameters.items())
    text = f"On select prompts, with the best uniform merge ({mixture}) {told(uniform)}"
    if policy == "uniform":
        return f"{text}."
    text = f"{text}; with the coefficients by {policy} {told(chosen[policy])}."
    if uniform.objective >= chosen[policy].objective:
        text += f" Here the uniform merge is as good or better; --policy uniform writes that one instead of {policy}."
    return text


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
    return Recipe.of(used, Coefficients(table), why)
