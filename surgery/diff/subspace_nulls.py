"""How much the leading directions of two deltas overlap for no other reason than that both contain `adapted`."""

import math
from functools import lru_cache
from typing import Final

import torch
from torch import Tensor

from vlsurgery.surgery.diff.matrices import InMemoryMatrix
from vlsurgery.surgery.diff.spectrum import leading_directions
from vlsurgery.surgery.diff.subspaces import NUM_COMPARED, overlap, random_overlap
from vlsurgery.surgery.results import Sides

# Overlaps from rounding are simulated on a matrix that is scaled down to these sides; larger ones overlap no more.
MAX_SIMULATED_SIDE: Final = 256  # the smaller one
MAX_SIMULATED_LENGTH: Final = 2048  # the larger one
NUM_SIMULATIONS: Final = 4

# Correlations are rounded to multiples of this; directions of less correlated matrices overlap as random ones do.
CORRELATION_STEP: Final = 0.05


def rounding_null(unrelated: Sides, shape: tuple[int, int], correlation: float) -> Sides:
    """The overlap of two deltas whose moves are independent, and whose entries correlate because both contain the
    rounding error of `adapted`, with opposite signs.

    unrelated: the overlap of independent random subspaces. correlation: the expected one, never above 0
    (`vlsurgery.surgery.diff.nulls`).

    Rounding errors and moves are both taken to be normal noise without directions of its own. Moves that have such
    directions overlap less than this.
    """
    steps = math.floor(-correlation / CORRELATION_STEP + 0.5)
    if steps == 0:
        return unrelated
    scale = min(1.0, MAX_SIMULATED_SIDE / min(shape))
    rows, columns = (min(MAX_SIMULATED_LENGTH, max(2, round(side * scale))) for side in shape)
    left, right = _beyond_random(rows, columns, min(1.0, steps * CORRELATION_STEP))
    return Sides(
        left=unrelated.left + left * (1 - unrelated.left), right=unrelated.right + right * (1 - unrelated.right)
    )


@lru_cache(maxsize=256)
def _beyond_random(rows: int, columns: int, correlation: float) -> tuple[float, float]:
    """The overlap of the leading directions of two normal matrices whose entries correlate so much, on the left and on
    the right, scaled so that random subspaces have 0 and equal ones 1."""
    found = []
    for draw in range(NUM_SIMULATIONS):
        generator = torch.Generator().manual_seed(draw)
        first, other = torch.randn(2, rows, columns, generator=generator)
        second = first * correlation + other * math.sqrt(1 - correlation**2)
        found.append(_sides(first, second, draw))
    mean, random = (
        [sum(sides) / NUM_SIMULATIONS for sides in zip(*each, strict=True)] for each in zip(*found, strict=True)
    )
    left, right = (max(0.0, (value - start) / (1 - start)) for value, start in zip(mean, random, strict=True))
    return left, right


def unrelated_null(base: Tensor, adapted: Tensor, safety: Tensor, seed: int) -> Sides:
    """The overlap that the two deltas would have if base and safety had nothing to do with `adapted` or each other:
    that of their rows and columns in random order, which keeps norms and singular values.

    All are [rows, columns] float32.
    """
    generator = torch.Generator().manual_seed(seed)
    deltas = []
    for other in (base, safety):
        rows, columns = (torch.randperm(side, generator=generator) for side in other.shape)
        deltas.append(adapted - other[rows][:, columns])
    (left, right), _ = _sides(deltas[0], deltas[1], seed)
    return Sides(left=left, right=right)


def _sides(first: Tensor, second: Tensor, seed: int) -> tuple[tuple[float, float], tuple[float, float]]:
    """The overlaps of two matrices' leading directions on the left and on the right, and those of random ones."""
    left, right = zip(
        *(leading_directions(InMemoryMatrix(each), seed, NUM_COMPARED) for each in (first, second)), strict=True
    )
    return (overlap(*left), overlap(*right)), (random_overlap(*left), random_overlap(*right))
