"""`vlsurgery diff`: open a case and measure how far the weights moved."""

from pathlib import Path
from typing import Annotated

import typer

from vlsurgery.cli.options import (
    WEIGHTS_HELP,
    NewOption,
    PickleOption,
    RayOption,
    Session,
    TextStackOption,
    standard,
)
from vlsurgery.surgery.diff import Level


@standard
def diff(
    session: Session,
    base: Annotated[
        str, typer.Argument(metavar="BASE", help=f"The safe chat model, before adaptation. {WEIGHTS_HELP}")
    ],
    adapted: Annotated[str, typer.Argument(metavar="ADAPTED", help="The vision-language model made from it.")],
    safety: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SAFETY",
            help="Safety-tuned versions of ADAPTED, if you have any: of several, such as doses, the first is compared "
            "with adaptation, and merges go toward each.",
        ),
    ] = None,
    level: Annotated[
        Level,
        typer.Option(
            "--level",
            help="norms: how far every tensor and every head moved, and how the two deltas relate. full: also the "
            "singular values of every delta and where its leading directions lie; takes several times as long.",
        ),
    ] = "full",
    csv: Annotated[
        Path | None,
        typer.Option(
            "--csv",
            metavar="FILE",
            help="Also write every tensor's metrics as a table: a line a tensor, a column a number, and lists (heads, "
            "experts, singular values) as JSON in one cell.",
        ),
    ] = None,
    new: NewOption = False,
    ray: RayOption = None,
    allow_pickle: PickleOption = False,
    text_stack: TextStackOption = None,
) -> None:
    """Compare the weights of checkpoints; opens a case.

    Needs checkpoints with safetensors and config.json; runs no model. Writes case/diff.json and remembers the
    checkpoints in case/case.json, so that the other commands need no more arguments. Says how far each layer moved;
    that is not yet where safety went, which `vlsurgery probe` measures.

    \b
    Example:
      vlsurgery diff llama/ llava/ llava-safe/
      vlsurgery merge --auto
    """
    from vlsurgery.cli.view.mismatches import mismatch_tables
    from vlsurgery.cli.view.tables import diff_table, prose, shape_table, unmatched_line
    from vlsurgery.cli.workflow.engine import StepOptions
    from vlsurgery.cli.workflow.opening import CheckpointArgs, perform
    from vlsurgery.surgery.alignment.roles import named_roles
    from vlsurgery.surgery.results import DiffResult

    if csv is not None:
        from vlsurgery.cli.view.csv import check_csv

        check_csv(csv)
    named = CheckpointArgs(named_roles(base, adapted, safety or ()), new, allow_pickle, text_stack or ())
    flow = perform(session, StepOptions(level=level, ray=ray), "diff", named=named)
    if flow is None:
        return
    result = flow.job.result(DiffResult)
    if csv is not None:
        from vlsurgery.cli.view.csv import write_csv

        write_csv(csv, result)
    session.console.emit(result.json_text())
    session.console.show(diff_table(result), *shape_table(result))
    session.console.show(*mismatch_tables(result.mismatches, list(result.checkpoints)))
    session.console.show(prose(unmatched_line(result.unmatched)), prose(result.verdict))
    session.console.show(*(prose(f"Warning: {warning}") for warning in result.warnings))
    session.console.say("next: vlsurgery merge --auto (or vlsurgery probe, to look first)")
