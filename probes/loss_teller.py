"""Patching and the kind of loss, measured on the adapted model while it is in memory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import torch

from vlsurgery.probes.added_direction import BroughtBack, brought_back, strongest_layer
from vlsurgery.probes.contrasts import Directions, SeparatedRole
from vlsurgery.probes.evaluation.intervals import rate
from vlsurgery.probes.in_memory_merge import InMemoryMerge
from vlsurgery.probes.kind_of_loss import fates, kind_of_loss
from vlsurgery.probes.layer_patching import PatchedOdds, patched_odds, patching
from vlsurgery.probes.layer_readings import shown_prompts
from vlsurgery.probes.layer_results import LossEvidence
from vlsurgery.probes.prompts import Prompt
from vlsurgery.probes.results import Estimate, LossKind, Patching, Target
from vlsurgery.probes.targets import evenly_spaced
from vlsurgery.surgery.runtime.progress import Progress, no_progress

NO_DIRECTION: Final = "no direction could be made"
MAX_CHOSEN_ON: Final = 16  # prompts of `select` on which the layer is chosen behind which the direction is added


@dataclass(frozen=True)
class LossTeller:
    """What is needed to patch the graft into the adapted model and to tell the kind of its loss.

    live: the adapted model, which the base's weights can be put into. openings: with which refusals begin, as its
    tokens. prompts: by id. directions: the base's in text. separated: how well roles tell harmful from harmless.
    """

    live: InMemoryMerge
    openings: list[int]
    prompts: Mapping[str, Prompt]
    directions: Directions | None
    separated: Mapping[tuple[str, str], SeparatedRole]
    progress: Progress = no_progress

    def shown(self, modality: str) -> list[Prompt]:
        """The harmful `report` prompts that are patched."""
        return self.live.chat.answerable(shown_prompts(list(self.prompts.values()), "harmful", modality))

    def tell(self, modality: str, answers: Sequence[Target]) -> tuple[Patching, LossKind]:
        """answers: the adapted model's to harmful prompts that the base refuses."""
        prompts = self.shown(modality)
        found = patched_odds(self.live, self.live.everywhere(base=1.0), prompts, self.openings, self.progress)
        patched = patching(found, prompts)
        return patched, kind_of_loss(self._evidence(modality, answers, patched.gap, self._added(prompts, found)))

    def _added(self, prompts: Sequence[Prompt], found: PatchedOdds) -> BroughtBack:
        """What adding the base's direction at its last token brings back."""
        chat, modality = self.live.chat, prompts[0].modality
        wanted = ("select", "harmful", modality)
        chosen_on = [p for p in self.prompts.values() if (p.split, p.set, p.modality) == wanted]
        if self.directions is None or not chosen_on:
            reason = NO_DIRECTION if self.directions is None else "no select prompt to choose its layer on"
            return BroughtBack(None, Estimate(value=None, reason=reason))
        vectors, ids = self.directions.values[-1], torch.tensor(self.openings, device=chat.device)
        layer = strongest_layer(chat, evenly_spaced(chosen_on, MAX_CHOSEN_ON), ids, vectors)
        return brought_back(chat, prompts, self.openings, vectors, layer, found)

    def _evidence(self, modality: str, answers: Sequence[Target], gap: Estimate, brought: BroughtBack) -> LossEvidence:
        ours = [target for target in answers if self.prompts[target.prompt].modality == modality]
        still = [target for target in ours if target.verdict == "refused"]
        begun = [bool(target.ids) and target.ids[0] in self.openings for target in still]
        adapted, base = self.separated.get(("adapted", modality)), self.separated.get(("base", "text"))
        nothing = Estimate(value=None, reason=NO_DIRECTION)
        return LossEvidence(
            modality=modality,
            **fates([target.verdict for target in ours], self._requests(ours)),
            opened=rate(begun, self._requests(still)),
            apart=adapted.best if adapted else nothing,
            null=adapted.null if adapted else None,
            base_apart=base.best if base else nothing,
            base_null=base.null if base else None,
            gap=gap,
            layer=brought.layer,
            added=brought.added,
            added_random=list(brought.randoms),
        )

    def _requests(self, targets: Sequence[Target]) -> list[str]:
        return [self.prompts[target.prompt].request for target in targets]
