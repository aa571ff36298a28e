"""`merge --recipe` and `merge --method`: a merge without a case."""

import json
import os
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import asdict
from pathlib import Path

from vlsurgery.cli.options import Session
from vlsurgery.cli.view.mismatches import mismatch_tables
from vlsurgery.cli.workflow.divided import divided_merge
from vlsurgery.cli.workflow.engines import engine_for_weights
from vlsurgery.cli.workflow.estimates import PROGRAM_BYTES, STREAM_BYTES, PlannedStep
from vlsurgery.cli.workflow.process import tuned_for_weights
from vlsurgery.surgery.alignment import align
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.errors import CheckpointError
from vlsurgery.surgery.merge.preparation import PreparedMerge, check_fit, check_ignored, prepare_merge
from vlsurgery.surgery.merge.recipe import Recipe
from vlsurgery.surgery.merge.run import run_merge
from vlsurgery.surgery.runtime.byte_counts import in_words
from vlsurgery.surgery.runtime.progress import Progress
from vlsurgery.surgery.writer.checksums import verify as compared
from vlsurgery.surgery.writer.output_directory import check_target


def merge_by_recipe(
    session: Session,
    recipe: Recipe,
    out: Path,
    verify: bool = False,
    opened: Mapping[str, Checkpoint] | None = None,
    ignored: Collection[str] = (),
    ray: str | None = None,
) -> None:
    """Write the checkpoint that a recipe orders to `out`; with `verify`, read it and, where the recipe has hashes of
    them, the checkpoints that it names again and compare.

    opened: the recipe's checkpoints, where they are open. ignored: mismatches that it goes on with. ray: the address of
    a Ray cluster whose workers merge.
    """
    console = session.console
    check_ignored(ignored)
    prepared = prepare_merge(recipe, align(opened, recipe.like) if opened else None)
    console.show(*mismatch_tables(prepared.fit.mismatches, list(prepared.checkpoints)))
    check_fit(prepared, ignored)
    if session.plan:
        show_merge_plan(session, recipe, prepared, out, ray)
        return
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # One thread for methods that import torch later.
    with tuned_for_weights(prepared.checkpoints.values()), engine_for_weights(ray) as engine:
        made = run_merge(recipe, out, console.progress, prepared, verify, ignored, engine)
    for note in made.notes:
        console.say(note)
    if verify:
        check_sums(out, console.progress)
    console.emit(made.model_dump_json(indent=1))
    console.show(
        f"{made.path}: {made.tensors} tensors, {made.blended} merged, {made.kept} kept as they are, "
        f"{made.bytes / 1e6:.1f} MB in {made.seconds:.1f} s" + ("; verified" if verify else "")
    )


def check_sums(folder: Path, progress: Progress) -> None:
    """Compare a merged checkpoint with its SHA256SUMS. Raises CheckpointError that names each file that differs."""
    fault = compared(folder, progress).fault
    if fault is not None:
        raise CheckpointError(f"{folder}: not as it was written: {fault}. The disk may be failing; merge again.")


def show_merge_plan(
    session: Session, recipe: Recipe, prepared: PreparedMerge, out: Path, ray: str | None = None
) -> None:
    """Show what the merge into `out` would read and write, and how a Ray cluster would divide it.

    Raises TargetError where `out` can't be written, as far as its parent directory exists.
    """
    nbytes = prepared.shard_plan.nbytes
    if out.absolute().parent.is_dir():
        check_target(out, [each for model in prepared.checkpoints.values() for each in model.folders], nbytes)
    read = _bytes_read(recipe, prepared)
    memory = min(STREAM_BYTES, PROGRAM_BYTES + read.total() + nbytes)
    divided = None if ray is None else divided_merge(ray, recipe, prepared, read.total())
    step = PlannedStep("merge", f"by {recipe.method}", (str(out),), read.total(), nbytes, memory, ray=divided)
    reads = {role: {"path": ref.path, "bytes": read[role]} for role, ref in recipe.checkpoints.items()}
    merged, kept = len(prepared.merge_plan.sites), prepared.kept
    counts = {"tensors": merged + kept, "merged": merged, "kept": kept}
    session.console.emit(json.dumps({"plan": [{**asdict(step), "reads": reads, **counts}]}, indent=1))
    width = max(map(len, reads))
    session.console.show(
        f"Would merge by {recipe.method}: {recipe.merge_method.formula}",
        *(
            f"  reads   {role:<{width}}  {in_words(read[role])} of {ref.path}"
            for role, ref in recipe.checkpoints.items()
        ),
        f"  writes  {out}: {in_words(nbytes)}; {merged + kept} tensors, {merged} merged, {kept} as in {recipe.like}",
        f"  takes   at most {in_words(memory)} of memory{'' if divided is None else ' a worker'}",
        *([] if divided is None else [f"  divides {divided.sentence()}"]),
        "Nothing was written.",
    )


def _bytes_read(recipe: Recipe, prepared: PreparedMerge) -> Counter[str]:
    """Role -> bytes of its tensors that the merge reads, each counted once."""
    plan = prepared.merge_plan
    kept = (tensor.nbytes for tensor in prepared.shard_plan.tensors if tensor.name not in plan.sites)
    read: Counter[str] = Counter({recipe.like: sum(kept)})
    for site in (site for sites in plan.sites.values() for site in sites):
        for role in {*site.settings.coefficients, *([recipe.origin] if recipe.origin else [])}:
            read[role] += site.pair.numel * prepared.alignment.tensor(site.pair, role).dtype.itemsize
    return read
