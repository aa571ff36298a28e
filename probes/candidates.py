"""The base's direction chosen by what it does: candidates are ablated and added, and the published rules choose.

Arditi et al. (arXiv 2406.11717) score every position and layer in full. Here candidates are pruned first: by their
layer, by separation, and by the scores of a few prompts, so that all of it costs at most a fifth of that.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from vlsurgery.probes.added_direction import random_directions
from vlsurgery.probes.contrasts import Directions, Separations, is_harmful, separations
from vlsurgery.probes.directions import select
from vlsurgery.probes.directions.choice import LATE_SHARE, MAX_KL, MIN_STEERING
from vlsurgery.probes.evaluation.intervals import rate
from vlsurgery.probes.evaluation.thresholds import enough
from vlsurgery.probes.interventions import ablate, add
from vlsurgery.probes.models import ChatModel
from vlsurgery.probes.next_tokens import (
    NextTokens,
    OpeningReading,
    next_divergence,
    next_states,
    next_tokens,
    read_openings,
)
from vlsurgery.probes.prompts import Prompt
from vlsurgery.probes.results import CandidateDirection, DirectionEffect, DirectionScores, DirectionSelection, Rate
from vlsurgery.probes.targets import evenly_spaced

MAX_PROMPTS: Final = 32  # of each side, to score candidates on and to show the effect on
MIN_PROMPTS: Final = 4  # of each side, fewer are not scored
FIRST_SHARE: Final = 1 / 8  # of the prompts, by whose scores candidates are pruned
COST_SHARE: Final = 1 / 5  # of scoring all candidates in full, which all scoring together keeps to
# How far beyond the published limits a score of the few first prompts may be, in nats, before it counts as a failure.
SLACK_KL: Final = 2 * MAX_KL
SLACK_STEERING: Final = 2.0
RANDOM_DIRECTIONS: Final = 5


@dataclass(frozen=True)
class ScoredSides:
    """Harmful and harmless prompts that one model is scored on.

    openings: the tokens that begin a refusal. reference: the model's own states behind the harmless prompts.
    """

    chat: ChatModel
    openings: Tensor
    harmful: list[NextTokens]
    harmless: list[NextTokens]
    reference: list[Tensor]

    @classmethod
    def of(
        cls, chat: ChatModel, openings: Sequence[int], harmful: Sequence[Prompt], harmless: Sequence[Prompt]
    ) -> "ScoredSides":
        ours, theirs = next_tokens(chat, harmful), next_tokens(chat, harmless)
        return cls(chat, torch.tensor(list(openings), device=chat.device), ours, theirs, next_states(chat, theirs))

    def read(self, batches: Sequence[NextTokens]) -> OpeningReading:
        """Refusals as the model is now."""
        return read_openings(self.chat, batches, self.openings)

    def ablated(self, vector: Tensor) -> OpeningReading:
        """Refusals of the harmful prompts with a direction ablated."""
        with ablate(self.chat, vector):
            return self.read(self.harmful)

    def added(self, vector: Tensor, layer: int) -> OpeningReading:
        """Refusals of the harmless prompts with a direction added behind a layer, at every token."""
        with add(self.chat, vector, layers=layer):
            return self.read(self.harmless)

    def scores(self, vector: Tensor, layer: int) -> "Scores":
        """Of a direction that is added behind a layer."""
        with ablate(self.chat, vector):
            divergence = next_divergence(self.chat, self.harmless, self.reference)
        bypass, induction = self.ablated(vector).odds, self.added(vector, layer).odds
        return float(bypass.mean()), float(induction.mean()), divergence


Scores = tuple[float, float, float]  # bypass, induction and divergence, in nats


@dataclass(frozen=True)
class ScoredPrompts:
    """Prompts of `select` on which candidates are scored, by their ids: what the base refuses and answers as it
    should."""

    harmful: tuple[str, ...]
    harmless: tuple[str, ...]

    @classmethod
    def of(cls, chat: ChatModel, openings: Sequence[int], prompts: Sequence[Prompt]) -> "ScoredPrompts":
        """Harmful prompts whose likeliest next token begins a refusal, and harmless ones whose doesn't."""
        sides = [[p for p in prompts if is_harmful(p) == side] for side in (True, False)]
        ids = torch.tensor(list(openings), device=chat.device)
        kept = []
        for side, wanted in zip(sides, (True, False), strict=True):
            refused = read_openings(chat, next_tokens(chat, side), ids).refused.tolist()
            fitting = [prompt.id for prompt, each in zip(side, refused, strict=True) if each == wanted]
            kept.append(tuple(evenly_spaced(fitting, MAX_PROMPTS)))
        return cls(*kept)

    @property
    def cost(self) -> int:
        """Forward passes of a prompt that a candidate's three scores take."""
        return len(self.harmful) + 2 * len(self.harmless)

    def too_few(self, told_apart: bool) -> str | None:
        """Why directions can't be scored; None where they can. told_apart: whether refusals begin otherwise at all."""
        if not told_apart:
            return "the base's refusals begin as its answers do, so that the next token does not tell them apart"
        if min(len(self.harmful), len(self.harmless)) >= MIN_PROMPTS:
            return None
        return (
            f"by the next token the base refuses {len(self.harmful)} harmful select prompts and answers "
            f"{len(self.harmless)} harmless ones; to score directions takes {MIN_PROMPTS} of each"
        )

    def first(self) -> "ScoredPrompts":
        """A few of them, at least two a side."""
        sides = (self.harmful, self.harmless)
        return ScoredPrompts(*(tuple(evenly_spaced(side, max(2, round(len(side) * FIRST_SHARE)))) for side in sides))


