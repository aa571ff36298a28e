"""The tasks of a probe: what is asked of one model at a time, and what comes back."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from torch import Tensor

from vlsurgery.probes.attribution_passes import Pass
from vlsurgery.probes.candidates import Candidates, ScoredPrompts, ScoredSides, Scores, direction_effect
from vlsurgery.probes.contrasts import (
    Directions,
    SeparatedRole,
    contrast,
    difference_of_means,
    is_harmful,
    separate,
)
from vlsurgery.probes.cosine_nulls import load_states, save_states
from vlsurgery.probes.evaluation.generate import DEFAULT_TOKENS, Completion, Written, complete
from vlsurgery.probes.kept_layers import kept_as_adapted
from vlsurgery.probes.layer_readings import READ_MODALITIES, LayerReadings
from vlsurgery.probes.loss_teller import LossTeller
from vlsurgery.probes.next_tokens import next_tokens, opening_tokens, refusal_openings
from vlsurgery.probes.other_template import OwnReading, under_template
from vlsurgery.probes.probing.seat import GRAFT, ProbeSeat
from vlsurgery.probes.prompts import Prompt
from vlsurgery.probes.results import DirectionEffect, LossKind, OtherTemplate, Patching, Target
from vlsurgery.probes.targets import openings_in, without_picture
from vlsurgery.probes.templates import ChatTemplate

# Modalities with pictures of which directions are made: one that harmful and harmless requests share, and their own.
PICTURED = ("benign", "own")
ANSWER_TOKENS: Final = DEFAULT_TOKENS  # of a model's own completion, at most


@dataclass(frozen=True)
class OwnAnswers:
    """What a model said to some prompts. prompts: their ids; without those that it can't take."""

    prompts: tuple[str, ...]
    completions: tuple[Completion, ...]


@dataclass(frozen=True)
class AskAnswers:
    """A model's own completions of some prompts, by their ids. The base, where it does not see, is asked them without
    their pictures; another model is not asked those with a picture then."""

    role: str
    prompts: tuple[str, ...]

    def do(self, seat: ProbeSeat) -> OwnAnswers:
        chat = seat.chat(self.role)
        named = [seat.prompts[each] for each in self.prompts]
        taken = named if self.role == "base" else chat.answerable(named)
        asked = taken if chat.sees else [without_picture(prompt) for prompt in taken]
        label = f"asking {self.role} for its own answers"
        said = complete(chat, asked, label, seat.progress, ANSWER_TOKENS, written=self._written(seat))
        return OwnAnswers(tuple(prompt.id for prompt in taken), tuple(said))

    def _written(self, seat: ProbeSeat) -> Written | None:
        keep = seat.written
        if keep is None:
            return None
        return lambda prompts, said: keep(self.role, [prompt.id for prompt in prompts], said)


@dataclass(frozen=True)
class MeasuredRole:
    """A model's directions in one modality, and how well they separate; None where it was not asked, or where prompts
    lack a side. notes: on the model."""

    directions: Directions | None = None
    separated: SeparatedRole | None = None
    lacks_side: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class MeasureDirections:
    """Directions and separation of one model in one modality; with their own pictures where there are any."""

    role: str
    modality: str

    def do(self, seat: ProbeSeat) -> MeasuredRole:
        chat = seat.chat(self.role)
        if self.modality != "text":
            return self._measured(seat) if chat.sees else MeasuredRole()
        notes = kept_as_adapted(seat.live_as_it_is()) if self.role == GRAFT else chat.notes
        return replace(self._measured(seat), notes=tuple(notes))

    def _measured(self, seat: ProbeSeat) -> MeasuredRole:
        prompts = list(seat.prompts.values())
        made_on, shown_on = (contrast(prompts, split, self.modality) for split in ("fit", "report"))
        if self.modality == "own" and not (made_on or shown_on):
            return MeasuredRole()
        if not (has_both(made_on) and has_both(shown_on)):
            return MeasuredRole(lacks_side=True)
        chat = seat.chat(self.role)
        directions = difference_of_means(chat, made_on)
        return MeasuredRole(directions, separate(chat, shown_on, directions, self.role, self.modality))


@dataclass(frozen=True)
class OpeningsFound:
    """What is known of the base once it was asked. openings: tokens with which its refusals begin, and its answers to
    harmless prompts don't."""

    openings: tuple[int, ...]
    readings: LayerReadings
    template: ChatTemplate | None


@dataclass(frozen=True)
class ReadBase:
    """Openings and layers of the base, whose states other models are held against.

    refusals: its own. directions: its own in text.
    """

    refusals: tuple[Target, ...]
    directions: Directions | None

    def do(self, seat: ProbeSeat) -> OpeningsFound:
        chat, prompts = seat.chat("base"), list(seat.prompts.values())
        harmless = [prompt for prompt in contrast(prompts, "fit", "text") if not is_harmful(prompt)]
        first = [target.ids for target in self.refusals]
        openings = refusal_openings(first, opening_tokens(chat, next_tokens(chat, harmless)))
        own, readings = openings_in(chat, self.refusals, openings), LayerReadings()
        for modality in READ_MODALITIES:
            readings.take("base", modality, chat, prompts, own, self.directions)
        save_states(seat.files.states, readings.reference)
        return OpeningsFound(tuple(openings), readings.without_reference(), chat.template)


