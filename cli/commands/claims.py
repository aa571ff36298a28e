"""`vlsurgery claims`: what is known of vision-language adaptation, measured."""

from pathlib import Path
from typing import Annotated

import typer

from vlsurgery.cli.options import NewOption, Session, standard


@standard
def claims(
    session: Session,
    cases: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="CASE ...", help="Folders of cases of your own; default: those of the specimen's seeds."
        ),
    ] = None,
    real: Annotated[
        bool | None,
        typer.Option(
            "--real/--miniature", help="On the real trio, or on the miniature; as vlsurgery demo. [default: miniature]"
        ),
    ] = None,
    seeds: Annotated[
        str | None, typer.Option("--seeds", metavar="N,N,...", help="The specimen's seeds. [default: 0,1,2]")
    ] = None,
    out: Annotated[
        Path, typer.Option("-o", "--out", metavar="DIR", help="Where results and the cases of the seeds go.")
    ] = Path("claims"),
    new: NewOption = False,
) -> None:
    """Say of six claims about adaptation whether they hold here.

    C1 adaptation on safe data lowers refusal of harmful requests. C2 safety tuning restores it at the cost of refusing
    harmless ones. C3 the loss sits in some layers, not all. C4 adaptation and safety tuning move weights in diverging
    directions. C5 a merge keeps more of both. C6 coefficients per block beat the best uniform merge.

    Each is measured on `report` requests, paired by request over all cases, with its controls, and holds, does not
    hold, or can't be told; with its figure and 95% interval. Steps that a case lacks are run first: for the miniature
    about five minutes a seed, for the real trio an hour or more; what is done is not done again. Writes
    DIR/claims.json and DIR/claims.html.

    \b
    Example:
      vlsurgery claims --miniature --seeds 0,1,2
      vlsurgery claims case
    """
    from vlsurgery.cli.view.claims import claim_tables
    from vlsurgery.cli.workflow.claims import JSON, PAGE, check_claims_folder, measured_cases, planned, sources_of
    from vlsurgery.cli.workflow.estimates import show_plan
    from vlsurgery.figures.claims import write_page
    from vlsurgery.probes.claims import measure

    sources = sources_of(cases or (), real, seeds, out)
    if session.plan:
        show_plan(session.console, planned(sources))
        return
    check_claims_folder(out)
    found, notes = measured_cases(session, sources, new)
    result = measure(found, notes)
    out.mkdir(parents=True, exist_ok=True)
    result.save(out / JSON)
    write_page(out / PAGE, result)
    session.console.emit(result.json_text())
    session.console.show(*claim_tables(result), "", f"json   {out / JSON}", f"figure {out / PAGE}")
