"""`vlsurgery evaluate`: measure how every model of the case behaves."""

from vlsurgery.cli.options import PromptsOption, Session, standard


@standard
def evaluate(session: Session, prompts: PromptsOption = None) -> None:
    """Measure how every model of the case behaves, with intervals.

    Needs a case (vlsurgery diff opens one). Counts refusals and right answers on held-out requests, of base, graft
    (the base that sees), adapted, safety and, once there is a merge, the merged checkpoint and the best uniform one.
    The requests were used neither to find nor to fit anything. Writes case/behaviour.json, and logs every look at
    the requests in case/history.jsonl.

    \b
    Example:
      vlsurgery evaluate
    """
    from vlsurgery.cli.view.tables import behaviour_tables, prose
    from vlsurgery.cli.workflow.engine import StepOptions
    from vlsurgery.cli.workflow.opening import perform
    from vlsurgery.probes.results import BehaviourResult

    flow = perform(session, StepOptions(prompts=prompts or None), "evaluate")
    if flow is None:
        return
    result = flow.job.result(BehaviourResult)
    session.console.emit(result.json_text())
    session.console.show(*behaviour_tables(result), *map(prose, result.notes))
    session.console.say("next: vlsurgery report")
