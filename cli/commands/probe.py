"""`vlsurgery probe`: measure activations, and which weights lost refusals."""

from typing import Annotated

import typer

from vlsurgery.cli.options import (
    BudgetOption,
    NewOption,
    PickleOption,
    PromptsOption,
    RayOption,
    Running,
    Session,
    TextStackOption,
    TrackOption,
    runs_models,
    standard,
)


@standard
@runs_models
def probe(
    session: Session,
    checkpoints: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="BASE ADAPTED [SAFETY ...]", help="Open a case on these first; default: the case's own."
        ),
    ] = None,
    prompts: PromptsOption = None,
    budget: BudgetOption = None,
    new: NewOption = False,
    ray: RayOption = None,
    track: TrackOption = None,
    running: Running = Running(),  # noqa: B008
    allow_pickle: PickleOption = False,
    text_stack: TextStackOption = None,
) -> None:
    """Find out where refusals were lost.

    Which layers, which weights: asks every model harmful and harmless requests, measures how well each layer tells
    them apart, whether ablating and adding the base's direction changes refusals, and which blocks of weights bring
    refusals back when they are moved toward the base. Needs a case (vlsurgery diff opens one) or checkpoints. Writes
    case/probe.json, case/targets.json and case/directions.safetensors.

    \b
    Example:
      vlsurgery probe
      vlsurgery probe --prompts my-requests.txt:harmful
      vlsurgery probe --budget 10m
      vlsurgery probe --ray local:2
    """
    from vlsurgery.cli.track.metrics import probe_metrics
    from vlsurgery.cli.track.tracker import tracking
    from vlsurgery.cli.view.tables import completeness_line, probe_table, prose
    from vlsurgery.cli.workflow.engine import StepOptions
    from vlsurgery.cli.workflow.opening import named_in_order, perform
    from vlsurgery.probes.results import ProbeResult

    named = named_in_order(checkpoints, new, allow_pickle, text_stack or ())
    options = StepOptions(prompts=prompts or None, budget=budget, ray=ray, running=running)
    tracked = session.until_end.enter_context(tracking(track, "probe", session.plan))
    flow = perform(session, options, "probe", named=named, allow_pickle=allow_pickle)
    if flow is None:
        return
    result = flow.job.result(ProbeResult)
    session.console.emit(result.json_text())
    lines = (completeness_line(result), result.direction_words, result.loss_words, result.template_words)
    session.console.show(probe_table(result), *map(prose, filter(None, lines)), prose(result.verdict))
    tracked.log(probe_metrics(result))
    session.console.say("next: vlsurgery merge --auto")
