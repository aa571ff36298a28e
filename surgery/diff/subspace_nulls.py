"""How much the leading directions of two deltas overlap for no other reason than that both contain `adapted`."""

import math
from functools import lru_cache
from typing import Final

import torch
from torch import Tensor

from vlsurgery.surgery.diff.spectrum import Held, leading_directions
from vlsurgery.surgery.diff.subspaces import LEADING, overlap, random_overlap
from vlsurgery.surgery.results import Sides

# Overlaps that come of rounding are found by simulation, with the smaller side of a matrix cut down to so many; the
# overlap of larger ones is no larger.
SIMULATED: Final = 256
LONGEST: Final = 2048
DRAWS: Final = 4

# Correlations are told apart by steps of this size; below the first one directions share nothing that can be seen.
STEP: Final = 0.05


def rounding_null(unrelated: Sides, shape: tuple[int, int], correlation: float) -> Sides:
    """The overlap of two deltas whose moves are independent, and whose entries correlate because both contain what
    storing `adapted` rounded away, the one with a minus.

    unrelated: the overlap of independent random subspaces. correlation: the expected one, never above 0
    (`vlsurgery.surgery.diff.nulls`).

    Rounding errors and the moves beside them are taken for normal noise without directions of its own. Where moves have
    such directions these stand out, and less than this is shared.
    """
    steps = math.floor(-correlation / STEP + 0.5)
    if steps == 0:
        return unrelated
    scale = min(1.0, SIMULATED / min(shape))
    rows, columns = (min(LONGEST, max(2, round(side * scale))) for side in shape)
    left, right = _beyond_random(rows, columns, min(1.0, steps * STEP))
    return Sides(
        left=unrelated.left + left * (1 - unrelated.left), right=unrelated.right + right * (1 - unrelated.right)
    )


@lru_cache(maxsize=256)
def _beyond_random(rows: int, columns: int, correlation: float) -> tuple[float, float]:
    """How far from a random overlap (0) to that of one subspace with itself (1) the leading directions of two normal
    matrices come whose entries correlate so much, on the left and on the right."""
    found = []
    for draw in range(DRAWS):
        generator = torch.Generator().manual_seed(draw)
        first, other = torch.randn(2, rows, columns, generator=generator)
        second = first * correlation + other * math.sqrt(1 - correlation**2)
        found.append(_sides(first, second, draw))
    mean, random = ([sum(sides) / DRAWS for sides in zip(*each, strict=True)] for each in zip(*found, strict=True))
    left, right = (max(0.0, (value - start) / (1 - start)) for value, start in zip(mean, random, strict=True))
    return left, right


def strangers_null(base: Tensor, adapted: Tensor, safety: Tensor, seed: int) -> Sides:
    """The overlap of the two deltas that base and safety would have if they had nothing to do with `adapted`, nor with
    each other: their rows and columns in random order, which keeps their size and their singular values.
    All are [rows, columns] float32.
    """
    generator = torch.Generator().manual_seed(seed)
    first, second = (adapted - _shuffled(other, generator) for other in (base, safety))
    (left, right), _ = _sides(first, second, seed)
    return Sides(left=left, right=right)


def _shuffled(matrix: Tensor, generator: torch.Generator) -> Tensor:
    rows, columns = (torch.randperm(side, generator=generator) for side in matrix.shape)
    return matrix[rows][:, columns]


def _sides(first: Tensor, second: Tensor, seed: int) -> tuple[tuple[float, float], tuple[float, float]]:
    """The overlaps of two matrices' leading directions on the left and on the right, and those of random ones."""
    left, right = zip(*(leading_directions(Held(each), seed, LEADING) for each in (first, second)), strict=True)
    return (overlap(*left), overlap(*right)), (random_overlap(*left), random_overlap(*right))
