"""`vlsurgery push`: a merge with its card to the Hub; says first what would leave the machine."""

import json
from pathlib import Path
from typing import Annotated

import typer

from vlsurgery.cli.options import Session, standard


@standard
def push(
    session: Session,
    merged: Annotated[Path, typer.Argument(metavar="OUT", help="The directory of a merge, such as case/merged.")],
    model: Annotated[str, typer.Argument(metavar="ORG/NAME", help="What it is to be called on the Hub.")],
    publish: Annotated[
        bool,
        typer.Option(
            "--publish/--dry-run",
            help="Send it. Without this, only say what would be sent: files, sizes and card.",
        ),
    ] = False,
    parent: Annotated[
        list[str] | None,
        typer.Option(
            "--parent",
            metavar="ROLE=ORG/NAME[@REVISION]",
            help="A parent in a directory is this model on the Hub, and is named so in the card, if the hashes of all "
            "its weights agree; may be given several times.",
        ),
    ] = None,
    private: Annotated[
        bool, typer.Option("--private", help="Make a new model private; refuse one that is there and public.")
    ] = False,
    revision: Annotated[
        str | None, typer.Option("--revision", metavar="BRANCH", help="Send it to a branch. [default: main]")
    ] = None,
    create_pr: Annotated[
        bool, typer.Option("--create-pr", help="Propose it as a pull request to a model that is there.")
    ] = False,
    allow_fewer_refusals: Annotated[
        bool,
        typer.Option(
            "--allow-fewer-refusals",
            help="Send a merge that was shown to refuse fewer harmful requests than the adapted one; the card says it.",
        ),
    ] = False,
) -> None:
    """Put a merge with its model card on the Hub.

    Says what would leave the machine, and sends nothing unless told --publish. Files are compared with SHA256SUMS
    first, and only those that the merge wrote are sent. The card names the parents that are on the Hub, the licence
    if all of their cards agree on it, and the rates that the case (--case) measured of this merge, with intervals.
    Directories of this machine are left out of card and recipe: a parent that is not on the Hub is named by its role
    and identity. A merge that was shown to refuse fewer harmful requests than the adapted model is refused (exit code
    3). The token is the one of `hf auth login` or HF_TOKEN. An interrupted push goes on when the command is given
    again.

    \b
    Example:
      vlsurgery push case/merged org/name
      vlsurgery push case/merged org/name --private --publish
    """
    from importlib.metadata import version

    from vlsurgery.cli.shipping.offer import offer_of
    from vlsurgery.cli.shipping.upload import Destination, quiet_uploads, send
    from vlsurgery.cli.view.push import push_data, push_lines
    from vlsurgery.surgery.checkpoint.hub import HubName
    from vlsurgery.surgery.errors import SurgeryError
    from vlsurgery.surgery.runtime.urls import refuse_url_path

    name = HubName.of(model if revision is None else f"{model}@{revision}")
    if name is None or name.revision != revision:
        raise SurgeryError(f"{model}{'@' + revision if revision else ''}: no name of the Hub. Write org/name.")
    if revision is not None and create_pr:
        raise SurgeryError("--revision and --create-pr: a pull request goes to the main branch. Leave one out.")
    refuse_url_path(merged, "a merge is sent from a directory. Copy it to one first")
    console = session.console
    to = Destination(name.model, private, revision, create_pr)
    offer = offer_of(merged, to, session.case, parent or (), console.progress)
    if not allow_fewer_refusals:
        offer.check_refusals()
    pushed = None
    if publish and not session.plan:
        for note in offer.notes:
            console.say(f"push: {note}")
        with quiet_uploads(console.quiet or console.json):
            pushed = send(offer.parcel, offer.to, f"Merge made by vlsurgery {version('vlsurgery')}")
    console.emit(json.dumps(push_data(offer, pushed), indent=1))
    console.show(*push_lines(offer, pushed))
