"""`vlsurgery compare`: two cases side by side."""

from pathlib import Path
from typing import Annotated

import typer

from vlsurgery.cli.options import Session, standard


@standard
def compare(
    session: Session,
    first: Annotated[Path, typer.Argument(metavar="CASE", help="The folder of an evaluated case.")],
    second: Annotated[Path, typer.Argument(metavar="CASE", help="The folder of another one.")],
) -> None:
    """Put the behaviour of two cases side by side.

    Of every role, rates and their difference.

    Differences are from the same prompts (paired) where both cases asked them, else between independent samples; the
    table says which. Their checkpoints need not be there.

    \b
    Example:
      vlsurgery compare case-1 case
    """
    from vlsurgery.cli.view.comparison import case_comparison_tables
    from vlsurgery.cli.workflow.case import Case
    from vlsurgery.cli.workflow.comparison import compare_cases
    from vlsurgery.probes.evaluation.completions import FILE, load_completions

    ours, theirs = (load_completions(Case.open(folder).path(FILE)).records for folder in (first, second))
    result = compare_cases(ours, theirs)
    session.console.emit(result.json_text())
    session.console.show(*case_comparison_tables(result, str(first), str(second)))
