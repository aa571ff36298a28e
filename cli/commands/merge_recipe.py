"""`merge --recipe` and `merge --method`: a merge that needs no case."""

from pathlib import Path

from vlsurgery.cli.options import Session
from vlsurgery.surgery.errors import CheckpointError
from vlsurgery.surgery.merge.recipe import Recipe
from vlsurgery.surgery.merge.run import run_merge
from vlsurgery.surgery.runtime.progress import Progress
from vlsurgery.surgery.writer.checksums import verify as compared


def merge_by_recipe(session: Session, recipe: Recipe, out: Path, verify: bool = False) -> None:
    """Write the checkpoint that a recipe orders to `out`; with `verify`, read it again and compare what was hashed."""
    console = session.console
    if session.plan:
        from vlsurgery.cli.commands.merge_plan import show_plan

        show_plan(session, recipe, out)
        return
    made = run_merge(recipe, out, console.progress)
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
    """Read a merge again. Raises CheckpointError that names each file that is not as it was written."""
    fault = compared(folder, progress).fault
    if fault is not None:
        raise CheckpointError(f"{folder}: not as it was written: {fault}. The disk may be failing; merge again.")
