"""`merge --recipe FILE --to-mergekit OUT.yaml`: the same merge as an order for mergekit."""

import json
from pathlib import Path

from cli.options import Session
from surgery.mergekit import write_mergekit
from surgery.recipe import Recipe
from surgery.results import write_text


def export_to_mergekit(session: Session, path: Path, out: Path) -> None:
    """Write the YAML with which mergekit merges as the recipe at `path` says to `out`; nothing is merged."""
    text = write_mergekit(Recipe.load(path))
    console = session.console
    if session.plan:
        console.emit(json.dumps({"plan": [{"step": "export", "writes": [str(out)]}]}))
        console.show(f"would write {out} for mergekit; nothing was written")
        return
    write_text(out, text)
    console.emit(json.dumps({"path": str(out)}))
    console.show(f"{out}: for mergekit-yaml {out} OUT")
