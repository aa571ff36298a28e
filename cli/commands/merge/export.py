"""`merge --to-mergekit OUT.yaml`: the same merge as YAML for mergekit."""

import json
from pathlib import Path

from vlsurgery.cli.options import Session
from vlsurgery.cli.outputs import check_output, is_mergekit_export
from vlsurgery.surgery.errors import TargetError
from vlsurgery.surgery.merge.recipe import Recipe
from vlsurgery.surgery.mergekit import write_mergekit
from vlsurgery.surgery.runtime.atomic_file import write_text


def export_to_mergekit(session: Session, recipe: Recipe, out: Path) -> None:
    """Write to `out` the YAML with which mergekit does the merge of the recipe; nothing is merged."""
    check_output(out, is_mergekit_export, "an order that --to-mergekit wrote", "--to-mergekit")
    text = write_mergekit(recipe)
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
