"""A push as it would be: checked files, the card for others, and what to know before it is sent."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlsurgery.cli.shipping.behaviour import (
    MergeBehaviour,
    behaviour_of,
    behaviour_section,
    fewer_words,
    model_index,
)
from vlsurgery.cli.shipping.licences import SharedLicence, shared_licence
from vlsurgery.cli.shipping.named_parents import with_named_parents
from vlsurgery.cli.shipping.parcel import CARD, RECIPE, CheckedMerge, Parcel, checked_merge, packed
from vlsurgery.cli.shipping.private import PrivateWords
from vlsurgery.cli.shipping.upload import Destination, token_found
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.errors import LimitNotMet
from vlsurgery.surgery.merge.hub_parents import hub_parts, parts_of
from vlsurgery.surgery.merge.model_card import base_models
from vlsurgery.surgery.merge.published import published_card, published_recipe
from vlsurgery.surgery.merge.recipe import Recipe
from vlsurgery.surgery.runtime.progress import Progress, no_progress


@dataclass(frozen=True)
class Offer:
    """What a push would send, and where. unnamed: roles whose checkpoints have no name on the Hub."""

    to: Destination
    merge: CheckedMerge
    parcel: Parcel
    card: str
    behaviour: MergeBehaviour
    licence: SharedLicence
    unnamed: Sequence[str]

    @property
    def notes(self) -> list[str]:
        """What to know before it is sent, a line each."""
        notes = [self.licence.said]
        if self.unnamed:
            notes.append(f"not on the Hub, so named by role and identity only: {', '.join(self.unnamed)}")
        notes += [f"{name}: sent {how}" for name, how in self.parcel.altered.items()]
        if self.behaviour.result is None:
            notes.append(f"behaviour: not measured ({self.behaviour.why}); the card says so")
        if fell := self.behaviour.fewer_refusals:
            notes.append(f"refuses fewer harmful requests than adapted, which the card says: {fewer_words(fell)}")
        return notes

    def check_refusals(self) -> None:
        """Raise LimitNotMet where the merge was shown to refuse fewer harmful requests than its adapted parent."""
        if shown := self.behaviour.shown_fewer:
            raise LimitNotMet(
                f"{self.merge.folder}: refuses fewer harmful requests than adapted, beyond the interval: "
                f"{fewer_words(shown)}. Nothing was sent. Merge with more of base or safety, or push it in spite of "
                "that with --allow-fewer-refusals; the card says it."
            )


def offer_of(
    folder: Path, to: Destination, case: Path, named: Sequence[str] = (), progress: Progress = no_progress
) -> Offer:
    """Check the merge in `folder` and make its card and recipe for others; nothing is sent.

    case: the folder of a case, whose evaluation is told where it is of this merge. named: "ROLE=org/name" of parents
    that lie in directories here and are on the Hub too. Cards of parents on the Hub are
    fetched, for their licence. Raises CheckpointError, RecipeError for what can't be pushed.
    """
    merge = checked_merge(folder, progress)
    written = Recipe.load(folder / RECIPE)
    recipe = with_named_parents(written, named, progress)
    behaviour = behaviour_of(case, Checkpoint.open(folder))
    licence = shared_licence(written, recipe)
    public = published_recipe(recipe)
    front = _front(recipe, licence, model_index(behaviour, to.model.rpartition("/")[2]))
    card = published_card(merge.read(CARD).decode(), public, front, behaviour_section(behaviour))
    places = [part for ref in written.checkpoints.values() for part in parts_of(ref.path)]
    private = PrivateWords([*places, str(folder), str(case)], [token_found() or ""])
    parcel = packed(merge, card, public.text(), private)
    unnamed = [role for role, ref in recipe.checkpoints.items() if None in hub_parts(ref.path)]
    return Offer(to, merge, parcel, card, behaviour, licence, unnamed)


def _front(recipe: Recipe, licence: SharedLicence, index: list[dict[str, Any]]) -> dict[str, Any]:
    """The metadata that the Hub reads."""
    parents = base_models(recipe)
    return {
        **licence.metadata,
        "library_name": "transformers",
        **({"base_model": parents, "base_model_relation": "merge"} if parents else {}),
        "tags": ["merge", "vlsurgery"],
        **({"model-index": index} if index else {}),
    }
