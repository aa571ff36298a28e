"""`vlsurgery report`: every result of the case, in one HTML file."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vlsurgery.cli.options import Session, standard

if TYPE_CHECKING:
    from vlsurgery.cli.view.pictures import Format


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
    png: Annotated[
        Path | None,
        typer.Option(
            "--png", metavar="DIR", help="Also save every figure there as a picture. Needs the extra png and Chromium."
        ),
    ] = None,
    svg: Annotated[
        Path | None, typer.Option("--svg", metavar="DIR", help="The same as drawings that can be scaled.")
    ] = None,
) -> None:
    """Put all findings of the case into one HTML file.

    The file needs nothing else to be read: the verdict in words on top, tables, and interactive figures.

    Needs a case (vlsurgery diff opens one). Shows what the case has found so far; a section whose findings are missing
    says which command makes them. Writes case/report.html.

    With --png or --svg, figures go into that folder too, one file each; they are drawn by the Chrome or Chromium that
    is installed, without a network.

    \b
    Example:
      vlsurgery report -o findings.html
      vlsurgery report --png pictures
    """
    from vlsurgery.cli.view.pictures import check_pictures, write_pictures
    from vlsurgery.cli.workflow.engine import StepOptions
    from vlsurgery.cli.workflow.opening import perform
    from vlsurgery.cli.workflow.steps import report_results
    from vlsurgery.figures.sections import sections

    asked: dict[Format, Path | None] = {"png": png, "svg": svg}
    wanted = [(folder, kind) for kind, folder in asked.items() if folder]
    for folder, kind in wanted:
        check_pictures(folder, kind)
    flow = perform(session, StepOptions(page=out, cdn=cdn), "report")
    if flow is None:
        return
    page = str(flow.files("report")[0])
    shown = sections(*report_results(flow.job, flow.job.case.settings_of("report") or {})) if wanted else ()
    pictures = [str(path) for folder, kind in wanted for path in write_pictures(folder, kind, shown)]
    session.console.emit(json.dumps({"report": page} | ({"pictures": pictures} if wanted else {})))
    session.console.show("\n".join([page, *pictures]))
