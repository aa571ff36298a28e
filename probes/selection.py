"""Choose coefficients: a policy's, beside the best uniform merge, all compared on `select` prompts.

Points are compared without generating. A lost refusal counts as back when going on as a refusal is likelier than not
at the token where refusal and answer part; an answer counts as kept when greedy decoding would begin with the adapted
model's own first OPENING tokens (long answers hardly ever match to the end). What the points do on `report` is measured
later, by generating.
"""

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import torch
from torch import Tensor

from vlsurgery.probes.attribution import lost_choices
from vlsurgery.probes.fitting import fit
from vlsurgery.probes.merging import InMemoryMerge
from vlsurgery.probes.models import ChatModel, load
from vlsurgery.probes.policies import Policy, Toward
from vlsurgery.probes.prompts import Prompt
from vlsurgery.probes.results import TargetsResult, TradeoffPoint, TradeoffResult
from vlsurgery.probes.scoring import RefusalChoices, ScoredAnswers, greedy_matches, known, refusal_log_odds
from vlsurgery.probes.targets import OPENING, WorkingSet, spread, working
from vlsurgery.surgery.alignment import Alignment
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.errors import RecipeError, SurgeryError
from vlsurgery.surgery.merge.coefficients import Coefficients
from vlsurgery.surgery.merge.recipe import Recipe
from vlsurgery.surgery.runtime.progress import Progress, no_progress

STRENGTHS = tuple(step / 10 for step in range(11))
MOST_LOST = 128
MOST_KEPT = 192


@dataclass(frozen=True)
class SelectionScorer:
    """The `select` prompts, ready to score a live model. Cells are (set, modality).

    A merge is as good as its worst cells: an average would let a merge that no longer sees pass for a good one.
    """

    lost: Sequence[RefusalChoices]
    lost_cells: Sequence[tuple[str, str]]
    keep: Sequence[ScoredAnswers]
    keep_cells: Sequence[tuple[str, str]]

    @classmethod
    def of(cls, chat: ChatModel, select: WorkingSet) -> "SelectionScorer":
        """Raises SurgeryError where no refusal was lost or no answer can be kept on `select`."""
        lost, keep = spread(select.lost, MOST_LOST), spread(select.keep, MOST_KEPT)
        if not lost or not keep:
            raise SurgeryError(
                f"there is nothing to choose coefficients by: of the harmful select prompts the base refuses "
                f"{len(select.refuse)} and the adapted model answers {len(lost)} of those; of the others it answers "
                f"{len(keep)}. Give other prompts with --prompts, or other checkpoints."
            )
        return cls(
            lost_choices(chat, lost),
            [_cell(item.prompt) for item in lost],
            known(chat, [prompt for prompt, _ in keep], [answer[:OPENING] for _, answer in keep]),
            [_cell(prompt) for prompt, _ in keep],
        )

    def score(self, chat: ChatModel) -> tuple[list[float], list[float]]:
        """Per cell, the share of refusals that are back and the share of answers that are kept."""
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
) -> TradeoffResult:
    """Coefficients by `policy`, and the best uniform merge of a grid over the same sources beside them.

    alignment: of all roles. attribution: block -> path gain; weights: block -> relative weight change; needed by the
        policies of these names.
    The chosen point of each policy has `chosen` and its coefficients. Raises RecipeError where a source or a finding
    that the policy needs is missing, SurgeryError where there is nothing to choose by.
    """
    sources = sources_of(alignment.checkpoints, toward)
    chat = load(alignment.checkpoints["adapted"])
    live = InMemoryMerge(chat, alignment.among(("adapted", *sources)), sources)
    scorer = SelectionScorer.of(chat, working(chat, prompts, targets, "select"))
    points = _best_of(_scaled(live, scorer, "uniform", dict.fromkeys(live.blocks, 1.0), progress))
    if policy == "fit":
        points.append(_fitted(live, scorer, working(chat, prompts, targets, "fit"), progress))
    elif policy != "uniform":
        scores = _shares(live.blocks, attribution if policy == "attribution" else weights, policy)
        points += _best_of(_scaled(live, scorer, policy, scores, progress))
    return TradeoffResult(points=points, policy=policy, verdict=_verdict(points, policy))


def sources_of(checkpoints: Collection[str], toward: Toward) -> tuple[str, ...]:
    """The roles to merge toward, of those that there are. Raises RecipeError where there is none."""
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


def _strengths(sources: Sequence[str]) -> list[dict[str, float]]:
    """The grid over the sources' strengths; together they are at most 1, or the result would leave their hull."""
    if len(sources) == 1:
        return [{sources[0]: strength} for strength in STRENGTHS]
    return [{"base": b, "safety": s} for b in STRENGTHS for s in STRENGTHS if b + s <= 1 + 1e-9]


def _scaled(
    live: InMemoryMerge, scorer: SelectionScorer, policy: Policy, scores: Mapping[str, float], progress: Progress
) -> Iterable[TradeoffPoint]:
    """One point per strength: a block's coefficient is the strength times the block's score in [0, 1]."""
    for strength in progress(_strengths(live.sources), f"comparing {policy} merges"):
        coefficients = {
            block: {source: value * scores[block] for source, value in strength.items()} for block in live.blocks
        }
        yield _measured(live, scorer, policy, strength, coefficients)


def _measured(
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
    """All points, the best marked; of equal ones the least intervention.

    Only the best keeps its coefficients, and it bears the cost of the whole grid that it was found by.
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


def _fitted(live: InMemoryMerge, scorer: SelectionScorer, working_: WorkingSet, progress: Progress) -> TradeoffPoint:
    began = time.perf_counter()
    fitted = fit(live, working_, progress)
    equivalents = 3 * fitted.passes  # a backward pass counts two
    mean = {
        source: sum(row[source] for row in fitted.coefficients.values()) / len(fitted.coefficients)
        for source in live.sources
    }
    point = _measured(live, scorer, "fit", mean, fitted.coefficients, equivalents, began)
    return point.model_copy(update={"chosen": True})


def _shares(blocks: Sequence[str], scores: Mapping[str, float] | None, policy: Policy) -> dict[str, float]:
    """Scores as shares of the largest, in [0, 1]; what speaks against moving a block counts 0."""
    known_scores = {block: max(0.0, (scores or {}).get(block, 0.0)) for block in blocks}
    largest = max(known_scores.values(), default=0.0)
    if largest <= 0:
        raise RecipeError(
            f"policy {policy!r} needs a finding that favours at least one block, and there is none. Use --policy fit."
        )
    return {block: score / largest for block, score in known_scores.items()}


def _verdict(points: Sequence[TradeoffPoint], policy: Policy) -> str:
    def told(point: TradeoffPoint) -> str:
        return f"{point.refusal:.0%} of the lost refusals come back and {point.capability:.0%} of the answers stay"

    chosen = {point.policy: point for point in points if point.chosen}
    uniform = chosen["uniform"]
    strength = ", ".join(f"{value:.1f} toward {source}" for source, value in uniform.parameters.items())
    text = f"On select prompts, with the best uniform merge ({strength}) {told(uniform)}"
    if policy == "uniform":
        return f"{text}."
    text = f"{text}; with the coefficients by {policy} {told(chosen[policy])}."
    if uniform.objective >= chosen[policy].objective:
        text += f" Here the uniform merge is as good or better; --policy uniform writes that one instead of {policy}."
    return text


def recipe_of(result: TradeoffResult, checkpoints: Mapping[str, Checkpoint], gains: Mapping[str, float]) -> Recipe:
    """The chosen coefficients as an order for a merge, each with its reason: the policy, and the block's path gain.

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
