"""`merge --recipe FILE --to-mergekit OUT.yaml`: the same merge as an order for mergekit."""

import json
from pathlib import Path

from cli.options import Session
from surgery.errors import TargetError
from surgery.mergekit import load_recipe, write_mergekit
from surgery.results import write_text


def export_to_mergekit(session: Session, path: Path, out: Path) -> None:
    """Write the YAML with which mergekit merges as the recipe at `path` says to `out`; nothing is merged."""
    text = write_mergekit(load_recipe(path))
    console = session.console
    if session.plan:
        console.emit(json.dumps({"plan": [{"step": "export", "writes": [str(out)]}]}))
        console.show(f"would write {out} for mergekit; nothing was written")
        return
    try:
        write_text(out, text)
    except OSError as error:
        raise TargetError(f"{out}: can't write the order ({error.strerror}). Name another file.") from error
    console.emit(json.dumps({"path": str(out)}))
    console.show(f"{out}: for mergekit-yaml {out} OUT")
