"""Figures and the report of results. A figure's module is imported when it is first asked for, and plotly with it."""

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vlsurgery.figures import (
        behaviour as behaviour,
        claims as claims,
        coefficients as coefficients,
        direction_drift as direction_drift,
        heads as heads,
        outcomes as outcomes,
        overlap as overlap,
        report as report,
        safety_map as safety_map,
        spectra as spectra,
        trajectory as trajectory,
        weight_change as weight_change,
    )

__all__ = [
    "behaviour",
    "claims",
    "coefficients",
    "direction_drift",
    "heads",
    "outcomes",
    "overlap",
    "report",
    "safety_map",
    "spectra",
    "trajectory",
    "weight_change",
]


def __getattr__(name: str) -> ModuleType:
    if name not in __all__:
        raise AttributeError(f"module 'vlsurgery.figures' has no attribute {name!r}")
    return import_module(f"vlsurgery.figures.{name}")
