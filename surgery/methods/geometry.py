"""Methods that look at angles between whole tensors: along the arc of two, and to the centre of many."""

import math
from collections.abc import Callable
from itertools import combinations
from statistics import fmean
from typing import TYPE_CHECKING

from surgery.methods.method import Block, Settings, Stream
from surgery.methods.weighted import active

if TYPE_CHECKING:
    from torch import Tensor

# Beyond this cosine two tensors lie along one line, or nearly, and the arc between them is a straight one.
COLLINEAR = 0.9995

# Norms below this are those of a tensor that is 0.
NOTHING = 1e-8

# Entries that products are summed over in the vectors' own precision; sums of such sums are in float64.
RUN = 1 << 10


def angle(stream: Stream, settings: Settings) -> float | None:  # noqa: ARG001
    """The angle between the base's tensor and the other model's, in radians; None where they lie along one line."""

    (first, product), (_, second) = _products(stream, lambda block: block.rows)
    norms = [math.sqrt(square) if math.sqrt(square) > NOTHING else 1.0 for square in (first, second)]
    cosine = min(1.0, max(-1.0, product / norms[0] / norms[1]))
    return None if abs(cosine) > COLLINEAR else math.acos(cosine)


def slerp(block: Block, settings: Settings, facts: float | None) -> "Tensor":
    """Along the arc from the base to the other model: theta = (sin((1-t) a) base + sin(t a) other) / sin a, with a the
    angle between the two tensors, and t the other model's weight (Shoemake 1985). On a straight line, linear
    interpolation."""
    ((name, other),) = block.models.items()
    t = settings.weights[name]
    if t in (0, 1):
        return other if t else block.origin
    if facts is None:
        return block.origin.lerp(other, t)
    result = block.origin * (math.sin((1 - t) * facts) / math.sin(facts))
    return result.add_(other, alpha=math.sin(t * facts) / math.sin(facts))


def centring(stream: Stream, settings: Settings) -> float:
    """How far from the base to the models' mean the centre is: N c / (1 + (N-1) c), with c the mean cosine between the
    deltas of two models; 0 where that has no value."""
    names = active(settings.weights)

    sums = _products(stream, lambda block: block.moves(names))
    norms = [math.sqrt(row[place]) for place, row in enumerate(sums)]
    cosine = fmean(
        min(1.0, max(-1.0, sums[one][other] / max(norms[one] * norms[other], 1e-6)))
        for one, other in combinations(range(len(names)), 2)
    )
    below = 1 + (len(names) - 1) * cosine
    return len(names) * cosine / below if abs(below) >= 1e-6 else 0.0


def model_stock(block: Block, settings: Settings, facts: float) -> "Tensor":
    """theta = base + t (mean of the models - base), where t follows from the angles between the models (Jang et al.
    2024, "Model stock", arXiv 2403.19522, eq. 4)."""
    import torch

    first, second, *others = active(settings.weights)
    mean = torch.lerp(block.models[first], block.models[second], 0.5, out=block.room(first))
    for count, name in enumerate(others, 3):
        mean.lerp_(block.models[name], 1 / count)
    return torch.lerp(block.origin, mean, facts, out=mean)


def _products(stream: Stream, rows_of: "Callable[[Block], Tensor]") -> list[list[float]]:
    """The dot product of every row with every other, over the whole site. rows_of: those of a block."""
    import torch

    def products(block: Block) -> "Tensor":
        rows = rows_of(block)
        runs = rows.shape[1] // RUN
        first = rows[:, : runs * RUN].unflatten(1, (runs, RUN)).transpose(0, 1)
        rest = rows[:, runs * RUN :].double()
        return torch.bmm(first, first.mT).sum(0, dtype=torch.float64).addmm_(rest, rest.T)

    sums: list[list[float]] = torch.stack(tuple(stream.map(products))).sum(0).tolist()
    return sums
