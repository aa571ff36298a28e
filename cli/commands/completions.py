"""`vlsurgery completions`: read what the models said."""

from pathlib import Path
from typing import Annotated

import typer

from vlsurgery.cli.options import Session, standard


@standard
def completions(
    session: Session,
    role: Annotated[str | None, typer.Option("--role", metavar="ROLE", help="base, adapted, merged, ...")] = None,
    set_: Annotated[str | None, typer.Option("--set", metavar="SET", help="harmful, or harmful.benign.")] = None,
    verdict: Annotated[
        str | None,
        typer.Option("--verdict", metavar="VERDICT", help="refused, complied, neither, or a kind, such as degenerate."),
    ] = None,
    flipped: Annotated[
        str | None,
        typer.Option("--flipped", metavar="A:B", help="Prompts on which these two roles' verdicts differ, both shown."),
    ] = None,
    grep: Annotated[
        str | None, typer.Option("--grep", metavar="TEXT", help="Whose prompt or completion has this text.")
    ] = None,
    differing: Annotated[
        bool, typer.Option("--differing", help="On which the judges differ, where there were several.")
    ] = False,
    csv: Annotated[
        Path | None,
        typer.Option(
            "--csv",
            metavar="FILE",
            help="Write them as a table, with an empty column human_label that vlsurgery judge-agreement reads.",
        ),
    ] = None,
) -> None:
    """Read what the models said, with the verdicts.

    Needs an evaluated case; its checkpoints need not be there. In a terminal, pages through them; control characters
    are shown escaped.

    \b
    Example:
      vlsurgery completions --flipped base:adapted
      vlsurgery completions --role merged --set harmful --verdict complied
      vlsurgery completions --csv said.csv
    """
    from vlsurgery.cli.view.completions import page_through, write_completions_csv
    from vlsurgery.cli.workflow.case import Case
    from vlsurgery.cli.workflow.completion_filter import CompletionFilter
    from vlsurgery.probes.evaluation.completions import FILE, load_completions

    case = Case.open(session.case)
    result = load_completions(case.path(FILE))
    wanted = CompletionFilter(role, set_, verdict, flipped, grep, differing)
    found = result.model_copy(update={"records": wanted.select(result.records)})
    if session.plan:
        session.console.show(f"Would show {len(found.records)} of {len(result.records)} completions.")
        return
    if csv is not None:
        write_completions_csv(csv, found)
        session.console.say(f"{len(found.records)} completions: {csv}")
    session.console.emit(found.json_text())
    if csv is None:
        page_through(session.console, found.records)
