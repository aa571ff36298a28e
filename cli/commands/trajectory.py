"""`vlsurgery trajectory`: when a training run lost refusals, and which blocks had moved by then."""

from pathlib import Path
from typing import Annotated

import typer

from vlsurgery.cli.options import (
    CHECKPOINT_HELP,
    ImagesOption,
    PickleOption,
    PromptsOption,
    Running,
    Session,
    TextStackOption,
    TokensOption,
    runs_models,
    standard,
)

DEFAULT_REQUESTS = 40


@standard
@runs_models
def trajectory(
    session: Session,
    base: Annotated[str, typer.Argument(metavar="BASE", help=f"The chat model before training. {CHECKPOINT_HELP}")],
    checkpoints: Annotated[
        list[str],
        typer.Argument(
            metavar="CKPT...",
            help="Checkpoints of the run in the order of training. Steps are read from their names (step-20, "
            "checkpoint-500, org/name@step1000); names that differ in the step alone are put in its order.",
        ),
    ],
    prompts: PromptsOption = None,
    images: ImagesOption = None,
    requests: Annotated[
        int,
        typer.Option(
            "--requests", min=2, help="Ask so many requests of a prompt set, at most; below 30 no claim is made."
        ),
    ] = DEFAULT_REQUESTS,
    generate: Annotated[
        bool,
        typer.Option("--generate", help="Also have every checkpoint answer, and count refused, complied and neither."),
    ] = False,
    tokens: TokensOption = None,
    keep: Annotated[
        Path | None,
        typer.Option(
            "--keep",
            metavar="FILE.jsonl",
            help="Keep here what every model gives, as it comes: an interrupted run, or one with more checkpoints, "
            "goes on from it.",
        ),
    ] = None,
    csv: Annotated[
        Path | None,
        typer.Option("--csv", metavar="FILE", help="Also write the refusals as a table: a line a checkpoint and set."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE.html", help="Also write a figure, as a page of its own.")
    ] = None,
    running: Running = Running(),  # noqa: B008
    allow_pickle: PickleOption = False,
    text_stack: TextStackOption = None,
) -> None:
    """Show when a training run lost refusals.

    Asks BASE how it refuses, then measures at every checkpoint how likely completions begin so (refusal log-odds;
    nothing is generated without --generate), and how far every block's weights are from BASE. Says at which step
    refusals fell beyond their interval, when half of the drop was there, and how much of their final change the blocks
    had made by then. Needs no case and writes none. Each model is loaded once, one at a time. With --keep it goes on
    where it was interrupted, to the same result. Asked are harmful, jailbroken, harmless and borderline requests; of
    your files all prompts, of the package's those of `report`.

    \b
    Example:
      vlsurgery trajectory llama/ run/checkpoint-* -o trajectory.html
      vlsurgery trajectory llama/ run/step-0 run/step-20 run/step-80 --generate --json
      vlsurgery trajectory llama/ run/checkpoint-* --keep run.jsonl
    """
    from vlsurgery.cli.outputs import check_output, is_kept_trajectory, is_trajectory_page, is_trajectory_table
    from vlsurgery.cli.view.trajectory import trajectory_tables
    from vlsurgery.cli.workflow.engine import StepOptions
    from vlsurgery.cli.workflow.free_trajectory import RunAsked, measure_run

    if csv is not None:
        check_output(csv, is_trajectory_table, "a table of vlsurgery trajectory", "--csv")
    if out is not None:
        check_output(out, is_trajectory_page, "a page of vlsurgery trajectory", "-o")
    if keep is not None:
        check_output(keep, is_kept_trajectory, "a file of vlsurgery trajectory --keep", "--keep")
    options = StepOptions(prompts=prompts or None, images=images, tokens=tokens, running=running)
    asked = RunAsked(base, checkpoints, requests, generate, keep, allow_pickle, text_stack or ())
    result = measure_run(session, asked, options)
    if result is None:
        return
    if csv is not None:
        from vlsurgery.cli.view.csv import write_table

        write_table(csv, result)
    if out is not None:
        from vlsurgery.figures.trajectory import page
        from vlsurgery.surgery.runtime.atomic_file import write_text

        write_text(out, page(result))
        session.console.say(f"figure: {out}")
    session.console.emit(result.json_text())
    session.console.show(*trajectory_tables(result))
