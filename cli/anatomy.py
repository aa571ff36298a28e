"""`vlsurgery anatomy`: what a checkpoint holds, site by site."""

import json
from typing import Annotated

import typer

from cli.options import Session, standard


@standard
def anatomy(
    session: Session,
    checkpoint: Annotated[str, typer.Argument(metavar="CHECKPOINT", help="A checkpoint: a directory.")],
) -> None:
    """List what a checkpoint holds: towers, layers, shapes, dtypes.

    Reads headers only, never weights, so it answers at once whatever the size. Needs no case and writes nothing.

    \b
    Example:
      vlsurgery anatomy llava/
    """
    from cli.tables import anatomy_tables
    from surgery.anatomy import describe
    from surgery.checkpoint import Checkpoint

    opened = Checkpoint.open(checkpoint)
    if session.plan:
        session.console.emit(json.dumps({"plan": [{"step": "anatomy", "reads": list(opened.shards), "writes": []}]}))
        session.console.show(f"would read the headers of {len(opened.shards)} weight files, and write nothing")
        return
    result = describe(opened)
    session.console.emit(result.model_dump_json(indent=1))
    session.console.show(*anatomy_tables(result))
