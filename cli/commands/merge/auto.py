"""What `merge --auto` and `demo` share: bring a case to its merge and report, and print the results."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from vlsurgery.cli.commands.merge.by_recipe import check_sums
from vlsurgery.cli.commands.outcome import check_limits, show_behaviour
from vlsurgery.cli.options import Session
from vlsurgery.cli.track.metrics import behaviour_metrics, probe_metrics, tradeoff_metrics
from vlsurgery.cli.track.tracker import tracking
from vlsurgery.cli.view.effects import effects_table
from vlsurgery.cli.view.limits import predicted_limits_table
from vlsurgery.cli.view.tables import coefficients_table, completeness_line, prose, tradeoff_table
from vlsurgery.cli.workflow.case import Case
from vlsurgery.cli.workflow.engine import Flow, StepOptions
from vlsurgery.cli.workflow.opening import perform
from vlsurgery.cli.workflow.steps import AUTO_GOALS
from vlsurgery.probes.evaluation.limits import read_limits
from vlsurgery.probes.results import BehaviourResult, ProbeResult, TradeoffResult


def merge_auto(
    session: Session,
    options: StepOptions,
    verify: bool = False,
    limits: Path | None = None,
    allow_pickle: bool = False,
    track: str | None = None,
) -> None:
    """Bring the case to its merge, evaluation and report; with `verify`, read the checkpoints and the merge again.

    limits: the user's. Policies that take gradients look for the least intervention that keeps them, and they are
    decided at the end. allow_pickle: take pickled weights. track: as `--track` says it.

    Raises LimitNotMet where a limit is not met.
    """
    tolerance = None if limits is None else read_limits(limits)
    if options.policy in ("best", "linearised") and options.price is None:
        options = replace(options, limits=tolerance)
    if verify and not session.plan:
        Case.open(session.case, allow_pickle).verify(session.console.progress)
    tracked = session.until_end.enter_context(tracking(track, "merge --auto", session.plan))
    flow = perform(session, options, *AUTO_GOALS, allow_pickle=allow_pickle)
    if flow is None:
        return
    if verify:
        check_sums(destinations(flow)["merged"], session.console.progress)
    session.console.emit(json.dumps(outcome(flow), indent=1))
    show_outcome(session, flow)
    tracked.log(metrics_of(flow))
    check_limits(session, tolerance, flow.job.result(BehaviourResult), flow.job.case)


def outcome(flow: Flow) -> dict[str, Any]:
    """The results as JSON, and where everything is."""
    results = {"tradeoff": flow.job.result(TradeoffResult), "behaviour": flow.job.result(BehaviourResult)}
    checks = flow.job.result(ProbeResult).completeness
    return {
        **{name: result.model_dump(mode="json", by_alias=True) for name, result in results.items()},
        "completeness": checks.model_dump(mode="json") if checks else None,
        **{name: str(path) for name, path in destinations(flow).items()},
    }


def metrics_of(flow: Flow) -> dict[str, float]:
    """The numbers of probe, choice and evaluation, for a tracker."""
    result = flow.job.result
    probed, chosen = probe_metrics(result(ProbeResult)), tradeoff_metrics(result(TradeoffResult))
    return {**probed, **chosen, **behaviour_metrics(result(BehaviourResult))}


def destinations(flow: Flow) -> dict[str, Path]:
    """Where the recipe, the merged checkpoint and the report are."""
    recipe = flow.job.case.path("recipe.yaml")
    return {"recipe": recipe, "merged": flow.files("merge")[0], "report": flow.files("report")[0]}


def show_outcome(session: Session, flow: Flow) -> None:
    """Print coefficients, the behaviour of every model, the checks of the attribution, and where everything is."""
    tradeoff, behaviour = flow.job.result(TradeoffResult), flow.job.result(BehaviourResult)
    session.console.show(coefficients_table(tradeoff), tradeoff_table(tradeoff), prose(tradeoff.verdict))
    session.console.show(*effects_table(tradeoff), *predicted_limits_table(tradeoff))
    show_behaviour(session, behaviour, flow.job.case)
    session.console.show(prose(completeness_line(flow.job.result(ProbeResult))), "")
    session.console.show(*(f"{name:<7} {path}" for name, path in destinations(flow).items()))
