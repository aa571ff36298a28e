"""What the commands that measure behaviour share: its tables, the user's limits, logs for inspect_ai."""

from pathlib import Path

from vlsurgery.cli.options import Session
from vlsurgery.cli.view.behaviour import behaviour_tables
from vlsurgery.cli.view.limits import limits_tables
from vlsurgery.cli.view.tables import prose
from vlsurgery.cli.workflow.case import Case
from vlsurgery.figures.doubts import doubts
from vlsurgery.probes.evaluation.completions import FILE as COMPLETIONS, load_completions
from vlsurgery.probes.evaluation.limits import Limits, decide
from vlsurgery.probes.results import BehaviourResult, CompletionsResult, ProbeResult, TradeoffResult
from vlsurgery.surgery.errors import LimitNotMet


def show_behaviour(session: Session, result: BehaviourResult, case: Case | None = None) -> None:
    """Print what puts the result in doubt, what every model does, the judges' agreement, and the notes."""
    findings = (None, None) if case is None else (case.result(ProbeResult), case.result(TradeoffResult))
    found = doubts(findings[0], result, findings[1])
    session.console.show(*(prose(f"Warning: {doubt.replace('`', '')}") for doubt in found))
    session.console.show(*behaviour_tables(result), *map(prose, result.notes))


def check_limits(session: Session, limits: Limits | None, result: BehaviourResult, case: Case | None) -> None:
    """Print a line a limit and whether the model may ship.

    The model is the merged one, else the adapted one, else the first. Raises LimitNotMet where it may not.
    """
    if limits is None:
        return
    roles = list(dict.fromkeys(row.role for row in result.records))
    role = next((role for role in ("merged", "adapted") if role in roles), roles[0])
    found = decide(limits, result, role)
    if case is not None:
        case.save(found, {"limits": limits.model_dump(mode="json")})
    session.console.show(*limits_tables(found))
    if not found.met:
        raise LimitNotMet(f"{role}: {found.verdict}")


def completions_of(result: BehaviourResult, case: Case | None) -> CompletionsResult:
    """The completions that the rates were made of, from the case or as they were just made."""
    if case is not None:
        return load_completions(case.path(COMPLETIONS))
    assert result.completions is not None  # `tabulate` always gives them.
    return result.completions


def write_inspect_logs(session: Session, path: Path, result: BehaviourResult, case: Case | None) -> None:
    """Write the completions as logs of inspect_ai, one a model, and say where they are."""
    from vlsurgery.cli.outputs import check_output, is_inspect_log
    from vlsurgery.probes.harnesses.inspect_writer import log_paths, write_inspect_log

    records = completions_of(result, case).records
    for place in log_paths(path, {record.role for record in records}).values():
        check_output(place, is_inspect_log, "a log of vlsurgery evaluate", "--inspect-log")
    models = {role: ref.path for role, ref in result.checkpoints.items()}
    for written in write_inspect_log(path, records, models, result.created):
        session.console.say(f"inspect log: {written}")
