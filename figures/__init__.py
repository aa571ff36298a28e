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
        comparison as comparison,
        cosines as cosines,
        direction_drift as direction_drift,
        frontier as frontier,
        heads as heads,
        history as history,
        lens as lens,
        outcomes as outcomes,
        overlap as overlap,
        patching as patching,
        price as price,
        projections as projections,
        report as report,
        safety_layers as safety_layers,
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
    "comparison",
    "cosines",
    "direction_drift",
    "frontier",
    "heads",
    "history",
    "lens",
    "outcomes",
    "overlap",
    "patching",
    "price",
    "projections",
    "report",
    "safety_layers",
    "safety_map",
    "spectra",
    "trajectory",
    "weight_change",
]


def __getattr__(name: str) -> ModuleType:
    if name not in __all__:
        raise AttributeError(f"module 'vlsurgery.figures' has no attribute {name!r}")
    return import_module(f"vlsurgery.figures.{name}")
