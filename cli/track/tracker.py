"""What a tracker is to a command, and how one is opened."""

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final, Protocol, Self

from vlsurgery.cli.version import version
from vlsurgery.surgery.errors import LimitNotMet, SurgeryError

DEFAULT_PROJECT: Final = "vlsurgery"
# Name, as `--track` takes it and as the package is imported -> the module of ours that speaks to it.
ADAPTERS: Final = {
    "trackio": "vlsurgery.cli.track.trackio_run",
    "wandb": "vlsurgery.cli.track.wandb_run",
    "mlflow": "vlsurgery.cli.track.mlflow_run",
}

Metrics = Mapping[str, float]


class Tracker(Protocol):
    """One run of a tracker."""

    def log(self, metrics: Metrics) -> None:
        """Add numbers to the run, by their names."""

    def finish(self, failed: bool) -> None:
        """End the run. failed: whether the command did."""


class TrackerFault(SurgeryError):
    """A tracker can't be used, or did not take what it was given."""


@dataclass(frozen=True)
class TrackSpec:
    """What `--track` says. name: of the tracker. project: that runs go to."""

    name: str
    project: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """NAME or NAME:PROJECT. Raises SurgeryError for another name, and for one whose package is missing."""
        name, colon, project = text.partition(":")
        if name not in ADAPTERS or (colon and not project.strip()):
            raise SurgeryError(
                f"--track {text}: expected {', '.join(ADAPTERS)}, or one with a project as wandb:PROJECT."
            )
        if name not in sys.modules and find_spec(name) is None:
            raise SurgeryError(f"--track {name}: {name} is not installed. pip install 'vlsurgery[{name}]'.")
        return cls(name, project.strip() or DEFAULT_PROJECT)


class Tracking:
    """The run of one command: logs to a tracker, or nowhere where none was asked for."""

    def __init__(self, log: Callable[[Metrics], None] = lambda metrics: None) -> None:  # noqa: ARG005
        self.log = log


@contextlib.contextmanager
def tracking(asked: str | None, command: str, plan: bool = False) -> Iterator[Tracking]:
    """A run of the tracker that `--track` names, for as long as the block lasts; nothing is imported without one.

    command: which one runs; beside the version, all that is told of it: no file's place, no prompt. What a tracker
    prints goes to standard error.

    Raises SurgeryError before the block runs where the tracker is not there, TrackerFault where it fails.
    """
    if asked is None or plan:
        yield Tracking()
        return
    spec = TrackSpec.parse(asked)
    adapter = _adapter(spec)
    faults: tuple[type[Exception], ...] = adapter.faults()
    with _told(spec, faults):
        told = {"command": command, "version": version()}
        tracker: Tracker = adapter.start(spec.project, f"vlsurgery {command}", told)

    def log(metrics: Metrics) -> None:
        with _told(spec, faults):
            tracker.log(metrics)

    try:
        yield Tracking(log)
    except BaseException as error:
        with contextlib.suppress(*faults), contextlib.redirect_stdout(sys.stderr):
            # What went wrong in the block is what is to be told. A limit that is not met is a result.
            tracker.finish(failed=not isinstance(error, LimitNotMet))
        raise
    with _told(spec, faults):
        tracker.finish(failed=False)


def _adapter(spec: TrackSpec) -> Any:
    """The module of ours that speaks to a tracker, whose package may not fit the packages beside it."""
    try:
        return import_module(ADAPTERS[spec.name])
    except ImportError as error:
        line = " ".join(str(error).split())[:200]
        raise SurgeryError(
            f"--track {spec.name}: {spec.name} is installed and can't be imported ({line}). pip install -U {spec.name} "
            "brings one that fits the packages beside it."
        ) from error


@contextlib.contextmanager
def _told(spec: TrackSpec, faults: tuple[type[Exception], ...]) -> Iterator[None]:
    """Keep a tracker's prints from among the results, and turn its faults into a TrackerFault."""
    with contextlib.redirect_stdout(sys.stderr):
        try:
            yield
        except faults as error:
            line = " ".join(str(error).split())[:200] or type(error).__name__
            raise TrackerFault(
                f"--track {spec.name}:{spec.project}: {line}. What a case measured is kept; mend that, or leave "
                "--track out."
            ) from error
