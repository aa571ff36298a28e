"""A merge as far as headers tell: its checkpoints opened and aligned, what is merged where, and whether they fit."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vlsurgery.surgery.alignment import Alignment, align
from vlsurgery.surgery.alignment.alignment import VOCABULARY
from vlsurgery.surgery.alignment.mismatches import NAMES, CheckpointFit, fit_of
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.checkpoint.references import base_and_adapter
from vlsurgery.surgery.errors import AlignmentError, CheckpointError, RecipeError
from vlsurgery.surgery.merge.plan import MergePlan, plan_merge
from vlsurgery.surgery.merge.recipe import Recipe
from vlsurgery.surgery.results import CheckpointRef, Mismatch
from vlsurgery.surgery.runtime.urls import is_url
from vlsurgery.surgery.writer import ShardPlan, plan_shards


@dataclass(frozen=True)
class PreparedMerge:
    """A merge as far as headers tell: the aligned checkpoints, what is merged in which tensor, the files to write, and
    the settings and tokens in which the checkpoints differ."""

    alignment: Alignment
    merge_plan: MergePlan
    shard_plan: ShardPlan
    fit: CheckpointFit

    @property
    def merges_vocabulary(self) -> bool:
        """Whether rows of the embedding or the head are merged."""
        sites = (each.pair.site for merges in self.merge_plan.sites.values() for each in merges)
        return any(site.tower == "text" and site.component in VOCABULARY for site in sites)

    @property
    def checkpoints(self) -> Mapping[str, Checkpoint]:
        """Role -> checkpoint."""
        return self.alignment.checkpoints

    @property
    def kept(self) -> int:
        """How many tensors keep their values."""
        return sum(tensor.name not in self.merge_plan.sites for tensor in self.shard_plan.tensors)


def prepare_merge(recipe: Recipe, alignment: Alignment | None = None) -> PreparedMerge:
    """Open and align the recipe's checkpoints and plan the merge; no weights are merged. Raises as `run_merge`.

    alignment: of checkpoints that are open already, by the recipe's roles; those are not opened again. It is used as it
    is where it has exactly the recipe's roles and `like`. Otherwise the checkpoints are aligned again: a role that is
    not in the recipe can narrow the rows that all share, and so change the result.
    """
    if len(recipe.checkpoints) < 2:
        raise RecipeError("checkpoints: a merge needs two of them or more.")
    known: Mapping[str, Checkpoint] = {} if alignment is None else alignment.checkpoints
    checkpoints = _open(recipe, known)
    same = list(known) == list(checkpoints) and all(known[role] is checkpoints[role] for role in checkpoints)
    if alignment is None or not same or alignment.like != recipe.like:
        alignment = align(checkpoints, recipe.like)
    merge_plan = plan_merge(recipe, alignment)
    stale = alignment.stale_heads.get(recipe.like)
    shard_plan = plan_shards(checkpoints[recipe.like], [stale] if stale else [], recipe.safetensors_dtype)
    return PreparedMerge(alignment, merge_plan, shard_plan, fit_of(alignment))


def check_fit(prepared: PreparedMerge, ignored: Collection[str] = ()) -> None:
    """Refuse to merge rows of embedding and head that stand for other tokens. ignored: mismatches, by name, that are
    no reason to refuse.

    Raises RecipeError for a name that is no mismatch's, AlignmentError that names the rows.
    """
    check_ignored(ignored)
    if prepared.merges_vocabulary:
        refuse_serious(prepared.fit.mismatches, ignored)


def refuse_serious(found: Sequence[Mismatch], ignored: Collection[str] = ()) -> None:
    """Raise AlignmentError for the first mismatch that makes a merge of the vocabulary wrong and is not ignored."""
    for each in found:
        if each.serious and each.name not in ignored:
            raise AlignmentError(
                f"{each.sentence().rstrip('.')}. Give checkpoints with one vocabulary, leave embed and head out of the "
                f"merge (coefficient 0), or go on with --ignore-mismatch {each.name}."
            )


def check_ignored(names: Collection[str]) -> None:
    """Raise RecipeError for a name that no mismatch has."""
    for name in names:
        if name not in NAMES:
            raise RecipeError(f"--ignore-mismatch {name}: no mismatch is called so; the names are {', '.join(NAMES)}.")


def _open(recipe: Recipe, known: Mapping[str, Checkpoint]) -> dict[str, Checkpoint]:
    """The recipe's checkpoints, role -> checkpoint, with the identities that it names. known: those that are open."""
    checkpoints = {}
    for role, ref in recipe.checkpoints.items():
        checkpoint = known.get(role)
        stack = None if checkpoint is None else checkpoint.text_stack
        if checkpoint is None or stack != ref.text_stack or not checkpoint.is_known_as(ref.identity):
            checkpoint = _reopen(role, ref)
        if not checkpoint.is_known_as(ref.identity):
            raise CheckpointError(
                f"{role} ({checkpoint.ref}) changed since the recipe was made, or is another checkpoint: its "
                f"identity is {checkpoint.identity}, the recipe's {ref.identity}. Put the path of the recipe's own "
                "checkpoint into it (a copy will do), or measure this one and make the recipe again."
            )
        checkpoints[role] = checkpoint
    return checkpoints


def _reopen(role: str, ref: CheckpointRef) -> Checkpoint:
    try:
        return Checkpoint.reopen(ref)
    except CheckpointError as error:
        if all(part is None or is_url(part) or Path(part).exists() for part in base_and_adapter(ref.path)):
            raise
        raise CheckpointError(
            f"checkpoints.{role}: {error} If the checkpoint lies elsewhere on this machine, put its path there into "
            "the recipe: its identity tells whether it is the same one."
        ) from error
