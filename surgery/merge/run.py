"""Carrying out a recipe: checkpoints in, a merged checkpoint out, a few pieces of it at a time."""

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from vlsurgery.surgery.alignment import Alignment, align
from vlsurgery.surgery.alignment.alignment import VOCABULARY
from vlsurgery.surgery.alignment.mismatches import NAMES, CheckpointFit, fit_of
from vlsurgery.surgery.checkpoint import Checkpoint, LazyTensor
from vlsurgery.surgery.checkpoint.checkpoint import base_and_adapter
from vlsurgery.surgery.checkpoint.contents import check_contents
from vlsurgery.surgery.errors import AlignmentError, CheckpointError, RecipeError
from vlsurgery.surgery.merge.model_card import left_out, model_card
from vlsurgery.surgery.merge.pieces import copied_pieces, interleaved_pieces, merged_pieces
from vlsurgery.surgery.merge.plan import MergePlan, SiteMerge, plan_merge
from vlsurgery.surgery.merge.recipe import Recipe
from vlsurgery.surgery.merge.streams import SiteStream
from vlsurgery.surgery.results import CheckpointRef, MergeResult, Mismatch
from vlsurgery.surgery.runtime.progress import Progress, no_progress
from vlsurgery.surgery.runtime.worker_pool import worker_pool
from vlsurgery.surgery.writer import Piece, ShardPlan, plan_shards, write


def run_merge(
    recipe: Recipe,
    out: Path,
    progress: Progress = no_progress,
    prepared: "PreparedMerge | None" = None,
    reread: bool = False,
    ignored: Collection[str] = (),
) -> MergeResult:
    """Merge as the recipe says into the directory `out`, with the recipe and a model card beside the weights.

    The result has exactly the tensors, shapes, dtypes and shards of the recipe's `like`, less a stale tied head. A
    tensor without a coefficient keeps its bytes; so do vocabulary rows that the others lack. prepared: what
    `prepare_merge` returned for this recipe, where that was called before.

    Before anything is written, the weights are compared with the contents that the recipe records, to the last byte;
    files that were hashed before and that nothing has touched since are not read again, unless `reread`.

    ignored: names of mismatches that don't keep the merge from being made (`check_fit`).

    Raises CheckpointError when a checkpoint changed since the recipe was made, can't be read or holds NaN,
    AlignmentError when the checkpoints share too little, RecipeError when a coefficient fits nothing, TargetError
    when `out` can't or must not be written. `out` is then as it was.
    """
    start = time.monotonic()
    ready = prepare_merge(recipe) if prepared is None else prepared
    check_fit(ready, ignored)
    recorded = {role: ref.contents for role, ref in recipe.checkpoints.items() if ref.contents is not None}
    check_contents(ready.checkpoints, recorded, progress, reread)
    texts = {
        "recipe.yaml": recipe.text(),
        "README.md": model_card(recipe, ready.alignment, ready.merge_plan, ready.kept, ready.fit.mismatches, ignored),
    }
    notes = [*ready.alignment.notes, *left_out(ready.alignment), *ready.shard_plan.notes, *ready.fit.notes]
    notes += [each.sentence() for each in ready.fit.mismatches]
    with worker_pool() as pool:
        builder = PieceBuilder(recipe, ready.alignment, pool)

        def produce(tensor: LazyTensor) -> Iterator[Piece]:
            return builder.pieces(tensor, ready.merge_plan.sites.get(tensor.name, ()))

        inputs, flawed = ready.checkpoints.values(), builder.non_finite
        shards = write(
            ready.shard_plan, out, produce, texts, inputs, progress, notes.append, pool=pool, non_finite=flawed
        )
    notes += [
        f"{recipe.like}: {name}: NaN or infinite values, which were copied as they are. Unless it is a mask, the "
        "checkpoint is broken: get it again."
        for name in sorted(flawed)
    ]
    return MergeResult(
        path=str(out),
        tensors=len(ready.shard_plan.tensors),
        bytes=sum(entry.nbytes for entry in ready.shard_plan.entries.values()),
        seconds=time.monotonic() - start,
        shards=shards,
        kept=ready.kept,
        blended=len(ready.merge_plan.sites),
        notes=notes,
        mismatches=ready.fit.mismatches,
    )


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
        if all(part is None or Path(part).exists() for part in base_and_adapter(ref.path)):
            raise
        raise CheckpointError(
            f"checkpoints.{role}: {error} If the checkpoint lies elsewhere on this machine, put its path there into "
            "the recipe: its identity tells whether it is the same one."
        ) from error


@dataclass(frozen=True)
class PieceBuilder:
    """Cuts a tensor of the result into pieces that can each be made alone, in any thread.

    non_finite: names of tensors of which copied entries are NaN or infinite; filled as pieces are made.
    """

    recipe: Recipe
    alignment: Alignment
    pool: ThreadPoolExecutor
    non_finite: set[str] = field(default_factory=set)

    def pieces(self, tensor: LazyTensor, merges: Sequence[SiteMerge]) -> Iterator[Piece]:
        """The pieces of a tensor in order: its sites merged, and what lies between them copied."""
        recipe, method = self.recipe, self.recipe.merge_method
        stored = (tensor.is_float and recipe.safetensors_dtype) or tensor.safetensors_dtype
        done = 0
        for start, stop, members in self._runs(tensor, merges):
            yield from copied_pieces(tensor, stored, done, start, self._tell)
            if len(members) == 1 and members[0].pair.parts[recipe.like].is_contiguous(tensor.shape):
                yield from merged_pieces(self._stream(members[0], self.pool), method, stored)
            else:
                streams = [self._stream(each, None) for each in members]
                yield from interleaved_pieces(tensor, stored, streams, method, start, stop)
            done = stop
        yield from copied_pieces(tensor, stored, done, tensor.numel, self._tell)

    def _tell(self, tensor: LazyTensor) -> None:
        self.non_finite.add(tensor.name)

    def _stream(self, merge: SiteMerge, pool: ThreadPoolExecutor | None) -> SiteStream:
        recipe = self.recipe
        return SiteStream(self.alignment, merge, recipe.origin, recipe.merge_method.whole_rows, recipe.seed, pool)

    def _runs(self, tensor: LazyTensor, merges: Sequence[SiteMerge]) -> list[tuple[int, int, list[SiteMerge]]]:
        """The ranges of a tensor's entries that change, in order: (start, stop, sites). Sites whose ranges overlap
        (columns of one matrix) share a range."""
        like = self.recipe.like
        spans = sorted(
            ((*each.pair.parts[like].span(tensor.shape), each) for each in merges), key=lambda span: span[:2]
        )
        runs: list[tuple[int, int, list[SiteMerge]]] = []
        for start, size, each in spans:
            if runs and start < runs[-1][1]:
                first, stop, members = runs.pop()
                runs.append((first, max(stop, start + size), [*members, each]))
            else:
                runs.append((start, start + size, [each]))
        return runs
