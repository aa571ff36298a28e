"""`vlsurgery anatomy`: what checkpoints hold, site by site, and what of it they share."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from cli.options import CHECKPOINT_HELP, PickleOption, Session, standard

if TYPE_CHECKING:
    from surgery.checkpoint import Checkpoint
    from surgery.results import ComparisonResult


@standard
def anatomy(
    session: Session,
    checkpoints: Annotated[list[str], typer.Argument(metavar="CHECKPOINT ...", help=CHECKPOINT_HELP)],
    allow_pickle: PickleOption = False,
) -> None:
    """List what checkpoints hold: towers, layers, shapes, dtypes.

    Reads headers only, never weights, so it answers at once whatever the size; of a model on the Hub it fetches
    nothing else. With several checkpoints, says which tensors the others share with the last one, and which do not
    and why. Needs no case and writes nothing.

    \b
    Example:
      vlsurgery anatomy llava/
      vlsurgery anatomy llama/ llava/
    """
    from cli.tables import anatomy_tables, comparison_tables
    from surgery.anatomy import describe
    from surgery.checkpoint import Checkpoint

    opened = [Checkpoint.open(each, headers_only=True, allow_pickle=allow_pickle) for each in checkpoints]
    if session.plan:
        shards = [file for each in opened for file in each.shards]
        session.console.emit(json.dumps({"plan": [{"step": "anatomy", "reads": shards, "writes": []}]}))
        session.console.show(f"would read the headers of {len(shards)} weight files, and write nothing")
        return
    results = [describe(each) for each in opened]
    shared = _compare(opened) if len(opened) > 1 else None
    if shared is None:
        session.console.emit(results[0].model_dump_json(indent=1))
    else:
        written = [result.model_dump(mode="json") for result in results]
        session.console.emit(json.dumps({"checkpoints": written, "shared": shared.model_dump(mode="json")}, indent=1))
    for ref, result in zip(checkpoints, results, strict=True):
        session.console.show(*([ref] if shared else []), *anatomy_tables(result))
    if shared is not None:
        session.console.show(*comparison_tables(shared))


def _compare(opened: "Sequence[Checkpoint]") -> "ComparisonResult":
    """The others against the last one, each by the name that the user gave it."""
    from surgery.comparison import compare

    refs = [each.ref for each in opened]
    names = [ref if refs.count(ref) == 1 else f"{ref} ({at})" for at, ref in enumerate(refs, 1)]
    return compare(dict(zip(names, opened, strict=True)))
