"""`vlsurgery history`: a case's evaluations over time."""

from vlsurgery.cli.options import Session, standard


@standard
def history(session: Session) -> None:
    """Show every evaluation of the case, and what changed.

    Needs a case; its checkpoints need not be there. A change is one beyond its interval. Evaluations are compared
    where prompts and judge are the same.

    \b
    Example:
      vlsurgery history --json
    """
    from vlsurgery.cli.view.history import history_tables
    from vlsurgery.cli.workflow.case import HISTORY, Case
    from vlsurgery.cli.workflow.history import history_rows

    case = Case.open(session.case)
    result = history_rows(case.path(HISTORY))
    session.console.emit(result.json_text())
    session.console.show(*history_tables(result))
