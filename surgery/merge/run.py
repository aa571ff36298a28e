"""Carrying out a recipe: checkpoints in, a merged checkpoint out, a few pieces of it at a time."""

import time
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from vlsurgery.surgery.checkpoint.contents import check_contents
from vlsurgery.surgery.merge.model_card import left_out, model_card
from vlsurgery.surgery.merge.piece_builder import PieceBuilder
from vlsurgery.surgery.merge.preparation import PreparedMerge, check_fit, prepare_merge
from vlsurgery.surgery.merge.recipe import Recipe
from vlsurgery.surgery.merge.shard_merger import ShardMerger
from vlsurgery.surgery.results import MergeResult
from vlsurgery.surgery.runtime.engine import Engine
from vlsurgery.surgery.runtime.progress import Progress, no_progress
from vlsurgery.surgery.runtime.worker_pool import worker_pool
from vlsurgery.surgery.writer import write
from vlsurgery.surgery.writer.filling import Fill, fill_by, fill_here
from vlsurgery.surgery.writer.output_directory import partial_of


def run_merge(
    recipe: Recipe,
    out: Path,
    progress: Progress = no_progress,
    prepared: PreparedMerge | None = None,
    reread: bool = False,
    ignored: Collection[str] = (),
    engine: Engine | None = None,
) -> MergeResult:
    """Merge as the recipe says into the directory `out`, with the recipe and a model card beside the weights.

    The result has exactly the tensors, shapes, dtypes and shards of the recipe's `like`, less a stale tied head. A
    tensor without a coefficient keeps its bytes; so do vocabulary rows that the others lack. prepared: what
    `prepare_merge` returned for this recipe, where that was called before.

    Before anything is written, the weights are compared with the contents that the recipe records, to the last byte;
    files that were hashed before and that nothing has touched since are not read again, unless `reread`.

    ignored: names of mismatches that don't keep the merge from being made (`check_fit`). engine: whose workers merge a
    shard at a time, each in a process that opens the checkpoints itself; None: all shards are merged here, on all
    cores. The bytes are the same.

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
        fill = (
            _filled_here(recipe, ready, out, pool, progress) if engine is None else _filled_by(engine, recipe, progress)
        )
        inputs = ready.checkpoints.values()
        shards, flawed = write(ready.shard_plan, out, fill, texts, inputs, progress, notes.append, pool=pool)
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


def _filled_here(recipe: Recipe, ready: PreparedMerge, out: Path, pool: ThreadPoolExecutor, progress: Progress) -> Fill:
    builder = PieceBuilder(recipe, ready, pool, scratch=partial_of(out).parent)
    return partial(fill_here, builder.pieces, pool, builder.non_finite, progress)


def _filled_by(engine: Engine, recipe: Recipe, progress: Progress) -> Fill:
    return partial(fill_by, engine, partial(ShardMerger, recipe), progress)