@dataclass(frozen=True)
class Candidates:
    """What is known of directions before any of them is ablated or added.

    separated: of the directions on the prompts to choose on. words: the tokens with which refusals begin, as text.
    """

    separated: Separations
    scored: ScoredPrompts
    words: tuple[str, ...]

    @classmethod
    def of(
        cls, chat: ChatModel, prompts: Sequence[Prompt], directions: Directions, openings: Sequence[int]
    ) -> "Candidates":
        """prompts: of `select`, in text, both sides. openings: the tokens with which the model's refusals begin."""
        scored = ScoredPrompts.of(chat, openings, prompts) if openings else ScoredPrompts((), ())
        words = tuple(str(chat.tokenizer.decode([token])) for token in openings)
        return cls(separations(chat, prompts, directions), scored, words)


Place = tuple[int, int]  # position, as an index, and layer
ScorePlaces = Callable[[ScoredPrompts, Sequence[Place]], Iterable[Scores]]
"""Scores the directions of some places on some prompts, in their order."""


@dataclass
class Sweep:
    """The scores of all candidates, as they come in. rows: place -> what is known of its direction."""

    directions: Directions
    rows: dict[Place, CandidateDirection]

    @classmethod
    def of(cls, directions: Directions, separated: Separations) -> "Sweep":
        """Before anything is scored: late layers and those that separate no better than chance have a reason."""
        positions, layers = separated.aurocs.shape
        late = int(layers * (1.0 - LATE_SHARE))
        rows = {}
        for position in range(positions):
            for layer in range(layers):
                area = float(separated.aurocs[position, layer])
                why = "separates no better than chance" if area <= separated.null else None
                rows[position, layer] = CandidateDirection(
                    position=directions.positions[position],
                    layer=layer,
                    refusal_score=None,
                    steering_score=None,
                    kl_div_score=None,
                    auroc=area,
                    reason="in the last fifth of the layers" if layer >= late else why,
                )
        return cls(directions, rows)

    def close(self, reason: str, kept: Collection[Place] = ()) -> None:
        """Give a reason to all that have none yet, but those that are kept."""
        for place, row in self.rows.items():
            if row.reason is None and place not in kept:
                self.rows[place] = row.model_copy(update={"reason": reason})

    def open(self) -> list[Place]:
        """The candidates that nothing rules out so far, the best separated first."""
        left = [place for place, row in self.rows.items() if row.reason is None]
        return sorted(left, key=lambda place: -self.rows[place].auroc)

    def score(self, scored: ScoredPrompts, score: ScorePlaces, cost_share: float) -> float:
        """Score candidates, after pruning those that can't all be scored. Returns the share of all that it cost."""
        full = len(self.rows) * scored.cost
        budget, spent, places = cost_share * full, 0, self.open()
        if len(places) * scored.cost > budget:
            first = scored.first()
            tried = places[: max(1, int(budget / 2 // first.cost))]
            self.close("separates less than others", tried)
            spent = len(tried) * first.cost
            places = self._promising(tried, score(first, tried))[: max(1, int((budget - spent) // scored.cost))]
            self.close("ablating it lowers refusals of the first prompts less than others do", places)
        for place, (bypass, induction, divergence) in zip(places, score(scored, places), strict=True):
            self.rows[place] = self.rows[place].model_copy(
                update={"refusal_score": bypass, "steering_score": induction, "kl_div_score": divergence}
            )
        return (spent + len(places) * scored.cost) / full

    def _promising(self, places: Sequence[Place], scores: Iterable[Scores]) -> list[Place]:
        """The places by their scores on a few prompts: those that are far from passing last, then by bypass."""
        ranks: dict[Place, tuple[bool, float]] = {}
        for place, (bypass, induction, divergence) in zip(places, scores, strict=True):
            self.rows[place] = self.rows[place].model_copy(update={"first_refusal_score": bypass})
            ranks[place] = (divergence > MAX_KL + SLACK_KL or induction < MIN_STEERING - SLACK_STEERING, bypass)
        return sorted(places, key=ranks.__getitem__)


def choose_direction(
    candidates: Candidates, directions: Directions, score: ScorePlaces, cost_share: float = COST_SHARE
) -> DirectionSelection:
    """The direction whose ablation lowers refusals most among those that pass the published rules.

    candidates: of the same directions. score: by a model, wherever that is. cost_share: of scoring all in full, what
    scoring may cost; 1 prunes late layers and what is at chance, and no more.
    """
    scored, sweep, cost = candidates.scored, Sweep.of(directions, candidates.separated), 0.0
    reason = scored.too_few(told_apart=bool(candidates.words))
    if reason is None:
        cost = sweep.score(scored, score, cost_share)
    sweep.close("not scored", [place for place, row in sweep.rows.items() if row.refusal_score is not None])
    rows = [*sweep.rows.values()]
    choice = select([row.model_dump() for row in rows], directions.values.shape[1])
    return DirectionSelection(
        candidates=rows,
        choice=choice,
        shown=_strongest(rows) if choice.chosen is None else _at(rows, choice.chosen),
        refusal_tokens=list(candidates.words),
        harmful=len(scored.harmful),
        harmless=len(scored.harmless),
        cost=cost,
        reason=reason,
    )


def _at(rows: Sequence[CandidateDirection], chosen: DirectionScores) -> CandidateDirection:
    return next(row for row in rows if (row.position, row.layer) == (chosen.position, chosen.layer))


def _strongest(rows: Sequence[CandidateDirection]) -> CandidateDirection | None:
    """Of the scored directions that induce refusals, else of all scored, the one whose ablation lowers them most."""
    scored = [(row.steering_score, row.refusal_score, row) for row in rows if row.refusal_score is not None]
    ranked = [(induced is None or induced < MIN_STEERING, bypass, at) for at, (induced, bypass, _) in enumerate(scored)]
    return scored[min(ranked)[-1]][-1] if ranked else None


def direction_effect(
    chat: ChatModel, prompts: Sequence[Prompt], vector: Tensor, layer: int, openings: Sequence[int]
) -> DirectionEffect:
    """What ablating and adding a direction does to the refusals of `report` prompts, beside random directions.

    prompts: in text, both sides; at most MAX_PROMPTS of each are asked. vector: [hidden], added behind `layer` as long
    as it is. Random directions are as long, and always the same.
    """
    ours, theirs = (evenly_spaced([p for p in prompts if is_harmful(p) == side], MAX_PROMPTS) for side in (True, False))
    sides = ScoredSides.of(chat, openings, ours, theirs)
    randoms = random_directions(vector, layer, RANDOM_DIRECTIONS)
    usual, without = sides.read(sides.harmful), sides.ablated(vector)
    plain, with_it = sides.read(sides.harmless), sides.added(vector, layer)
    controls = [(sides.ablated(each), sides.added(each, layer)) for each in randoms]
    refused, ablated = _refused(usual, ours), _refused(without, ours)
    accepted, added = _refused(plain, theirs), _refused(with_it, theirs)
    ablated_random, added_random = ([float(pair[way].refused.double().mean()) for pair in controls] for way in (0, 1))
    odds = {"refused": usual.odds, "ablated": without.odds, "accepted": plain.odds, "added": with_it.odds}
    for way, name in enumerate(("ablated_random", "added_random")):
        odds[name] = torch.stack([pair[way].odds for pair in controls])
    return DirectionEffect(
        refused=refused,
        ablated=ablated,
        ablated_random=ablated_random,
        accepted=accepted,
        added=added,
        added_random=added_random,
        log_odds={name: float(values.mean()) for name, values in odds.items()},
        causal=carries_refusals(refused, ablated, accepted, added, ablated_random, added_random),
    )


def _refused(reading: OpeningReading, prompts: Sequence[Prompt]) -> Rate:
    """The share of prompts whose likeliest next token begins a refusal."""
    return rate(reading.refused.tolist(), [prompt.request for prompt in prompts])


def carries_refusals(
    refused: Rate, ablated: Rate, accepted: Rate, added: Rate, ablated_random: list[float], added_random: list[float]
) -> bool:
    """Whether ablating a direction halves refusals at least and adding it brings some, and neither any random one does
    as much. Never told of fewer requests than a claim takes."""
    known = [each.rate for each in (refused, ablated, accepted, added)]
    before, without, usual, with_it = (value or 0.0 for value in known)
    told = None not in known and enough(min(refused.requests, accepted.requests))
    halved = before > 0 and without <= before / 2 and without < min(ablated_random)
    return told and halved and with_it > max([usual, *added_random])
