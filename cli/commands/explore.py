"""`vlsurgery explore`: a case as a page on this machine, with prompts to type."""

import json
import sys
import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from vlsurgery.cli.options import Running, Session, runs_models, standard


@standard
@runs_models
def explore(
    session: Session,
    folder: Annotated[Path | None, typer.Argument(metavar="CASE", help="The case's folder, as --case.")] = None,
    port: Annotated[
        int,
        typer.Option("--port", min=0, max=65535, metavar="N", help="Where the page is served. [default: a free one]"),
    ] = 0,
    browser: Annotated[
        bool,
        typer.Option(
            "--browser/--no-browser",
            help="Open the page in the browser, whose command line shows the address to other users of this machine.",
        ),
    ] = True,
    running: Running = Running(),  # noqa: B008
) -> None:
    """Explore a case in the browser, with prompts that you type.

    Needs a case. Shows any two directions, and every completion. The page is served to this machine alone (127.0.0.1),
    at an address with a token that is printed; other hosts, other sites and requests without it are refused. A prompt
    that you type is read by the roles that you tick: along a direction of the case, by the logit lens, and with their
    completions; one model is in memory at a time. Without the checkpoints all but that is there. Writes nothing; Ctrl-C
    ends it.

    \b
    Example:
      vlsurgery explore case/
      vlsurgery explore --port 8123 --no-browser
    """
    from vlsurgery.cli.explore.session import open_page

    case = session.case if folder is None else folder
    if session.plan:
        session.console.show(f"Would serve {case} at 127.0.0.1, to this machine alone, and write nothing.")
        return
    with open_page(case, running, port) as server:
        address = server.guard.address
        session.console.emit(json.dumps({"address": address}))
        session.console.show(address)
        session.console.say("explore: the page is served until Ctrl-C; whoever has its address can read the case")
        if browser:
            webbrowser.open(address)
        sys.stdout.flush()
        server.serve_until_interrupted()
