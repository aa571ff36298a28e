"""The options that several or all commands have, and the `Session` that is made of them."""

import functools
import inspect
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from vlsurgery.cli.case_lock import CaseLock
from vlsurgery.cli.console import Console
from vlsurgery.surgery.runtime.byte_counts import parse_bytes
from vlsurgery.surgery.runtime.urls import WRITTEN_TO, refuse_url_path

RunDtype = Literal["auto", "float32", "bfloat16", "float16"]
NewOption = Annotated[
    bool,
    typer.Option("--new", help="If the case holds other checkpoints, move it aside (case-1, case-2, ...) first."),
]
PickleOption = Annotated[
    bool,
    typer.Option(
        "--allow-pickle",
        help="Take pickled weights (.bin) where there are no safetensors; they are loaded as weights only.",
    ),
]
TextStackOption = Annotated[
    list[str] | None,
    typer.Option(
        "--text-stack",
        metavar="NAME",
        help="The container of the language model's layers (model.layers), where two look like it; in every checkpoint "
        "that has one of this name. [default: as the case has it]",
    ),
]
CHECKPOINT_HELP = "A directory, a model on the Hub (org/name or org/name@revision), or BASE+ADAPTER for a LoRA adapter."
# The same, of commands that run no model.
WEIGHTS_HELP = (
    "A directory, a model on the Hub (org/name or org/name@revision), a URL (s3://bucket/model), or BASE+ADAPTER for a "
    "LoRA adapter."
)
PromptsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--prompts",
        metavar="FILE:KIND",
        help="Use your own prompts for a prompt set; may be given several times. KIND is harmful, jailbroken, "
        "harmless, borderline or capability, or the name of a data set (advbench, harmbench, strongreject, "
        "jailbreakbench, xstest, or-bench, mm-safetybench, figstep, vlguard, mossbench, siuo). Each is asked as text "
        "and with ordinary, blank and noise pictures, unless its row brings its own. Sets that you don't name keep the "
        "package's own prompts, less the requests that your files ask too. [default: those of the case's last probe]",
    ),
]

ImagesOption = Annotated[
    Path | None,
    typer.Option(
        "--images",
        metavar="DIR",
        help="Take the ordinary pictures beside your own prompts from here. [default: drawn scenes]",
    ),
]
BudgetOption = Annotated[
    str | None,
    typer.Option(
        "--budget",
        metavar="TIME",
        help="Ask so many requests that models run about so long here: 10m, 1h, or full for all. The same requests for "
        "every model, with their twins and pictures; how well that tells a rate is said first. [default: as the case "
        "did it last, else full]",
    ),
]
EndpointOption = Annotated[
    str | None,
    typer.Option(
        "--endpoint",
        metavar="URL",
        help="Ask models that a server runs: vLLM's, or any that speaks OpenAI's protocol, as "
        "http://localhost:8000/v1. Completions alone are asked, so there is no KL; prompts with pictures go along "
        "where it takes them.",
    ),
]
ServedModelOption = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        metavar="NAME",
        help="With --endpoint: the model, as the server names it; may be given several times. The last part of NAME is "
        "its role in results (vllm serve PATH --served-model-name merged).",
    ),
]
KeyVariableOption = Annotated[
    str | None,
    typer.Option(
        "--api-key-env",
        metavar="VARIABLE",
        help="With --endpoint: the environment variable that holds the key for it, which is never shown or kept. "
        "[default: OPENAI_API_KEY, where it is set]",
    ),
]
ConnectionsOption = Annotated[
    int | None,
    typer.Option(
        "--connections", metavar="N", min=1, max=1024, help="With --endpoint: requests at a time. [default: 16]"
    ),
]
TokensOption = Annotated[
    int | None,
    typer.Option("--tokens", min=1, max=32_768, help="New tokens of a completion, at most. [default: 128]"),
]
JudgesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--judge",
        metavar="JUDGE",
        help="standard, rules, classifier, or hf:MODEL for a text classifier or guard model; given several times, the "
        "first makes the rates and agreement is shown. [default: that of the case's last evaluation, else standard]",
    ),
]
JudgeLabelsOption = Annotated[
    str | None,
    typer.Option(
        "--judge-labels",
        metavar="LABEL=VERDICT,...",
        help="What the labels of an hf: classifier mean, as REJECTION=refused,NORMAL=complied; known ones need none.",
    ),
]
LimitsOption = Annotated[
    Path | None,
    typer.Option(
        "--limits",
        metavar="FILE.toml",
        help="Say of each of your limits whether it is met, and end with code 3 if not.",
    ),
]
RayOption = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="[ADDRESS]",
        help="Divide the work among the workers of a Ray cluster, with the same results: local, or no ADDRESS, starts "
        "one on this machine for as long as it takes, local:N one with N workers, auto is the one that runs here "
        "already, HOST:PORT another one, whose machines see all files under the same paths. Needs vlsurgery[ray].",
    ),
]
TrackOption = Annotated[
    str | None,
    typer.Option(
        "--track",
        metavar="NAME[:PROJECT]",
        help="Also log the numbers to trackio, wandb or mlflow (pip install 'vlsurgery[NAME]'): rates with intervals, "
        "gains, coefficients; no prompts and no completions. [default: project vlsurgery]",
    ),
]

