"""`vlsurgery report`: every result of the case, in one HTML file."""

import json
from pathlib import Path
from typing import Annotated

import typer

from vlsurgery.cli.options import Session, standard


@standard
def report(
    session: Session,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", metavar="FILE", help="Where it goes. [default: report.html in the case]"),
    ] = None,
    cdn: Annotated[
        bool, typer.Option("--cdn", help="Load plotly.js from the network instead of embedding it: 5 MB smaller.")
    ] = False,
) -> None:
    """Put all findings of the case into one HTML file.

    The file needs nothing else to be read: the verdict in words on top, tables, and interactive figures.

    Needs a case (vlsurgery diff opens one). Shows what the case has found so far; a section whose findings are missing
    says which command makes them. Writes case/report.html.

    \b
    Example:
      vlsurgery report -o findings.html
    """
    from vlsurgery.cli.workflow.engine import StepOptions
    from vlsurgery.cli.workflow.opening import perform

    flow = perform(session, StepOptions(page=out, cdn=cdn), "report")
    if flow is None:
        return
    page = str(flow.files("report")[0])
    session.console.emit(json.dumps({"report": page}))
    session.console.show(page)
