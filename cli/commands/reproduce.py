"""`vlsurgery reproduce`: the steps of a case run again, and what differs."""

from pathlib import Path
from typing import Annotated

import typer

from vlsurgery.cli.options import CHECKPOINT_HELP, PickleOption, Running, Session, runs_models, standard


@standard
@runs_models
def reproduce(
    session: Session,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="The reproduce.json of a case, or the folder that it lies in.")
    ],
    checkpoints: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[BASE ADAPTED ...]", help=f"Where the same checkpoints are now, if elsewhere. {CHECKPOINT_HELP}"
        ),
    ] = None,
    prompts: Annotated[
        list[str] | None,
        typer.Option("--prompts", metavar="FILE:KIND", help="Where the same prompt files are now, if elsewhere."),
    ] = None,
    ignore_mismatch: Annotated[
        list[str] | None,
        typer.Option("--ignore-mismatch", metavar="NAME", help="As the merge was told it."),
    ] = None,
    running: Running = Running(),  # noqa: B008
    allow_pickle: PickleOption = False,
) -> None:
    """Run a case's steps again and say what differs.

    Every case has a reproduce.json: checkpoints, settings and prompts of each step, versions and machine, and the
    rates, gains, coefficients and files that came out. This runs the same steps in a case of its own (--case), and
    says line by line what is not as it was: rates against their intervals (paired, where the first completions lie
    beside FILE), gains and coefficients against theirs, files by their bytes, and versions and machine. Ends with exit
    code 3 where something differs beyond intervals. An interrupted run goes on when the command is given again.

    \b
    Example:
      vlsurgery reproduce case/reproduce.json --case again
    """
    from vlsurgery.cli.view.rerun import plan_lines, rerun_lines
    from vlsurgery.cli.workflow.rerun import RerunArgs, check_folder, load_reproduction, places_of, run_again
    from vlsurgery.cli.workflow.rerun_differences import NotReproduced, compare_runs

    first = load_reproduction(file)
    check_folder(session, file)
    args = RerunArgs(checkpoints or (), prompts or None, running, allow_pickle, ignore_mismatch or ())
    if session.plan:
        commands = first.commands(places_of(first, args))
        session.console.emit(first.json_text())
        session.console.show(*plan_lines(commands, session.case))
        return
    second = run_again(session, first, args)
    found = compare_runs(first, second, file if file.is_dir() else file.parent, session.case)
    session.console.emit(found.json_text())
    session.console.show(*rerun_lines(found))
    if found.beyond:
        raise NotReproduced(f"{session.case}: {found.verdict}")