@dataclass(frozen=True)
class Refusing:
    """How the base refuses. openings: tokens, as the base's. refusals: that begin with one. directions: the base's in
    text."""

    openings: tuple[int, ...]
    refusals: tuple[Target, ...]
    directions: Directions | None

    def openings_of(self, seat: ProbeSeat, role: str) -> list[int]:
        """The openings as tokens of a role's model."""
        return openings_in(seat.chat(role), self.refusals, self.openings)


@dataclass(frozen=True)
class ReadLayers:
    """What every layer of one model holds of one modality, held against the base."""

    role: str
    modality: str
    base: Refusing

    def do(self, seat: ProbeSeat) -> LayerReadings:
        chat, openings = seat.chat(self.role), self.base.openings_of(seat, self.role)
        found = LayerReadings(reference=load_states(seat.files.states))
        found.take(self.role, self.modality, chat, list(seat.prompts.values()), openings, self.base.directions)
        return found.without_reference()


@dataclass(frozen=True)
class ReadUnderTemplate:
    """What changes of one model in text under the base's chat template."""

    own: OwnReading
    template: ChatTemplate | None
    base: Refusing

    def do(self, seat: ProbeSeat) -> OtherTemplate:
        chat, openings = seat.chat(self.own.role), self.base.openings_of(seat, self.own.role)
        return under_template(chat, self.template, list(seat.prompts.values()), openings, self.own)


@dataclass(frozen=True)
class FindCandidates:
    """What is known of the base's directions on `select` prompts before any of them is tried."""

    directions: Directions
    openings: tuple[int, ...]

    def do(self, seat: ProbeSeat) -> Candidates:
        asked = contrast(list(seat.prompts.values()), "select", "text")
        return Candidates.of(seat.chat("base"), asked, self.directions, self.openings)


@dataclass(frozen=True)
class PlacedDirection:
    """A direction [hidden], and the layer behind which it is added."""

    vector: Tensor
    layer: int


@dataclass(frozen=True)
class ScoreDirections:
    """What ablating and adding some directions does to the base on some prompts."""

    directions: tuple[PlacedDirection, ...]
    openings: tuple[int, ...]
    prompts: ScoredPrompts

    def do(self, seat: ProbeSeat) -> list[Scores]:
        asked = [[seat.prompts[each] for each in side] for side in (self.prompts.harmful, self.prompts.harmless)]
        sides = ScoredSides.of(seat.chat("base"), self.openings, *asked)
        shown = seat.progress(self.directions, "ablating and adding directions", len(self.directions))
        return [sides.scores(each.vector, each.layer) for each in shown]


@dataclass(frozen=True)
class ShowEffect:
    """The effect of a direction on the base's refusals of `report` prompts; None where these lack a side."""

    direction: PlacedDirection
    openings: tuple[int, ...]

    def do(self, seat: ProbeSeat) -> DirectionEffect | None:
        asked = contrast(list(seat.prompts.values()), "report", "text")
        if not has_both(asked):
            return None
        return direction_effect(seat.chat("base"), asked, self.direction.vector, self.direction.layer, self.openings)


@dataclass(frozen=True)
class PatchedGraft:
    """The graft patched into the adapted model; nothing where no prompt of the modality is shown, or where refusals
    have no opening."""

    patching: Patching | None = None
    loss: LossKind | None = None
    lacks_opening: bool = False


@dataclass(frozen=True)
class PatchGraft:
    """Patches the graft into the adapted model, and tells the kind of loss, in text or with a picture.

    separated: how well roles tell harmful from harmless, by role and modality. answers: the adapted model's to prompts
    that the base refuses.
    """

    pictured: bool
    base: Refusing
    separated: dict[tuple[str, str], SeparatedRole] = field(hash=False)
    answers: tuple[Target, ...]

    def do(self, seat: ProbeSeat) -> PatchedGraft:
        openings = self.base.openings_of(seat, "adapted")
        if not openings:
            return PatchedGraft(lacks_opening=True)
        told = LossTeller(seat.live(), openings, seat.prompts, self.base.directions, self.separated, seat.progress)
        modalities = PICTURED if self.pictured else ("text",)
        modality = next((each for each in modalities if told.shown(each)), None)
        return PatchedGraft() if modality is None else PatchedGraft(*told.tell(modality, self.answers))


@dataclass(frozen=True)
class MakePass:
    """One pass of the attribution."""

    asked: Pass

    def do(self, seat: ProbeSeat) -> Any:
        return self.asked.do(seat.passes())


def has_both(prompts: Sequence[Prompt]) -> bool:
    """Whether each side of a contrast has at least two requests, as a direction and its halves need."""
    sides = [{prompt.request for prompt in prompts if is_harmful(prompt) == side} for side in (True, False)]
    return all(len(requests) > 1 for requests in sides)
