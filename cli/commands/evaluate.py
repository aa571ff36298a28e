"""`vlsurgery evaluate`: measure how models behave, those of a case or any others."""

from pathlib import Path
from typing import Annotated

import typer

from vlsurgery.cli.options import (
    CHECKPOINT_HELP,
    BudgetOption,
    ConnectionsOption,
    EndpointOption,
    ImagesOption,
    JudgeLabelsOption,
    JudgesOption,
    KeyVariableOption,
    LimitsOption,
    PickleOption,
    PromptsOption,
    RayOption,
    Running,
    ServedModelOption,
    Session,
    TextStackOption,
    TokensOption,
    TrackOption,
    runs_models,
    standard,
)


@standard
@runs_models
def evaluate(
    session: Session,
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL ...]", help=f"Ask these instead of a case's models; one is enough. {CHECKPOINT_HELP}"
        ),
    ] = None,
    endpoint: EndpointOption = None,
    model: ServedModelOption = None,
    api_key_env: KeyVariableOption = None,
    connections: ConnectionsOption = None,
    prompts: PromptsOption = None,
    images: ImagesOption = None,
    budget: BudgetOption = None,
    judge: JudgesOption = None,
    judge_labels: JudgeLabelsOption = None,
    tokens: TokensOption = None,
    limits: LimitsOption = None,
    inspect_log: Annotated[
        Path | None,
        typer.Option("--inspect-log", metavar="FILE.eval", help="Also write the completions as logs of inspect_ai."),
    ] = None,
    imports: Annotated[
        list[str] | None,
        typer.Option(
            "--import",
            metavar="FILE[:SET[@ROLE]]",
            help="Also count the completions of a log of inspect_ai or lm-evaluation-harness; may be given several "
            "times. SET is the prompt set that they stand for, ROLE the model's role here.",
        ),
    ] = None,
    completions: Annotated[
        Path | None,
        typer.Option(
            "--completions",
            metavar="FILE.jsonl",
            help="With MODEL or --endpoint: keep what they say here; an interrupted run goes on from it. A case has "
            "its own.",
        ),
    ] = None,
    ray: RayOption = None,
    track: TrackOption = None,
    running: Running = Running(),  # noqa: B008
    allow_pickle: PickleOption = False,
    text_stack: TextStackOption = None,
) -> None:
    """Count what models refuse and comply with.

    Verdicts are refused, complied or neither, with intervals. Asks held-out requests, which were used neither to find
    nor to fit anything. Without MODEL it asks the models of the case (vlsurgery diff opens one): base, graft (the base
    that sees), adapted, safety and, once there is a merge, the merged checkpoint and the best uniform one. Writes
    case/behaviour.json and case/completions.jsonl (every completion with its verdict), and logs every look at the
    requests in case/history.jsonl. With MODEL it needs no case, writes none, and asks all prompts of your files; so
    with --endpoint, which asks models that a server runs (vllm serve MODEL). Ends with exit code 3 where a limit of
    --limits is not met or can't be decided.

    \b
    Example:
      vlsurgery evaluate
      vlsurgery evaluate llava/ --limits limits.toml
      vlsurgery evaluate --endpoint http://localhost:8000/v1 --model llava
      vlsurgery evaluate --judge standard --judge hf:ProtectAI/distilroberta-base-rejection-v1
    """
    from vlsurgery.cli.commands.outcome import check_limits, show_behaviour, write_inspect_logs
    from vlsurgery.cli.outputs import check_output, is_completion_file, is_inspect_log
    from vlsurgery.cli.track.metrics import behaviour_metrics
    from vlsurgery.cli.track.tracker import tracking
    from vlsurgery.cli.workflow.engine import StepOptions
    from vlsurgery.cli.workflow.free_evaluation import evaluate_models
    from vlsurgery.cli.workflow.opening import perform
    from vlsurgery.cli.workflow.served import served_by
    from vlsurgery.probes.evaluation.limits import read_limits
    from vlsurgery.probes.results import BehaviourResult
    from vlsurgery.surgery.errors import SurgeryError

    if inspect_log is not None:
        check_output(inspect_log, is_inspect_log, "a log of vlsurgery evaluate", "--inspect-log")
    if completions is not None:
        check_output(completions, is_completion_file, "completions of vlsurgery evaluate", "--completions")
    tolerance = None if limits is None else read_limits(limits)
    options = StepOptions(
        prompts=prompts or None,
        images=images,
        budget=budget,
        judges=judge or None,
        judge_labels=judge_labels,
        tokens=tokens,
        imports=imports or None,
        ray=ray,
        running=running,
    )
    served = served_by(endpoint, model, api_key_env, connections, models or (), running)
    tracked = session.until_end.enter_context(tracking(track, "evaluate", session.plan))
    if models or served or (imports and not (session.case / "case.json").is_file()):
        found = evaluate_models(session, models or [], options, completions, allow_pickle, text_stack or (), served)
        if found is None:
            return
        result, case = found, None
    else:
        if text_stack:
            raise SurgeryError("--text-stack goes with MODEL; a case keeps what vlsurgery diff was told.")
        if completions is not None:
            raise SurgeryError(
                "--completions goes with MODEL or --endpoint; a case keeps its own in completions.jsonl."
            )
        flow = perform(session, options, "evaluate", allow_pickle=allow_pickle)
        if flow is None:
            return
        result, case = flow.job.result(BehaviourResult), flow.job.case
    session.console.emit(result.json_text())
    show_behaviour(session, result, case)
    if inspect_log is not None:
        write_inspect_logs(session, inspect_log, result, case)
    tracked.log(behaviour_metrics(result))
    check_limits(session, tolerance, result, case)
    if case is not None:
        session.console.say("next: vlsurgery completions --flipped base:adapted, and vlsurgery report")
