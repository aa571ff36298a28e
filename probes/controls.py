"""Prompts to go on answering that stand beside those whose refusal was lost, to see what a block does to both."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from vlsurgery.probes.models import ChatModel
from vlsurgery.probes.scoring import RefusalChoices, refusal_choices
from vlsurgery.probes.targets import LostRefusal, WorkingSet, evenly_spaced, part_somewhere

MAX_CONTROLS: Final = 48  # control prompts


def control_prompts(working: WorkingSet, lost: Sequence[LostRefusal]) -> list[LostRefusal]:
    """At most MAX_CONTROLS prompts to keep, each with its own answer and a refusal of one of the lost prompts, against
    which it is read.

    Their modalities are those of the lost prompts, in the same proportions as far as there are enough.
    """
    found: list[LostRefusal] = []
    for modality, count in Counter(item.prompt.modality for item in lost).items():
        kept = [(prompt, answer) for prompt, answer in working.keep if prompt.modality == modality]
        refusals = [item.refusal for item in lost if item.prompt.modality == modality]
        for at, (prompt, answer) in enumerate(evenly_spaced(kept, round(MAX_CONTROLS * count / len(lost)))):
            turn = at % len(refusals)
            in_turn = refusals[turn:] + refusals[:turn]
            refusal = next((each for each in in_turn if part_somewhere(each, answer)), None)
            if refusal is not None:
                found.append(LostRefusal(prompt, refusal, answer))
    return found


def control_choices(chat: ChatModel, controls: Sequence[LostRefusal], first_owner: int) -> list[RefusalChoices]:
    """Batches of controls that follow `first_owner` other prompts."""
    if not controls:
        return []
    batches = refusal_choices(
        chat,
        [item.prompt for item in controls],
        [item.refusal for item in controls],
        [item.answer for item in controls],
    )
    return [replace(batch, owner=batch.owner + first_owner) for batch in batches]
