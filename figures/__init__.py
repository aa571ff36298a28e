"""Figures and the report of results. A figure's module is imported when it is first asked for, and plotly with it."""

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vlsurgery.figures import (
        behaviour as behaviour,
        block_effects as block_effects,
        claims as claims,
        coefficients as coefficients,
        direction_drift as direction_drift,
        frontier as frontier,
        heads as heads,
        outcomes as outcomes,
        overlap as overlap,
        price as price,
        report as report,
        safety_map as safety_map,
        spectra as spectra,
        trajectory as trajectory,
        weight_change as weight_change,
    )

__all__ = [
    "behaviour",
    "block_effects",
    "claims",
    "coefficients",
    "direction_drift",
    "frontier",
    "heads",
    "outcomes",
    "overlap",
    "price",
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
