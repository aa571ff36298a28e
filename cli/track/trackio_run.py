"""A run of trackio: on this machine, unless TRACKIO_SPACE_ID or TRACKIO_SERVER_URL say otherwise."""

from collections.abc import Mapping
from typing import Any

import trackio


class TrackioRun:
    """One run. inner: what `trackio.init` gave."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def log(self, metrics: Mapping[str, float]) -> None:
        self._inner.log(dict(metrics))

    def finish(self, failed: bool) -> None:  # noqa: ARG002  (it knows no failed runs)
        trackio.finish()  # The run's own `finish` would be called again at the program's end, and print there.


def start(project: str, name: str, config: Mapping[str, Any]) -> TrackioRun:
    """A new run, without what it would measure of the machine."""
    quiet = {"embed": False, "auto_log_gpu": False, "auto_log_cpu": False}
    return TrackioRun(trackio.init(project=project, name=name, config=dict(config), **quiet))


def faults() -> tuple[type[Exception], ...]:
    """What it raises for what a user can mend."""
    return (OSError, ValueError, RuntimeError)
