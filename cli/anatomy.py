"""`vlsurgery anatomy`: what checkpoints hold, site by site, and what of it they share."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from cli.options import CHECKPOINT_HELP, PickleOption, Session, standard

if TYPE_CHECKING:
    from surgery.alignment import Alignment
    from surgery.checkpoint import Checkpoint
    from surgery.forms import Part


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
    from cli.tables import alignment_tables, anatomy_tables
    from surgery.anatomy import describe
    from surgery.checkpoint import Checkpoint

    opened = [Checkpoint.open(each, headers_only=True, allow_pickle=allow_pickle) for each in checkpoints]
    if session.plan:
        shards = [file for each in opened for file in each.shards]
        session.console.emit(json.dumps({"plan": [{"step": "anatomy", "reads": shards, "writes": []}]}))
        session.console.show(f"would read the headers of {len(shards)} weight files, and write nothing")
        return
    results = [describe(each) for each in opened]
    alignment = _alignment(opened) if len(opened) > 1 else None
    if alignment is None:
        session.console.emit(results[0].model_dump_json(indent=1))
    else:
        written = [result.model_dump(mode="json") for result in results]
        session.console.emit(json.dumps({"checkpoints": written, "alignment": _plain(alignment)}, indent=1))
    for ref, result in zip(checkpoints, results, strict=True):
        session.console.show(*([ref] if alignment else []), *anatomy_tables(result))
    if alignment is not None:
        session.console.show(*alignment_tables(alignment))


def _alignment(opened: "Sequence[Checkpoint]") -> "Alignment":
    """The others against the last one, each by the name that the user gave it."""
    from surgery.alignment import align

    names = [
        each.ref if [other.ref for other in opened].count(each.ref) == 1 else f"{at}: {each.ref}"
        for at, each in enumerate(opened)
    ]
    return align(dict(zip(names, opened, strict=True)), like=names[-1])


def _name(part: "Part") -> object:
    label = part.label()
    return label if isinstance(label, str) else label.model_dump(mode="json")


def _plain(alignment: "Alignment") -> dict[str, object]:
    return {
        "pairs": [
            {
                "site": pair.site.key,
                "shape": list(pair.shape),
                "names": {role: _name(part) for role, part in pair.parts.items()},
            }
            for pair in alignment.pairs
        ],
        "unmatched": [tensor.model_dump(mode="json") for tensor in alignment.unmatched],
        "notes": list(alignment.notes),
    }
