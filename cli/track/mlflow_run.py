"""A run of MLflow: where MLFLOW_TRACKING_URI says, else in the folder that the command runs in."""

import os
from collections.abc import Mapping
from typing import Any, Final

# MLflow's own count of who uses it; read when it is imported.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

import mlflow

# Letters that MLflow takes in the name of a metric beside letters and digits.
TAKEN: Final = "_-. /"
# What MLflow would tell of the program's place and of who runs it, where it is told nothing else.
TOLD_BY_DEFAULT: Final = {"mlflow.source.name": "vlsurgery", "mlflow.user": "not told"}


class MlflowRun:
    """One run, the one that is active."""

    def log(self, metrics: Mapping[str, float]) -> None:
        mlflow.log_metrics({_name(name): value for name, value in metrics.items()})

    def finish(self, failed: bool) -> None:
        mlflow.end_run(status="FAILED" if failed else "FINISHED")


def start(project: str, name: str, config: Mapping[str, Any]) -> MlflowRun:
    """A new run in the experiment that is called as the project."""
    mlflow.set_experiment(project)
    mlflow.start_run(run_name=name, log_system_metrics=False, tags=TOLD_BY_DEFAULT)
    mlflow.log_params(dict(config))
    return MlflowRun()


def faults() -> tuple[type[Exception], ...]:
    """What it raises for what a user can mend."""
    return (mlflow.exceptions.MlflowException, OSError)


def _name(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in TAKEN else "-" for letter in name)
