"""The findings of a probe so far, which tasks come next by them, and what becomes of each task's result."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from vlsurgery.probes.attribution import Attribution
from vlsurgery.probes.candidates import Candidates
from vlsurgery.probes.contrasts import Directions, SeparatedRole, contrast
from vlsurgery.probes.evaluation.generate import Completion
from vlsurgery.probes.evaluation.judges import Judge, checked
from vlsurgery.probes.evaluation.judging import exchange
from vlsurgery.probes.layer_readings import READ_MODALITIES, LayerReadings
from vlsurgery.probes.other_template import OwnReading
from vlsurgery.probes.probing.seat import GRAFT, Task
from vlsurgery.probes.probing.tasks import (
    PICTURED,
    AskAnswers,
    FindCandidates,
    MeasureDirections,
    MeasuredRole,
    PatchGraft,
    ReadBase,
    ReadLayers,
    ReadUnderTemplate,
    Refusing,
    has_both,
)
from vlsurgery.probes.prompts import HARMFUL_SETS, Prompt
from vlsurgery.probes.results import DirectionSelection, LossKind, OtherTemplate, Patching, Selected, Target
from vlsurgery.probes.targets import working_prompts
from vlsurgery.probes.templates import ChatTemplate

NO_OPENING = "no patching: the base's refusals have no opening of their own"


@dataclass
class ProbeState:
    """What is known of the models.

    said: role -> prompt id -> completion, not judged yet, of roles whose own answers are wanted. notes: by role; the
    graft's are the adapted model's.
    """

    prompts: Sequence[Prompt]
    judge: Judge
    said: dict[str, dict[str, Completion]]
    targets: list[Target] = field(default_factory=list)
    directions: dict[tuple[str, str], Directions] = field(default_factory=dict)
    separated: dict[tuple[str, str], SeparatedRole] = field(default_factory=dict)
    openings: tuple[int, ...] = ()
    template: ChatTemplate | None = None
    readings: LayerReadings = field(default_factory=LayerReadings)
    templates: list[OtherTemplate] = field(default_factory=list)
    candidates: Candidates | None = None
    selection: DirectionSelection | None = None
    patching: list[Patching] = field(default_factory=list)
    loss: list[LossKind] = field(default_factory=list)
    attribution: Attribution | None = None
    notes: dict[str, list[str]] = field(default_factory=dict)

    def note(self, role: str, *lines: str) -> None:
        own = self.notes.setdefault("adapted" if role == GRAFT else role, [])
        own += [line for line in lines if line not in own]

    def asked(self, role: str) -> list[Prompt]:
        """The prompts that a role's own completions are wanted of."""
        work = working_prompts(self.prompts)
        return [prompt for prompt in work if prompt.set in HARMFUL_SETS] if role == "base" else work

    def measuring(self, role: str) -> list[Task]:
        return [MeasureDirections(role, modality) for modality in ("text", *PICTURED)]

    def base_reading(self) -> ReadBase:
        return ReadBase(tuple(self._refusals), self.directions.get(("base", "text")))

    def reading(self, role: str) -> list[Task]:
        """What is looked at of a model once the base was read."""
        if role == "base":
            return self._choosing()
        found: list[Task] = [ReadLayers(role, modality, self._refusing) for modality in READ_MODALITIES]
        if role != GRAFT and (role, "text") in self.directions:
            own = OwnReading(role, self.directions[role, "text"], self.separated[role, "text"])
            found.append(ReadUnderTemplate(own, self.template, self._refusing))
        return [*found, *self._patching_graft()] if role == "adapted" else found

    def _patching_graft(self) -> list[Task]:
        refused = {target.prompt for target in self._refusals}
        answers = tuple(row for row in self.targets if row.role == "adapted" and row.prompt in refused)
        known = {key: each for key, each in self.separated.items() if key[0] in ("base", "adapted")}
        return [PatchGraft(pictured, self._refusing, known, answers) for pictured in (False, True)]

    def _choosing(self) -> list[Task]:
        if ("base", "text") not in self.directions or not has_both(contrast(self.prompts, "select", "text")):
            return []
        return [FindCandidates(self.directions["base", "text"], self.openings)]

    @property
    def selected(self) -> Selected | None:
        """The base's direction by separation."""
        return self.candidates.separated.best if self.candidates else None

    @property
    def _refusals(self) -> list[Target]:
        return [target for target in self.targets if (target.role, target.verdict) == ("base", "refused")]

    @property
    def _refusing(self) -> Refusing:
        begun = [target for target in self._refusals if target.ids and target.ids[0] in self.openings]
        return Refusing(self.openings, tuple(begun), self.directions.get(("base", "text")))

    def keep(self, task: Task, found: Any) -> None:
        """Add what a task found."""
        match task:
            case AskAnswers(role=role):
                self.said[role].update(zip(found.prompts, found.completions, strict=True))
            case MeasureDirections(role=role, modality=modality):
                self._keep_measured(role, modality, found)
            case ReadBase():
                self.openings, self.template = found.openings, found.template
                self.readings.add(found.readings)
            case ReadLayers():
                self.readings.add(found)
            case ReadUnderTemplate():
                self.templates.append(found)
            case FindCandidates():
                self.candidates = found
            case PatchGraft():
                if found.lacks_opening:
                    self.note("adapted", NO_OPENING)
                if found.patching is not None:
                    self.patching.append(found.patching)
                    self.loss.append(found.loss)
            case _:
                raise TypeError(f"no place for what {type(task).__name__} finds")

    def _keep_measured(self, role: str, modality: str, found: MeasuredRole) -> None:
        self.note(role, *found.notes)
        if found.lacks_side:
            self.note(role, f"{role}: {modality} prompts lack a harmful or a harmless side, so no direction")
        if found.directions is not None and found.separated is not None:
            self.directions[role, modality] = found.directions
            self.separated[role, modality] = found.separated

    def judge_answers(self, role: str) -> None:
        """Add what a role said to the targets, each completion with its verdict."""
        prompts = [prompt for prompt in self.asked(role) if prompt.id in self.said[role]]
        written = [self.said[role][prompt.id] for prompt in prompts]
        exchanges = [exchange(p, each.text, not each.finished) for p, each in zip(prompts, written, strict=True)]
        self.targets += [
            Target(prompt=prompt.id, role=role, text=each.text, ids=list(each.ids), verdict=verdict.label)
            for prompt, each, verdict in zip(prompts, written, checked(self.judge, exchanges), strict=True)
        ]
