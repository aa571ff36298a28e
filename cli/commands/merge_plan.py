"""`merge --plan`: what a merge would read and write, and about how long that would take. Writes nothing.

Time is that of the bytes, at the speed of an ordinary solid-state disk, and of the arithmetic, at the speed with which
this machine merges a small made-up tensor by the same method. Expect the truth within about a factor of three.
"""

import json
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Final

from vlsurgery.cli.options import Session
from vlsurgery.cli.workflow.estimates import PROGRAM_BYTES, START_SECONDS, STREAM_BYTES, Estimate, PlannedStep
from vlsurgery.surgery.merge.plan import SiteMerge
from vlsurgery.surgery.merge.recipe import Recipe
from vlsurgery.surgery.merge.run import PreparedMerge, prepare_merge
from vlsurgery.surgery.runtime.worker_pool import cores, worker_pool
from vlsurgery.surgery.writer.output_directory import check_target, in_words

DISK_BYTES_PER_SECOND: Final = 1e9
SAMPLE: Final = (512, 1024)
# They multiply whole matrices, so that an entry costs as much as its matrix's shorter side is long.
BY_SIDE: Final = ("safelora", "safemerge")


def show_plan(session: Session, recipe: Recipe, out: Path) -> None:
    """Say what the recipe's merge into `out` would do. Raises as the merge itself does, as far as headers tell; whether
    `out` may be written is known only where its parent directory exists."""
    ready = prepare_merge(recipe)
    if out.absolute().parent.is_dir():
        check_target(
            out, [each for model in ready.checkpoints.values() for each in model.folders], ready.shard_plan.nbytes
        )
    read = bytes_read(recipe, ready)
    step = PlannedStep("merge", f"by {recipe.method}", (str(out),), estimate(recipe, ready, sum(read.values())))
    reads = {role: {"path": ref.path, "bytes": read[role]} for role, ref in recipe.checkpoints.items()}
    merged, kept = len(ready.merge_plan.sites), ready.kept
    counts = {"tensors": merged + kept, "merged": merged, "kept": kept, "bytes": ready.shard_plan.nbytes}
    session.console.emit(json.dumps({"plan": [{**asdict(step), "reads": reads, **counts}]}, indent=1))
    width = max(map(len, reads))
    session.console.show(
        f"Would merge by {recipe.method}: {recipe.merge_method.formula}",
        *(
            f"  reads   {role:<{width}}  {in_words(read[role])} of {ref.path}"
            for role, ref in recipe.checkpoints.items()
        ),
        f"  writes  {out}: {in_words(ready.shard_plan.nbytes)}; {merged + kept} tensors, {merged} merged, {kept} as in "
        f"{recipe.like}",
        f"  takes   about {step.estimate.seconds:.0f} s, good to a factor of about three, and "
        f"{step.estimate.memory / 1e9:.1f} GB of memory",
        "Nothing was written.",
    )


def bytes_read(recipe: Recipe, ready: PreparedMerge) -> Counter[str]:
    """Role -> bytes of its tensors that are needed, each counted once."""
    read: Counter[str] = Counter(
        {
            recipe.like: sum(
                tensor.nbytes for tensor in ready.shard_plan.tensors if tensor.name not in ready.merge_plan.sites
            )
        }
    )
    for job in _jobs(ready):
        for role in {*job.settings.coefficients, *([recipe.origin] if recipe.origin else [])}:
            read[role] += job.pair.numel * ready.alignment.tensor(job.pair, role).dtype.itemsize
    return read


def estimate(recipe: Recipe, ready: PreparedMerge, read: int) -> Estimate:
    """What the merge would take. A method that surveys a tensor first reads it twice, the second time mostly from
    memory."""
    moved = read + ready.shard_plan.nbytes
    entries = sum(job.pair.numel * _cost(recipe, job) for job in _jobs(ready))
    seconds = START_SECONDS + moved / DISK_BYTES_PER_SECOND + entries * _seconds_per_entry(recipe, ready) / cores()
    return Estimate(seconds, min(STREAM_BYTES, PROGRAM_BYTES + moved), 0)


def _cost(recipe: Recipe, job: SiteMerge) -> float:
    """What an entry costs, in entries of the sample."""
    shape = job.pair.shape
    return min(shape) / min(SAMPLE) if recipe.method in BY_SIDE and len(shape) == 2 else 1.0


def _seconds_per_entry(recipe: Recipe, ready: PreparedMerge) -> float:
    """How long one core takes, with the settings of the first tensor that is merged."""
    import torch

    settings = next((job.settings for job in _jobs(ready)), None)
    if settings is None or not settings.coefficients:
        return 0.0
    models = {role: torch.rand(SAMPLE) for role in settings.coefficients}
    base = torch.rand(SAMPLE) if recipe.origin else None
    with worker_pool():
        began = time.perf_counter()
        recipe.merge_method.merge(models, base, settings.coefficients, **settings.values)
        return (time.perf_counter() - began) / (SAMPLE[0] * SAMPLE[1])


def _jobs(ready: PreparedMerge) -> list[SiteMerge]:
    return [job for jobs in ready.merge_plan.sites.values() for job in jobs]
