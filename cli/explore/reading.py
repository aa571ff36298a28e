"""A typed prompt read with one role: along a direction of the case, by the logit lens, and what the model answers."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from vlsurgery.cli.explore.bench import ModelBench
from vlsurgery.cli.explore.case_data import CaseData, Side
from vlsurgery.figures.choice import one_of
from vlsurgery.figures.direction_pair import position_name
from vlsurgery.probes.results import LayerSpread, PromptReading, TargetsResult
from vlsurgery.surgery.errors import SurgeryError

if TYPE_CHECKING:
    from torch import Tensor

    from vlsurgery.probes.models import ChatModel
    from vlsurgery.probes.prompt_reading import PromptLayers
    from vlsurgery.probes.prompts import Prompt

MAX_PROMPT: Final = 8_000  # characters that may be typed
REFERENCES: Final = 12  # harmful prompts that a typed one is set against, and as many harmless ones
TOKENS: Final = 64  # of the completion, at most

Picture = Literal["text", "blank", "noise", "benign"]


class Typed(BaseModel):
    """What the page asks for: a prompt with a kind of picture, a role to read it with, and a direction of the case."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    role: str
    text: str = Field(min_length=1, max_length=MAX_PROMPT)
    modality: Picture
    direction: str
    position: str

    @property
    def key(self) -> tuple[str, ...]:
        """What readings with different roles have in common."""
        return self.text, self.modality, self.direction, self.position


@dataclass(frozen=True)
class PromptReader:
    """Reads prompts with the models of a case."""

    data: CaseData
    bench: ModelBench

    def read(self, typed: Typed) -> PromptReading:
        """Load the role's model where another one is in memory, and read.

        Raises SurgeryError where the case holds no such role or direction, or the model does not take the prompt.
        """
        one_of("role", typed.role, self.bench.seats)
        side = self.data.side("direction", typed.direction)
        vectors = self.data.vectors(side, typed.position)
        return self.bench.use(typed.role, lambda chat: self._read(chat, typed, side, vectors))

    def _read(self, chat: "ChatModel", typed: Typed, side: Side, vectors: object) -> PromptReading:
        import torch

        from vlsurgery.probes.evaluation.generate import complete
        from vlsurgery.probes.prompt_reading import read_layers

        prompt = _prompt("typed", typed.text, typed.modality)
        if not chat.answerable([prompt]):
            words = "no pictures" if typed.modality != "text" else "no text without a picture"
            raise SurgeryError(f"{typed.role} takes {words}. Choose another picture, or another role.")
        directions = torch.as_tensor(vectors)
        openings, notes = self._openings(chat)
        readings = [
            read_layers(chat, prompts, directions, typed.position, openings) if prompts else None
            for prompts in ([prompt], *(self._references(set_, typed.modality) for set_ in ("harmful", "harmless")))
        ]
        mine, harmful, harmless = readings
        assert mine is not None  # It is one prompt.
        if mine.odds is None and openings:
            notes = [*notes, "no logit lens: the model passes several streams on"]
        (answer,) = complete(chat, [prompt], f"{typed.role} answers", tokens=TOKENS)
        return PromptReading(
            role=typed.role,
            direction=f"the direction of {side.name}, at {position_name(typed.position)}",
            along=mine.along[0].tolist(),
            odds=[] if mine.odds is None else mine.odds[0].tolist(),
            harmful_along=_spreads(None if harmful is None else harmful.along),
            harmless_along=_spreads(None if harmless is None else harmless.along),
            harmful_odds=_spreads(None if harmful is None else harmful.odds),
            harmless_odds=_spreads(None if harmless is None else harmless.odds),
            references=(_count(harmful), _count(harmless)),
            text=answer.text,
            cut=not answer.finished,
            notes=[*chat.notes, *notes],
        )

    def _references(self, set_: str, modality: str) -> "list[Prompt]":
        """Some `report` prompts of a set, which made no direction, with the same kind of picture as the typed one."""
        texts = dict.fromkeys(record.prompt for record in self.data.records if record.set == set_)
        step = max(1, len(texts) // REFERENCES)
        chosen = list(texts)[::step][:REFERENCES]
        return [_prompt(f"{set_}/{at}", text, modality) for at, text in enumerate(chosen)]

    def _openings(self, chat: "ChatModel") -> tuple[list[int], list[str]]:
        """The tokens with which the base's refusals begin, as the probe found them, and why there are none."""
        found = self.data.probe.selection if self.data.probe else None
        targets = self.data.case.result(TargetsResult)
        if found is None or targets is None:
            return [], ["no logit lens: the case does not tell how refusals begin. Run vlsurgery probe again."]
        ids = {each.ids[0] for each in targets.records if each.role == "base" and each.ids}
        words = set(found.refusal_tokens)
        known = sorted(at for at in ids if at < len(chat.tokenizer) and chat.tokenizer.decode([at]) in words)
        return known, [] if known else ["no logit lens: no token tells refusals from answers"]


def _prompt(name: str, text: str, modality: str) -> "Prompt":
    from vlsurgery.probes.prompts import Prompt
    from vlsurgery.probes.prompts.pictures import blank, noise, scene

    image = {"text": lambda: None, "blank": blank, "noise": lambda: noise(name), "benign": lambda: scene(0)}[modality]()
    return Prompt(name, name, "harmful", text, "report", modality, image)  # type: ignore[arg-type]


def _count(read: "PromptLayers | None") -> int:
    return 0 if read is None else len(read.along)


def _spreads(values: "Tensor | None") -> list[LayerSpread]:
    """Mean and middle 80% of [prompts, layers]; nothing where there are none."""
    if values is None:
        return []
    low, high = values.quantile(0.1, dim=0), values.quantile(0.9, dim=0)
    ends = zip(values.mean(0).tolist(), low.tolist(), high.tolist(), strict=True)
    return [LayerSpread(mean=mean, low=below, high=above) for mean, below, above in ends]
