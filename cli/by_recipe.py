"""`merge --recipe`: a merge that needs no case."""

import json
from pathlib import Path

from cli.options import Session
from surgery.mergekit import load_recipe
from surgery.operation import operate


def merge_by_recipe(session: Session, path: Path, out: Path) -> None:
    """Write the checkpoint that the recipe at `path` orders to `out`."""
    recipe = load_recipe(path)
    console = session.console
    if session.plan:
        console.emit(json.dumps({"plan": [{"step": "merge", "writes": [str(out)]}]}))
        sources = ", ".join(f"{role} {ref.path}" for role, ref in recipe.checkpoints.items())
        console.show(f"would merge {sources} by {recipe.method} into {out}; nothing was written")
        return
    made = operate(recipe, out, console.track)
    console.emit(made.model_dump_json(indent=1))
    console.show(
        f"{made.path}: {made.tensors} tensors, {made.blended} blended, {made.kept} kept as they are, "
        f"{made.bytes / 1e6:.1f} MB in {made.seconds:.1f} s"
    )
