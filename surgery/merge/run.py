"""Executing a recipe: checkpoints in, a merged checkpoint out, one stretch of a tensor at a time."""

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from vlsurgery.surgery.alignment.alignment import Alignment, align
from vlsurgery.surgery.checkpoint import Checkpoint, LazyTensor
from vlsurgery.surgery.errors import CheckpointError, RecipeError
from vlsurgery.surgery.merge.model_card import left_out, model_card
from vlsurgery.surgery.merge.pieces import assembled, copied, merged
from vlsurgery.surgery.merge.plan import Job, Orders, orders
from vlsurgery.surgery.merge.recipe import Recipe
from vlsurgery.surgery.merge.streams import SiteStream
from vlsurgery.surgery.results import MergeResult
from vlsurgery.surgery.runtime.progress import Track, silent
from vlsurgery.surgery.runtime.worker_pool import crew
from vlsurgery.surgery.writer.writer import Piece, Plan, plan, write


def operate(recipe: Recipe, out: Path, track: Track = silent) -> MergeResult:
    """Merge as the recipe says into the directory `out`, with the recipe and a model card beside the weights.

    The result has exactly the tensors, shapes, dtypes and shards of the recipe's `like`, less a stale tied head. A
    tensor that nothing pulls at keeps its bytes; so do vocabulary rows that the others lack.

    Raises CheckpointError when a checkpoint changed since the recipe was made, can't be read or holds NaN,
    AlignmentError when the checkpoints share too little, RecipeError when a coefficient fits nothing, TargetError
    when `out` can't or must not be written. `out` is then as it was.
    """
    start = time.monotonic()
    ready = prepare(recipe)
    texts = {
        "recipe.yaml": recipe.text(),
        "README.md": model_card(recipe, ready.alignment, ready.asked, ready.kept),
    }
    notes = left_out(ready.alignment)
    with crew(recipe.rule.by_torch or any(each.is_computed for each in ready.checkpoints.values())) as pool:
        surgeon = Surgeon(recipe, ready.alignment, pool)

        def produce(tensor: LazyTensor) -> Iterator[Piece]:
            return surgeon.pieces(tensor, ready.asked.jobs.get(tensor.name, ()))

        shards = write(ready.order, out, produce, texts, ready.checkpoints.values(), track, notes.append, pool=pool)
    return MergeResult(
        path=str(out),
        tensors=len(ready.order.tensors),
        bytes=sum(entry.nbytes for entry in ready.order.entries.values()),
        seconds=time.monotonic() - start,
        shards=shards,
        kept=ready.kept,
        blended=len(ready.asked.jobs),
        notes=notes,
    )


@dataclass(frozen=True)
class Prepared:
    """A merge as far as headers tell. checkpoints: role -> checkpoint. asked: what is done with which tensor. order:
    what will be written."""

    checkpoints: Mapping[str, Checkpoint]
    alignment: Alignment
    asked: Orders
    order: Plan

    @property
    def kept(self) -> int:
        """How many tensors keep their values."""
        return sum(tensor.name not in self.asked.jobs for tensor in self.order.tensors)


def prepare(recipe: Recipe) -> Prepared:
    """Open the recipe's checkpoints and see that it can be carried out; no weights are read. Raises as `operate`."""
    if len(recipe.checkpoints) < 2:
        raise RecipeError("checkpoints: a merge needs two of them or more.")
    checkpoints = open_checkpoints(recipe)
    alignment = align(checkpoints, recipe.like)
    asked = orders(recipe, alignment)
    stale = alignment.stale_heads.get(recipe.like)
    return Prepared(
        checkpoints, alignment, asked, plan(checkpoints[recipe.like], [stale] if stale else [], recipe.code)
    )


def open_checkpoints(recipe: Recipe) -> dict[str, Checkpoint]:
    """The recipe's checkpoints, role -> checkpoint, known to be the files that the recipe was made for."""
    checkpoints = {role: Checkpoint.reopen(ref) for role, ref in recipe.checkpoints.items()}
    for role, checkpoint in checkpoints.items():
        expected = recipe.checkpoints[role].identity
        if checkpoint.identity != expected:
            raise CheckpointError(
                f"{role} ({checkpoint.ref}) changed since the recipe was made: its identity is {checkpoint.identity}, "
                f"the recipe's {expected}. Measure and make the recipe again, or put the new identity into it."
            )
    return checkpoints


@dataclass(frozen=True)
class Surgeon:
    """Cuts a tensor of the result into pieces that can each be made alone, in any thread."""

    recipe: Recipe
    alignment: Alignment
    pool: ThreadPoolExecutor

    def pieces(self, tensor: LazyTensor, jobs: Sequence[Job]) -> Iterator[Piece]:
        """The tensor's bytes in order: its parts as their jobs make them, and what lies between them as it is."""
        code = self.recipe.code if tensor.is_float and self.recipe.code else tensor.code
        done = 0
        for start, stop, members in self._runs(tensor, jobs):
            yield from copied(tensor, code, done, start)
            if len(members) == 1 and members[0].pair.parts[self.alignment.like].is_run(tensor.shape):
                yield from merged(self._stream(members[0]), self.recipe.rule, code)
            else:
                streams = [self._stream(job, alone=True) for job in members]
                yield from assembled(tensor, code, streams, self.recipe.rule, (start, stop))
            done = stop
        yield from copied(tensor, code, done, tensor.numel)

    def _stream(self, job: Job, alone: bool = False) -> SiteStream:
        pool = None if alone else self.pool
        return SiteStream(self.alignment, job, self.recipe.origin, self.recipe.rule.rows, self.recipe.seed, pool)

    def _runs(self, tensor: LazyTensor, jobs: Sequence[Job]) -> list[tuple[int, int, list[Job]]]:
        """The stretches of a tensor's entries that change, in order, each with its jobs: those whose entries interleave
        (columns of one matrix) share one."""
        like = self.alignment.like
        boxes = sorted(((*job.pair.parts[like].box(tensor.shape), job) for job in jobs), key=lambda box: box[:2])
        runs: list[tuple[int, int, list[Job]]] = []
        for start, size, job in boxes:
            if runs and start < runs[-1][1]:
                first, stop, members = runs.pop()
                runs.append((first, max(stop, start + size), [*members, job]))
            else:
                runs.append((start, start + size, [job]))
        return runs
