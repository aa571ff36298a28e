"""What every layer of one model holds of `report` prompts, from one pass over a few of each kind."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from vlsurgery.probes.activations import INSTRUCTION, capture, position_names
from vlsurgery.probes.contrasts import Directions
from vlsurgery.probes.cosine_nulls import LabelledStates, random_bound, shuffled_cosines
from vlsurgery.probes.layer_results import CosineNull, LayerCurve, Projections, SafetyLayers
from vlsurgery.probes.lens import (
    curve,
    evenly_from_last,
    keeps_one_stream,
    lens_odds,
    read_out,
    rounded,
    states_at_once,
)
from vlsurgery.probes.models import ChatModel
from vlsurgery.probes.prompts import Prompt
from vlsurgery.probes.safety_layers import angle_gaps
from vlsurgery.probes.targets import evenly_spaced

MAX_SHOWN: Final = 32  # prompts of each kind
MAX_LAYERS_KEPT: Final = 40  # of what is kept for every prompt or pair of layers
SHOWN_SETS: Final = ("harmful", "harmless", "borderline")
READ_MODALITIES: Final = ("text", "benign", "own", "blank", "noise")
SHORT: Final = 3  # significant digits of numbers of which there are many


def kept_layers(count: int) -> list[int]:
    """Layers evenly spaced from the last one down, MAX_LAYERS_KEPT at most."""
    return evenly_from_last(count, MAX_LAYERS_KEPT)


def shown_prompts(prompts: Sequence[Prompt], set_: str, modality: str) -> list[Prompt]:
    """The `report` prompts of one kind that layers are read on."""
    return evenly_spaced([p for p in prompts if (p.split, p.set, p.modality) == ("report", set_, modality)], MAX_SHOWN)


@dataclass(frozen=True)
class KindStates:
    """The states of one kind of prompts. values: position -> [prompts, layers, hidden] float32; the last is the one
    behind which the answer begins."""

    prompts: list[Prompt]
    values: dict[str, Tensor]

    @property
    def last(self) -> Tensor:
        return list(self.values.values())[-1]

    @property
    def requests(self) -> list[str]:
        return [prompt.request for prompt in self.prompts]


def kind_states(chat: ChatModel, prompts: list[Prompt]) -> KindStates:
    """States at the last instruction token and at the last token."""
    encoded = chat.encode(prompts)
    names = position_names(encoded)
    places = {INSTRUCTION: 0, names[-1]: len(names) - 1}
    values: dict[str, Tensor] = {}
    for states in capture(chat, encoded):
        for name, place in places.items():
            some = states.values[:, place]
            whole = values.setdefault(name, some.new_empty(len(prompts), *some.shape[1:]))
            whole[list(states.index)] = some
    return KindStates(prompts, values)


@dataclass
class LayerReadings:
    """The findings layer by layer of all models so far.

    lens: refusal log-odds behind each layer, in nats. reference: position -> the base's states in text, harmful and
    harmless, which cosines' nulls are drawn against.
    """

    lens: list[LayerCurve] = field(default_factory=list)
    projections: list[Projections] = field(default_factory=list)
    safety_layers: list[SafetyLayers] = field(default_factory=list)
    nulls: list[CosineNull] = field(default_factory=list)
    reference: dict[str, LabelledStates] = field(default_factory=dict)

    def take(
        self,
        role: str,
        modality: str,
        chat: ChatModel,
        prompts: Sequence[Prompt],
        openings: Sequence[int],
        directions: Directions | None,
    ) -> None:
        """Add what one model makes of the `report` prompts of one modality.

        openings: with which refusals begin, as the model's tokens; without any there is no lens. directions: the
        base's in text; without them there are no projections.
        """
        where = {"role": role, "modality": modality}
        asked = {set_: chat.answerable(shown_prompts(prompts, set_, modality)) for set_ in SHOWN_SETS}
        found = {set_: kind_states(chat, some) for set_, some in asked.items() if some}
        for set_, states in found.items():
            if openings and keeps_one_stream(chat):
                odds = _lens(chat, states, openings)
                self.lens.append(curve(odds, states.requests, where | {"set": set_}, range(odds.shape[1])))
            if directions is not None:
                self.projections += _projected(states, directions, where | {"set": set_})
        if "harmful" in found and "harmless" in found:
            self._compare(found["harmful"], found["harmless"], where)

    def add(self, other: "LayerReadings") -> None:
        """Add the findings of another model or modality."""
        self.lens += other.lens
        self.projections += other.projections
        self.safety_layers += other.safety_layers
        self.nulls += other.nulls

    def without_reference(self) -> "LayerReadings":
        return replace(self, reference={})

    def _compare(self, harmful: KindStates, harmless: KindStates, where: Mapping[str, str]) -> None:
        """Add what both classes together show, where each has two requests at least."""
        if min(len(set(harmful.requests)), len(set(harmless.requests))) < 2:
            return
        self.safety_layers.append(_safety_layers(harmful, harmless, where))
        labelled = _labelled(harmful, harmless)
        if where["role"] == "base" and where["modality"] == "text":
            self.reference = labelled
            return
        for position, states in labelled.items():
            base = self.reference.get(position)
            if base is not None and base.values.shape[1:] == states.values.shape[1:]:
                self.nulls.append(_null(base, states, position, where))


def _lens(chat: ChatModel, states: KindStates, openings: Sequence[int]) -> np.ndarray:
    """[prompts, layers] refusal log-odds at the token behind which the answer begins."""
    read, ids = read_out(chat, chat.encode(states.prompts)), torch.tensor(list(openings), device=chat.device)
    return lens_odds(states.last.to(chat.device), read, ids, states_at_once(chat)).numpy()


def _projected(states: KindStates, directions: Directions, where: Mapping[str, str]) -> list[Projections]:
    """Of the positions that the directions have, in the same width and depth; nothing without any."""
    layers = kept_layers(states.last.shape[1])
    found = {}
    for position, values in states.values.items():
        if position not in directions.positions:
            continue
        units = directions.units[directions.positions.index(position)]
        if units.shape != values.shape[1:]:
            continue
        found[position] = short(torch.einsum("nld,ld->ln", values.double(), units)[layers])
    if not found:
        return []
    return [Projections(**where, prompts=[prompt.id for prompt in states.prompts], layers=layers, values=found)]


def _safety_layers(harmful: KindStates, harmless: KindStates, where: Mapping[str, str]) -> SafetyLayers:
    gaps = angle_gaps(harmless.last, harmful.last, harmless.requests, harmful.requests)
    lists = {name: short(getattr(gaps, name), 4) for name in ("same", "across", "gap", "low", "high")}
    requests = len({*harmful.requests, *harmless.requests})
    return SafetyLayers(**where, layers=list(range(len(gaps.gap))), **lists, requests=requests)


def _labelled(harmful: KindStates, harmless: KindStates) -> dict[str, LabelledStates]:
    labels = torch.tensor([True] * len(harmful.prompts) + [False] * len(harmless.prompts))
    requests = (*harmful.requests, *harmless.requests)
    return {
        position: LabelledStates(torch.cat([values, harmless.values[position]]), labels, requests)
        for position, values in harmful.values.items()
    }


def _null(base: LabelledStates, states: LabelledStates, position: str, where: Mapping[str, str]) -> CosineNull:
    drawn = shuffled_cosines(base, states).numpy()
    low, high = np.quantile(drawn, (0.025, 0.975), axis=0)
    _, layers, width = states.values.shape
    return CosineNull(
        **where,
        position=position,
        layers=list(range(layers)),
        mean=short(drawn.mean(0)),
        low=short(low),
        high=short(high),
        lowest=float(np.quantile(drawn.min(1), 0.05)),
        highest=float(np.quantile(drawn.max(1), 0.95)),
        random=random_bound(width, layers),
    )


def short(values: Tensor | np.ndarray, digits: int = SHORT) -> Any:
    """Nested lists of numbers with few significant digits."""
    return _shortened(values.tolist(), digits)


def _shortened(value: Any, digits: int) -> Any:
    return [_shortened(each, digits) for each in value] if isinstance(value, list) else rounded(value, digits)
