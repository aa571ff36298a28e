"""`vlsurgery rejudge`: judge again what the models said, without asking them again."""

from typing import Annotated

import typer

from vlsurgery.cli.options import JudgeLabelsOption, JudgesOption, LimitsOption, Session, standard


@standard
def rejudge(
    session: Session,
    judge: JudgesOption = None,
    judge_labels: JudgeLabelsOption = None,
    limits: LimitsOption = None,
    differing: Annotated[bool, typer.Option("--differing", help="Then show what the judges differ on.")] = False,
) -> None:
    """Judge again what the models said.

    They are not asked again. Needs an evaluated case; its checkpoints need not be there. Replaces the verdicts in
    case/completions.jsonl and the rates in case/behaviour.json.

    \b
    Example:
      vlsurgery rejudge --judge standard --judge rules
    """
    from vlsurgery.cli.commands.outcome import check_limits, show_behaviour
    from vlsurgery.cli.view.completions import page_through
    from vlsurgery.cli.workflow.case import Case
    from vlsurgery.cli.workflow.completion_filter import CompletionFilter
    from vlsurgery.cli.workflow.engine import StepOptions
    from vlsurgery.cli.workflow.rejudging import judge_again
    from vlsurgery.probes.evaluation.limits import read_limits

    tolerance = None if limits is None else read_limits(limits)
    if not session.plan:
        session.lock.claim(session.case)
    case = Case.open(session.case)
    options = StepOptions(judges=judge or None, judge_labels=judge_labels)
    result = judge_again(case, options, session.console.progress, write=not session.plan)
    if session.plan:
        assert result.completions is not None  # `tabulate` always gives them.
        session.console.show(f"Would replace {len(result.completions.records)} verdicts. Nothing was written.")
        return
    session.console.emit(result.json_text())
    show_behaviour(session, result, case)
    if differing and result.completions is not None:
        page_through(session.console, CompletionFilter(differing=True).select(result.completions.records))
    check_limits(session, tolerance, result, case)
    session.console.say("next: vlsurgery report")
