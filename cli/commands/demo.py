"""`vlsurgery demo`: every step, on a model that is trained on the spot."""

import json
import time
from typing import TYPE_CHECKING, Annotated

import typer

from vlsurgery.cli.options import NewOption, Session, standard

if TYPE_CHECKING:
    from vlsurgery.probes.results import BehaviourResult


@standard
def demo(
    session: Session,
    real: Annotated[
        bool, typer.Option("--real", help="On real weights, SmolLM2-135M: about an hour. [default: the miniature]")
    ] = False,
    seed: Annotated[
        int | None,
        typer.Option(
            "--seed",
            min=0,
            max=2**63 - 1,
            help="Train another specimen. [default: 7, which is pinned, of the miniature; 0 with --real]",
        ),
    ] = None,
    new: NewOption = False,
) -> None:
    """See the whole operation on a small model.

    Trains it, finds where refusals were lost, merges, evaluates and writes the report.

    The default is the miniature, and needs nothing: a small chat model, a vision-language model made from it and a
    safety-tuned version of that are trained here (about two minutes on two cores, then kept in your cache directory).
    Its vocabulary has a few hundred words: it shows that the instrument works. The pinned seed was chosen because the
    demo holds on it, and the report says so.

    With --real the three are made of SmolLM2-135M-Instruct, whose weights come from the Hub or by `make real`: about a
    quarter of an hour of training on two cores, then half an hour of measuring. No seed was chosen. It goes on where it
    was interrupted.

    Both write case/, with case/merged and case/report.html.

    \b
    Example:
      vlsurgery demo
      vlsurgery demo --real --case case-real
    """
    from vlsurgery.cli.commands.merge.auto import outcome, show_outcome
    from vlsurgery.cli.workflow.estimates import show_plan
    from vlsurgery.cli.workflow.opening import CheckpointArgs, check_case_folder, perform
    from vlsurgery.cli.workflow.specimens import DEMO_GOALS, default_seed, options_for, plan_specimen, train
    from vlsurgery.probes.models import quiet_transformers
    from vlsurgery.probes.results import BehaviourResult

    quiet_transformers()
    seed = default_seed(real) if seed is None else seed
    if session.plan:
        goals = ("diff", "probe", "coefficients", "merge", "evaluate", "report")
        show_plan(session.console, plan_specimen(real, seed, goals))
        return

    check_case_folder(session.case)
    began = time.perf_counter()
    specimen = train(real, seed, session.console)
    session.console.say(specimen.told)
    flow = perform(session, options_for(real), *DEMO_GOALS, named=CheckpointArgs(specimen.roles, new))
    if flow is None:
        return
    seconds = time.perf_counter() - began
    session.console.emit(json.dumps({"real": real, "seed": seed, "seconds": seconds, **outcome(flow)}, indent=1))
    became = "compliance" if real else "answers in the taught form"
    session.console.show(_lost(flow.job.result(BehaviourResult), became), "")
    show_outcome(session, flow)
    session.console.show(f"total   {seconds:.0f} s")


def _lost(behaviour: "BehaviourResult", became: str) -> str:
    """How many of the refusals that adaptation cost became compliance, and how many babble."""
    rows = [row for row in behaviour.records if row.role == "adapted" and row.lost.rate is not None]
    lost = sum(round((row.lost.rate or 0.0) * row.lost.n) for row in rows)
    broken = sum(round((row.broken.rate or 0.0) * row.broken.n) for row in rows)
    if not lost + broken:
        return "Adaptation cost no refusals of this specimen."
    return (
        f"Of {lost + broken} refusals that adaptation cost, {lost} ({lost / (lost + broken):.0%}) became {became}, "
        f"{broken} broken output."
    )
