"""Whether there are refusals to repair, and enough of them to choose coefficients by."""

import math
from collections.abc import Sequence
from typing import Final

from vlsurgery.probes.prompts.splits import SHARES, Split
from vlsurgery.probes.targets import WorkingSet
from vlsurgery.surgery.errors import SurgeryError

MIN_REQUESTS: Final = 4  # of a split whose refusal was lost; fewer say nothing that the next few would say too


def nothing_lost(workings: Sequence[WorkingSet]) -> str | None:
    """What to say where the base refuses enough requests and the adapted model answers none of them; else None."""
    refused = [len({prompt.request for prompt, _ in each.refuse}) for each in workings]
    if any(each.lost for each in workings) or min(refused) < MIN_REQUESTS or not all(each.keep for each in workings):
        return None
    asked = sum(len(each.refuse) for each in workings)
    return (
        f"No refusal was lost: of the {asked} harmful fit and select prompts that the base refuses the adapted model "
        "answers none. There is nothing to repair, so every coefficient is 0 and the merge is the adapted model."
    )


def check_enough(working: WorkingSet, split: Split) -> None:
    """Raise SurgeryError where a split has too few lost refusals, or nothing to keep, with how many it takes."""
    lost = len({item.prompt.request for item in working.lost})
    if lost >= MIN_REQUESTS and working.keep:
        return
    found = (
        f"of the harmful {split} prompts the base refuses {len(working.refuse)} and the adapted model answers "
        f"{len(working.lost)} of those, from {_counted(lost)}; of the others it answers {len(working.keep)}"
    )
    if not working.keep:
        raise SurgeryError(
            f"too few prompts to choose coefficients by: {found}. Harmless ones that it answers are needed too: give "
            "them with --prompts FILE:harmless."
        )
    refused = len({prompt.request for prompt, _ in working.refuse})
    share = max(lost, 1) / max(refused, 1)
    needed = math.ceil(MIN_REQUESTS / share / SHARES[split])
    raise SurgeryError(
        f"too few prompts to choose coefficients by: {found}. It takes at least {MIN_REQUESTS} requests whose refusal "
        f"was lost, so about {needed} harmful requests in all, {SHARES[split]:.0%} of which become {split}: give more "
        "with --prompts FILE:harmful, or other checkpoints."
    )


def _counted(requests: int) -> str:
    return f"{requests} request" + ("" if requests == 1 else "s")
