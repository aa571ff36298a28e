"""What every layer of one model holds of `report` prompts, from one pass over a few of each kind."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import torch

from vlsurgery.probes.activations import capture
from vlsurgery.probes.layer_results import LayerCurve
from vlsurgery.probes.lens import curve, keeps_one_stream, lens_odds, read_out, states_at_once
from vlsurgery.probes.models import ChatModel
from vlsurgery.probes.prompts import Prompt
from vlsurgery.probes.targets import evenly_spaced

MAX_SHOWN: Final = 32  # prompts of each kind
SHOWN_SETS: Final = ("harmful", "harmless", "borderline")
READ_MODALITIES: Final = ("text", "benign", "own", "blank", "noise")


@dataclass
class LayerReadings:
    """The findings layer by layer of all models so far. lens: refusal log-odds behind each layer, in nats."""

    lens: list[LayerCurve] = field(default_factory=list)

    def take(
        self, role: str, modality: str, chat: ChatModel, prompts: Sequence[Prompt], openings: Sequence[int]
    ) -> None:
        """Add what one model makes of the `report` prompts of one modality. openings: with which refusals begin, as
        the model's tokens; without any there is no lens."""
        for set_ in SHOWN_SETS:
            asked = chat.answerable(shown_prompts(prompts, set_, modality))
            if asked and openings and keeps_one_stream(chat):
                odds = _lens(chat, asked, openings)
                where = {"role": role, "modality": modality, "set": set_}
                self.lens.append(curve(odds, [prompt.request for prompt in asked], where, range(odds.shape[1])))


def shown_prompts(prompts: Sequence[Prompt], set_: str, modality: str) -> list[Prompt]:
    """The `report` prompts of one kind that layers are read on."""
    return evenly_spaced([p for p in prompts if (p.split, p.set, p.modality) == ("report", set_, modality)], MAX_SHOWN)


def _lens(chat: ChatModel, prompts: Sequence[Prompt], openings: Sequence[int]) -> np.ndarray:
    """[prompts, layers] refusal log-odds at the token behind which the answer begins."""
    encoded = chat.encode(prompts)
    ids, at_once = torch.tensor(list(openings), device=chat.device), states_at_once(chat)
    read = read_out(chat, encoded)
    found = np.empty((len(prompts), len(chat.blocks)))
    for states in capture(chat, encoded):
        odds = lens_odds(states.values[:, -1].to(chat.device), read, ids, at_once)
        found[list(states.index)] = odds.numpy()
    return found
