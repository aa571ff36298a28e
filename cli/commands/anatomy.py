"""`vlsurgery anatomy`: the tensors of checkpoints, site by site, and which of them they share."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from vlsurgery.cli.commands.verified import VerifyOption, verify_all
from vlsurgery.cli.options import WEIGHTS_HELP, PickleOption, Session, TextStackOption, standard

if TYPE_CHECKING:
    from vlsurgery.surgery.checkpoint import Checkpoint
    from vlsurgery.surgery.results import ComparisonResult


@standard
def anatomy(
    session: Session,
    checkpoints: Annotated[list[str], typer.Argument(metavar="CHECKPOINT ...", help=WEIGHTS_HELP)],
    allow_pickle: PickleOption = False,
    text_stack: TextStackOption = None,
    verify: VerifyOption = False,
) -> None:
    """List what checkpoints hold, by tower and layer.

    Reads headers only, never weights, so it answers at once whatever the size; of a model on the Hub it fetches
    nothing else. With several checkpoints, says which tensors the others share with the last one, which do not and
    why, and in which settings and tokens they differ. With --verify, reads every file again and compares it with the
    SHA256SUMS of a merge, or else with the hashes that vlsurgery diff took for the case. Needs no case otherwise, and
    writes nothing.

    \b
    Example:
      vlsurgery anatomy llava/
      vlsurgery anatomy llama/ llava/
      vlsurgery anatomy case/merged --verify
    """
    from vlsurgery.cli.view.mismatches import mismatch_tables
    from vlsurgery.cli.view.tables import anatomy_tables, comparison_tables
    from vlsurgery.surgery.checkpoint import Checkpoint
    from vlsurgery.surgery.checkpoint.anatomy import describe
    from vlsurgery.surgery.checkpoint.text_stack import choose_text_stacks

    verified = {}
    if verify and not session.plan:
        verified = verify_all(checkpoints, session.console, session.case, allow_pickle)
    opened = [Checkpoint.open(each, headers_only=True, allow_pickle=allow_pickle) for each in checkpoints]
    choose_text_stacks(opened, text_stack or ())
    if session.plan:
        shards = [file for each in opened for file in each.shards]
        session.console.emit(json.dumps({"plan": [{"step": "anatomy", "reads": shards, "writes": []}]}))
        what = "every file of the checkpoints, and the headers" if verify else "the headers"
        session.console.show(f"would read {what} of {len(shards)} weight files, and write nothing")
        return
    results = [describe(each) for each in opened]
    shared = _compare(opened) if len(opened) > 1 else None
    dumped: dict[str, object] = results[0].model_dump(mode="json")
    if shared:
        every = [result.model_dump(mode="json") for result in results]
        dumped = {"checkpoints": every, "shared": shared.model_dump(mode="json")}
    if verified:
        dumped["verified"] = {ref: asdict(each) for ref, each in verified.items()}
    session.console.emit(json.dumps(dumped, indent=1))
    for ref, result in zip(checkpoints, results, strict=True):
        session.console.show(*([ref] if shared else []), *anatomy_tables(result), *result.notes)
    if shared is not None:
        session.console.show(*comparison_tables(shared), *mismatch_tables(shared.mismatches, list(shared.roles)))
    for ref, found in verified.items():
        session.console.show(f"{ref}: all {len(found.agree)} files are as they were written or measured")


def _compare(opened: "Sequence[Checkpoint]") -> "ComparisonResult":
    """The others compared with the last one, each by its reference."""
    from vlsurgery.surgery.alignment.comparison import compare

    refs = [each.ref for each in opened]
    names = [ref if refs.count(ref) == 1 else f"{ref} ({at})" for at, ref in enumerate(refs, 1)]
    return compare(dict(zip(names, opened, strict=True)))
