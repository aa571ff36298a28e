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
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, help="Train another specimen. [default: the pinned seed]")
    ] = None,
    new: NewOption = False,
) -> None:
    """See the whole operation on a small model.

    Trains it, finds where refusals were lost, merges, evaluates and writes the report.

    Needs nothing: a small chat model, a vision-language model made from it and a safety-tuned version of that are
    trained here (about two minutes on two cores, then kept in your cache directory). Writes case/, with
    case/merged and case/report.html. The pinned seed was chosen because it shows the loss clearly, and the report
    says so.

    \b
    Example:
      vlsurgery demo
    """
    from vlsurgery.cli.commands.merge.auto import outcome, show_outcome
    from vlsurgery.cli.workflow.engine import StepOptions
    from vlsurgery.cli.workflow.estimates import plan_demo, show_plan
    from vlsurgery.cli.workflow.opening import CheckpointArgs, check_case_folder, perform
    from vlsurgery.cli.workflow.steps import AUTO_GOALS, STEPS
    from vlsurgery.figures.caveats import specimen_words
    from vlsurgery.probes.models import quiet_transformers
    from vlsurgery.probes.results import BehaviourResult
    from vlsurgery.probes.specimens.miniature import DEMO_SEED, build

    quiet_transformers()
    seed = DEMO_SEED if seed is None else seed
    if session.plan:
        show_plan(session.console, plan_demo(seed, [step.name for step in STEPS]))
        return

    check_case_folder(session.case)
    began = time.perf_counter()
    say = session.console.say
    pinned = "pinned, and chosen because it shows the loss clearly" if seed == DEMO_SEED else "not the pinned one"
    say(f"training the specimen, or taking it from the cache; seed {seed} is {pinned}")
    specimen = build(seed, progress=session.console.progress)
    say(specimen_words({"chosen": seed == DEMO_SEED, "story": specimen.story}))
    roles = {role: str(getattr(specimen, role)) for role in ("base", "adapted", "safety")}
    flow = perform(session, StepOptions(), "diff", "probe", *AUTO_GOALS, named=CheckpointArgs(roles, new))
    if flow is None:
        return
    seconds = time.perf_counter() - began
    session.console.emit(json.dumps({"seed": seed, "seconds": seconds, **outcome(flow)}, indent=1))
    session.console.show(_lost_in_form(flow.job.result(BehaviourResult)), "")
    show_outcome(session, flow)
    session.console.show(f"total   {seconds:.0f} s")


def _lost_in_form(behaviour: "BehaviourResult") -> str:
    """How many of the refusals that adaptation cost became answers in the form that was taught, and how many babble."""
    rows = [row for row in behaviour.records if row.role == "adapted" and row.lost.rate is not None]
    lost = sum(round((row.lost.rate or 0.0) * row.lost.n) for row in rows)
    broken = sum(round((row.broken.rate or 0.0) * row.broken.n) for row in rows)
    if not lost + broken:
        return "Adaptation cost no refusals of this specimen."
    return (
        f"Of {lost + broken} refusals that adaptation cost, {lost} ({lost / (lost + broken):.0%}) became answers in "
        f"the taught form, {broken} broken output."
    )
