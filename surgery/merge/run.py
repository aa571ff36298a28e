"""Executing a recipe: checkpoints in, a merged checkpoint out, one stretch of a tensor at a time."""

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from vlsurgery.surgery.alignment import Alignment, align
from vlsurgery.surgery.checkpoint import Checkpoint, LazyTensor
from vlsurgery.surgery.errors import CheckpointError, RecipeError
from vlsurgery.surgery.merge.model_card import left_out, model_card
from vlsurgery.surgery.merge.pieces import assembled, copied, merged
from vlsurgery.surgery.merge.plan import MergePlan, SiteMerge, plan_merge
from vlsurgery.surgery.merge.recipe import Recipe
from vlsurgery.surgery.merge.streams import SiteStream
from vlsurgery.surgery.results import MergeResult
from vlsurgery.surgery.runtime.progress import Progress, no_progress
from vlsurgery.surgery.runtime.worker_pool import worker_pool
from vlsurgery.surgery.writer.writer import Piece, ShardPlan, plan_shards, write


def run_merge(
    recipe: Recipe, out: Path, progress: Progress = no_progress, prepared: "PreparedMerge | None" = None
) -> MergeResult:
    """Merge as the recipe says into the directory `out`, with the recipe and a model card beside the weights.

    prepared: what `prepare_merge` made of this recipe, where it was called before.

    The result has exactly the tensors, shapes, dtypes and shards of the recipe's `like`, less a stale tied head. A
    tensor that nothing pulls at keeps its bytes; so do vocabulary rows that the others lack.

    Raises CheckpointError when a checkpoint changed since the recipe was made, can't be read or holds NaN,
    AlignmentError when the checkpoints share too little, RecipeError when a coefficient fits nothing, TargetError
    when `out` can't or must not be written. `out` is then as it was.
    """
    start = time.monotonic()
    ready = prepare_merge(recipe) if prepared is None else prepared
    texts = {
        "recipe.yaml": recipe.text(),
        "README.md": model_card(recipe, ready.alignment, ready.merge_plan, ready.kept),
    }
    notes = left_out(ready.alignment)
    with worker_pool() as pool:
        builder = PieceBuilder(recipe, ready.alignment, pool)

        def produce(tensor: LazyTensor) -> Iterator[Piece]:
            return builder.pieces(tensor, ready.merge_plan.sites.get(tensor.name, ()))

        shards = write(
            ready.shard_plan, out, produce, texts, ready.checkpoints.values(), progress, notes.append, pool=pool
        )
    return MergeResult(
        path=str(out),
        tensors=len(ready.shard_plan.tensors),
        bytes=sum(entry.nbytes for entry in ready.shard_plan.entries.values()),
        seconds=time.monotonic() - start,
        shards=shards,
        kept=ready.kept,
        blended=len(ready.merge_plan.sites),
        notes=notes,
    )


@dataclass(frozen=True)
class PreparedMerge:
    """A merge as far as headers tell. checkpoints: role -> checkpoint. asked: what is done with which tensor. order:
    what will be written."""

    checkpoints: Mapping[str, Checkpoint]
    alignment: Alignment
    merge_plan: MergePlan
    shard_plan: ShardPlan

    @property
    def kept(self) -> int:
        """How many tensors keep their values."""
        return sum(tensor.name not in self.merge_plan.sites for tensor in self.shard_plan.tensors)


def prepare_merge(recipe: Recipe, alignment: Alignment | None = None) -> PreparedMerge:
    """Open the recipe's checkpoints and see that it can be carried out; no weights are read. Raises as `run_merge`.

    alignment: of the recipe's roles, and perhaps of others; its open checkpoints are used, and it is where it is of the
        very roles.
    """
    if len(recipe.checkpoints) < 2:
        raise RecipeError("checkpoints: a merge needs two of them or more.")
    checkpoints = open_checkpoints(recipe, {} if alignment is None else alignment.checkpoints)
    if alignment is None or alignment.like != recipe.like or alignment.checkpoints.keys() != checkpoints.keys():
        alignment = align(checkpoints, recipe.like)
    merge_plan = plan_merge(recipe, alignment)
    stale = alignment.stale_heads.get(recipe.like)
    return PreparedMerge(
        checkpoints,
        alignment,
        merge_plan,
        plan_shards(checkpoints[recipe.like], [stale] if stale else [], recipe.safetensors_dtype),
    )


def open_checkpoints(recipe: Recipe, opened: Mapping[str, Checkpoint]) -> dict[str, Checkpoint]:
    """The recipe's checkpoints, role -> checkpoint, known to be the files that the recipe was made for. opened: those
    that are open already."""
    checkpoints = {role: opened.get(role) or Checkpoint.reopen(ref) for role, ref in recipe.checkpoints.items()}
    for role, checkpoint in checkpoints.items():
        expected = recipe.checkpoints[role].identity
        if checkpoint.identity != expected:
            raise CheckpointError(
                f"{role} ({checkpoint.ref}) changed since the recipe was made: its identity is {checkpoint.identity}, "
                f"the recipe's {expected}. Measure and make the recipe again, or put the new identity into it."
            )
    return checkpoints


@dataclass(frozen=True)
class PieceBuilder:
    """Cuts a tensor of the result into pieces that can each be made alone, in any thread."""

    recipe: Recipe
    alignment: Alignment
    pool: ThreadPoolExecutor

    def pieces(self, tensor: LazyTensor, jobs: Sequence[SiteMerge]) -> Iterator[Piece]:
        """The tensor's bytes in order: its parts as their jobs make them, and what lies between them as it is."""
        safetensors_dtype = (
            self.recipe.safetensors_dtype
            if tensor.is_float and self.recipe.safetensors_dtype
            else tensor.safetensors_dtype
        )
        done = 0
        for start, stop, members in self._runs(tensor, jobs):
            yield from copied(tensor, safetensors_dtype, done, start)
            if len(members) == 1 and members[0].pair.parts[self.alignment.like].is_contiguous(tensor.shape):
                yield from merged(self._stream(members[0]), self.recipe.merge_method, safetensors_dtype)
            else:
                streams = [self._stream(job, alone=True) for job in members]
                yield from assembled(tensor, safetensors_dtype, streams, self.recipe.merge_method, (start, stop))
            done = stop
        yield from copied(tensor, safetensors_dtype, done, tensor.numel)

    def _stream(self, job: SiteMerge, alone: bool = False) -> SiteStream:
        pool = None if alone else self.pool
        return SiteStream(
            self.alignment, job, self.recipe.origin, self.recipe.merge_method.whole_rows, self.recipe.seed, pool
        )

    def _runs(self, tensor: LazyTensor, jobs: Sequence[SiteMerge]) -> list[tuple[int, int, list[SiteMerge]]]:
        """The stretches of a tensor's entries that change, in order, each with its jobs: those whose entries interleave
        (columns of one matrix) share one."""
        like = self.alignment.like
        boxes = sorted(((*job.pair.parts[like].span(tensor.shape), job) for job in jobs), key=lambda span: span[:2])
        runs: list[tuple[int, int, list[SiteMerge]]] = []
        for start, size, job in boxes:
            if runs and start < runs[-1][1]:
                first, stop, members = runs.pop()
                runs.append((first, max(stop, start + size), [*members, job]))
            else:
                runs.append((start, start + size, [job]))
        return runs
