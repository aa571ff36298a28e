"""Parents in a directory that are models on the Hub: the user says which, and their hashes prove it."""

from collections.abc import Sequence

from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.checkpoint.contents import take_contents
from vlsurgery.surgery.checkpoint.hub import HubName, published_weights
from vlsurgery.surgery.errors import CheckpointError, SurgeryError
from vlsurgery.surgery.merge.hub_parents import HubParent, hub_parts
from vlsurgery.surgery.merge.recipe import Recipe
from vlsurgery.surgery.results import CheckpointRef
from vlsurgery.surgery.runtime.progress import Progress, no_progress


def with_named_parents(recipe: Recipe, named: Sequence[str], progress: Progress = no_progress) -> Recipe:
    """The recipe, with parents at their names on the Hub. named: "ROLE=org/name" or "ROLE=org/name@revision".

    A name is taken only where the Hub keeps every weight file of the parent under the SHA-256 that the recipe records,
    or else that the parent's own files have.

    Raises SurgeryError for what names no parent, CheckpointError where the Hub's model is another one.
    """
    refs = dict(recipe.checkpoints)
    for each in named:
        role, _, text = each.partition("=")
        name = HubName.of(text)
        if role not in refs or name is None:
            raise SurgeryError(f"--parent {each}: expected ROLE=org/name, with one of {', '.join(refs)} as the role.")
        if hub_parts(refs[role].path) != [None]:
            raise SurgeryError(
                f"--parent {each}: {role} has its name on the Hub already, or is a base with an adapter."
            )
        refs[role] = refs[role].model_copy(update={"path": _proven(role, refs[role], name, progress).ref})
    return recipe.model_copy(update={"checkpoints": refs})


def _proven(role: str, ref: CheckpointRef, name: HubName, progress: Progress) -> HubParent:
    commit, published = published_weights(name)
    ours = ref.contents or _taken(role, ref, progress)
    other = sorted(file for file, digest in ours.items() if published.get(file) != digest)
    if other:
        raise CheckpointError(
            f"{role}: not the model {name} on the Hub: {other[0]} is not there, or has other bytes there. Name the "
            "model and revision that it was downloaded from, or leave --parent out."
        )
    return HubParent(name.model, commit)


def _taken(role: str, ref: CheckpointRef, progress: Progress) -> dict[str, str]:
    """The hashes of the parent's own files, where the recipe has none."""
    checkpoint = Checkpoint.reopen(ref)
    if not checkpoint.is_known_as(ref.identity):
        raise CheckpointError(f"{role} ({ref.path}): changed since it was merged. Leave --parent out.")
    return dict(take_contents({role: checkpoint}, progress, at_urls=True)[role])