HELP_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@dataclass(frozen=True)
class Session:
    """The values of the options of all commands.

    case: its folder. plan: only show what would be done. lock: what a command that writes into the case claims first.
    until_end: what is entered with it is left when the command ends, and hears how.
    """

    case: Path
    console: Console
    plan: bool
    lock: CaseLock = field(default_factory=CaseLock)
    until_end: ExitStack = field(default_factory=ExitStack)


def standard(command: Callable[..., None]) -> Callable[..., None]:
    """The command with the options `--case --json --quiet --plan`, from which its first argument, a `Session`, is made.

    Typer reads a command's options from its signature; here the four replace its first parameter.
    """

    @functools.wraps(command)
    def with_session(*, case: Path, json: bool, quiet: bool, plan: bool, **own: object) -> None:
        refuse_url_path(case, WRITTEN_TO)
        with Console(quiet=quiet, json=json) as console, closing(CaseLock()) as lock, ExitStack() as until_end:
            command(Session(case, console, plan, lock, until_end), **own)

    own = list(inspect.signature(command).parameters.values())[1:]
    parameters = own + list(inspect.signature(_common).parameters.values())
    with_session.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    with_session.__annotations__ = {p.name: p.annotation for p in parameters} | {"return": None}
    return with_session


@dataclass(frozen=True)
class Running:
    """How models are run: the values of the options of commands that run some. As in `probes.models.Loader`."""

    thinking: Literal["on", "off", "default"] | None = None
    trust_remote_code: bool = False
    dtype: RunDtype | None = None
    device: str | None = None
    memory: int | None = None


def runs_models(command: Callable[..., None]) -> Callable[..., None]:
    """The command with the options of a `Running`, from which its argument `running` is made.

    An option that the command has itself keeps its place and help, and its value counts for both.
    """
    names = [each.name for each in fields(Running)]

    @functools.wraps(command)
    def with_running(session: Session, **given: Any) -> None:
        memory = given["memory"]
        values = {name: given[name] for name in names} | {"memory": None if memory is None else parse_bytes(memory)}
        command(session, **{name: given[name] for name in own if name != "running"}, running=Running(**values))

    own = {name: each for name, each in inspect.signature(command).parameters.items() if name != "session"}
    more = {name: each for name, each in inspect.signature(_running).parameters.items() if name not in own}
    parameters = [each for name, each in own.items() if name != "running"] + list(more.values())
    first = inspect.Parameter("session", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    with_running.__signature__ = inspect.Signature([first, *parameters])  # type: ignore[attr-defined]
    return with_running


def _running(
    *,
    thinking: Annotated[
        Literal["on", "off", "default"] | None,
        typer.Option(
            "--thinking",
            help="Tell chat templates to have models think before they answer (enable_thinking), or not to; default "
            "tells them nothing. [default: as the case did it last]",
        ),
    ] = None,
    trust_remote_code: Annotated[
        bool,
        typer.Option(
            "--trust-remote-code",
            help="Run the Python that a checkpoint brings along, where transformers needs it. Read it first: it can do "
            "what you can do. Results say that it ran.",
        ),
    ] = False,
    dtype: Annotated[
        RunDtype | None,
        typer.Option(
            "--dtype",
            help="What the running models' weights are held in; auto is the stored one where the device multiplies it "
            "fast, else float32. [default: as the case did it last, else auto]",
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            "--device",
            metavar="DEVICE",
            help="Where models run: cpu, cuda, cuda:1, mps, or auto to divide them over all devices. [default: cuda "
            "where there is one, else cpu]",
        ),
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(
            "--memory",
            metavar="SIZE",
            help="How much memory models and batches may take, as 20GiB or 800MB. [default: what is free]",
        ),
    ] = None,
) -> None:
    """Never called: `runs_models` takes the options from its signature."""


def _common(
    *,
    case: Annotated[
        Path,
        typer.Option("--case", metavar="DIR", help="The folder that holds checkpoints (by reference) and findings."),
    ] = Path("case"),
    json: Annotated[
        bool, typer.Option("--json", help="Print the result as JSON on standard output, and nothing else there.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", help="No progress and no notices; only results and errors.")
    ] = False,
    plan: Annotated[
        bool,
        typer.Option(
            "--plan",
            help="Only say what would be done, with bytes, memory and number of prompts; write nothing.",
        ),
    ] = False,
) -> None:
    """Never called: `standard` takes the common options from its signature."""
