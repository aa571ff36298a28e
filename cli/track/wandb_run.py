"""A run of Weights & Biases: offline where WANDB_MODE says so; the key is found by wandb itself."""

from collections.abc import Mapping
from typing import Any

import wandb


class WandbRun:
    """One run. inner: what `wandb.init` gave."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def log(self, metrics: Mapping[str, float]) -> None:
        self._inner.log(dict(metrics))

    def finish(self, failed: bool) -> None:
        self._inner.finish(exit_code=int(failed))


def start(project: str, name: str, config: Mapping[str, Any]) -> WandbRun:
    """A new run, without what wandb would take of the terminal (completions are printed there), of the program and its
    arguments (they name files), and of the machine."""
    settings = wandb.Settings(
        console="off", save_code=False, disable_git=True, disable_code=True, x_disable_meta=True, x_disable_stats=True
    )
    return WandbRun(wandb.init(project=project, name=name, config=dict(config), settings=settings))


def faults() -> tuple[type[Exception], ...]:
    """What it raises for what a user can mend."""
    return (wandb.errors.Error, OSError, ValueError)
