"""Directions from plain tensors and plain tables: fitting them, reading with them, and choosing one as published.

    direction = directions.fit(harmful, harmless)          # [n, d] and [m, d], of one layer and position
    direction.apply(states)                                # how far states lie along it
    chosen = directions.select(rows, n_layers=32)          # rows: position, layer, and three scores each

No model is needed here; `vlsurgery.ablate` and `vlsurgery.add` take a direction into one.
"""

from vlsurgery.probes.directions.choice import select
from vlsurgery.probes.directions.direction import Direction
from vlsurgery.probes.directions.fits import Method, fit

__all__ = ["Direction", "Method", "fit", "select"]
