"""The `vlsurgery` program: registers the commands, and reports faults that a user can mend in one line."""

import contextlib
import errno
import gc
import os
import signal
import sys
from collections.abc import Iterator
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from vlsurgery.cli.commands.anatomy import anatomy
from vlsurgery.cli.commands.claims import claims
from vlsurgery.cli.commands.compare import compare
from vlsurgery.cli.commands.completions import completions
from vlsurgery.cli.commands.convert import convert
from vlsurgery.cli.commands.demo import demo
from vlsurgery.cli.commands.diff import diff
from vlsurgery.cli.commands.evaluate import evaluate
from vlsurgery.cli.commands.explore import explore
from vlsurgery.cli.commands.history import history
from vlsurgery.cli.commands.judge_agreement import judge_agreement
from vlsurgery.cli.commands.merge.command import merge_command, merge_outline
from vlsurgery.cli.commands.probe import probe
from vlsurgery.cli.commands.push import push
from vlsurgery.cli.commands.rejudge import rejudge
from vlsurgery.cli.commands.report import report
from vlsurgery.cli.commands.reproduce import reproduce
from vlsurgery.cli.commands.trajectory import trajectory
from vlsurgery.cli.options import HELP_SETTINGS
from vlsurgery.cli.streams import check_output_open, check_words, fill_closed_streams
from vlsurgery.surgery.errors import SurgeryError
from vlsurgery.surgery.runtime.visible import visible

# Exit codes: 128 and the signal's number.
INTERRUPTED = 130
PIPE_CLOSED = 141
# Signals that ask a program to end, beside the one of Ctrl-C; Windows has no SIGHUP.
ENDING = ("SIGTERM", "SIGHUP")
LONGEST = 4_000  # characters of a fault: a name in it may have any length
# Faults of the machine and not of the program: no room, no permission, a file where a directory is needed.
ENVIRONMENT = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EFBIG,
)


class AskedToEnd(KeyboardInterrupt):
    """A signal that asks the program to end; what it has begun is cleared away as after Ctrl-C."""

    def __init__(self, code: int) -> None:
        self.code = code


def with_local_cluster(words: list[str]) -> list[str]:
    """The words of a command line, in which `--ray` without an address is `--ray local`: typer knows no option whose
    value may be left out."""
    end = words.index("--") if "--" in words else len(words)
    found = []
    for at, word in enumerate(words):
        found.append(word)
        if word == "--ray" and at < end and (at + 1 >= end or words[at + 1].startswith("-")):
            found.append("local")
    return found


class Commands(TyperGroup):
    """The group of all commands. Prints a fault as one line on standard error; a bug shows its traceback."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        """Refuse closed streams, and words that are not text, before anything is printed or written."""
        with _faults_in_one_line():
            check_output_open(ctx.obj or ())
            check_words(args)
            return super().parse_args(ctx, with_local_cluster(args))

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]
        with _faults_in_one_line():
            result = super().invoke(ctx)
            sys.stdout.flush()
        return result

    def resolve_command(self, ctx: typer.Context, args: list[str]) -> Any:  # type: ignore[override]
        """Make `merge` when it is called: its options come from METHODS, which is slow to import."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, merge_command() if name == "merge" else command, rest


@contextlib.contextmanager
def _faults_in_one_line() -> Iterator[None]:
    """End the program with one line and an exit code for a fault that a user can mend."""
    try:
        yield
    except BrokenPipeError:
        # The reader of the pipe has gone: Python must not fail once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        raise typer.Exit(PIPE_CLOSED) from None
    except SurgeryError as error:
        _fail(f"error: {error}", error.exit_code)
    except OSError as error:
        if error.errno not in ENVIRONMENT:
            raise
        _fail(f"error: {error.filename or 'standard output'}: {error.strerror}", SurgeryError.exit_code)
    except KeyboardInterrupt as error:
        code = error.code if isinstance(error, AskedToEnd) else INTERRUPTED
        _fail("interrupted: finished steps are kept; the same command goes on from there", code)


def _end_by_signals() -> None:
    """Let signals that ask the program to end do so as Ctrl-C does; those that are ignored (nohup) stay ignored."""

    def end(number: int, frame: object) -> None:  # noqa: ARG001
        raise AskedToEnd(128 + number)

    for name in ENDING:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, end)


def _fail(line: str, code: int) -> None:
    with contextlib.suppress(OSError):  # Nobody reads standard error any more, or the terminal has hung up.
        line = visible(" ".join(line.split()))
        sys.stderr.write((line if len(line) <= LONGEST else f"{line[:LONGEST]}…") + "\n")
    raise typer.Exit(code)


def _show_version(wanted: bool) -> None:
    if wanted:
        from vlsurgery.cli.version import version_line

        typer.echo(version_line())
        raise typer.Exit


app = typer.Typer(
    cls=Commands,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # Rich help pages cost a tenth of a second; `--help` must be instant.
    context_settings=HELP_SETTINGS,
)


@app.callback()
def vlsurgery(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and the commit, and stop."
        ),
    ] = False,
) -> None:
    """Give vision-language models back the refusals that adaptation cost them.

    Teaching a chat model to see weakens its refusals of harmful requests, even when all training data is safe.
    vlsurgery compares the model before (BASE) and after (ADAPTED), finds the weights where refusals were lost,
    chooses how much of the base (and of a safety-tuned model, if you have one) to mix back in, and writes the
    merged checkpoint together with a report on what that brought and what it cost.

    \b
    Start here:
      vlsurgery demo                    see all of it on a small model trained on the spot
      vlsurgery diff BASE ADAPTED       open a case on your own checkpoints, then
      vlsurgery merge --auto            run every other step and write case/merged and case/report.html
    """


for name, command in {
    "diff": diff,
    "probe": probe,
    "merge": merge_outline,
    "evaluate": evaluate,
    "completions": completions,
    "rejudge": rejudge,
    "judge-agreement": judge_agreement,
    "history": history,
    "compare": compare,
    "trajectory": trajectory,
    "report": report,
    "push": push,
    "reproduce": reproduce,
    "explore": explore,
    "anatomy": anatomy,
    "convert": convert,
    "demo": demo,
    "claims": claims,
}.items():
    app.command(name)(command)


def run() -> None:
    """The console script."""
    closed = fill_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        # A terminal without Unicode shows "?" in place of a bar, instead of a traceback.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    # Importing torch or numba makes a million lasting objects, which the collector would visit again and again.
    gc.set_threshold(100_000)
    _end_by_signals()
    try:
        app(obj=closed)
    except SystemExit as end:
        leave(end.code)
        raise


def leave(code: object) -> None:
    """End the process at once where torch or numba was imported: their regular shutdown takes half a second. Returns
    where neither was, and where there is a message to be shown."""
    if not {"torch", "numba"} & sys.modules.keys() or not (code is None or isinstance(code, int)):
        return
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    from vlsurgery.surgery.runtime.scratch_folder import remove_scratch_folders

    remove_scratch_folders()
    os._exit(code or 0)


if __name__ == "__main__":
    run()
