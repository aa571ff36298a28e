"""The licence that the cards of a merge's parents agree on."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from vlsurgery.surgery.checkpoint.hub import HubName, download_card
from vlsurgery.surgery.errors import CheckpointError
from vlsurgery.surgery.merge.hub_parents import HubParent, hub_parts, parts_of
from vlsurgery.surgery.merge.recipe import Recipe
from vlsurgery.surgery.runtime.bounded_yaml import load_yaml
from vlsurgery.surgery.runtime.excerpts import excerpt
from vlsurgery.surgery.runtime.regular_file import read_regular

CARD: Final = "README.md"
MAX_CARD_BYTES: Final = 1 << 24
FIELDS: Final = ("license", "license_name", "license_link")
UNSTATED: Final[tuple[Any, ...]] = (None, "", [], "unknown")

_FRONT: Final = re.compile(r"\A\s*---\r?\n(.*?)^---\s*$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class SharedLicence:
    """metadata: the fields of a card that state it; empty where there is none. said: what was found, in words."""

    metadata: dict[str, Any]
    said: str


def shared_licence(written: Recipe, named: Recipe) -> SharedLicence:
    """The licence of all parents, where the card of each states it and all state the same; adapters count too.

    written: the recipe with the places that were merged, whose cards are read first. named: with names on the Hub,
    where the others are.
    """
    stated: dict[str, dict[str, Any]] = {}
    for role, ref in written.checkpoints.items():
        parents = hub_parts(named.checkpoints[role].path)
        for at, (place, parent) in enumerate(zip(parts_of(ref.path), parents, strict=True)):
            name = f"{role}'s adapter" if at else role
            metadata = _metadata(place, parent)
            if isinstance(metadata, str):
                return SharedLicence({}, f"licence: left out, {name} {metadata}")
            licence = {field: metadata[field] for field in FIELDS if metadata.get(field) not in UNSTATED}
            if "license" not in licence:
                return SharedLicence({}, f"licence: left out, the card of {name} states none")
            stated[name] = licence
    first, *others = stated.values()
    if any(other != first for other in others):
        each = "; ".join(f"{name} {excerpt(licence['license'], 40)}" for name, licence in stated.items())
        return SharedLicence({}, f"licence: left out, the parents' cards differ ({each})")
    return SharedLicence(first, f"licence: {excerpt(first['license'], 40)}, as the cards of all parents state")


def _metadata(place: str, parent: HubParent | None) -> dict[str, Any] | str:
    """The metadata of a parent's card, or why there is none."""
    card = Path(place) / CARD
    try:
        if parent is not None and not card.is_file():
            card = download_card(HubName(parent.name, parent.commit))
        text = read_regular(card, MAX_CARD_BYTES).decode("utf-8", "replace")
    except FileNotFoundError:
        return "has no card"
    except (OSError, CheckpointError) as error:
        return f"has a card that can't be had ({error})"
    front = _FRONT.match(text)
    try:
        data = load_yaml(front[1])[0] if front else None
    except ValueError as error:
        return f"has a card whose metadata can't be read ({error})"
    return data if isinstance(data, dict) else {}
