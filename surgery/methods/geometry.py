"""Methods that look at angles between whole tensors: along the arc of two, and to the centre of many."""

import math
from collections.abc import Callable
from itertools import combinations
from statistics import fmean

import numpy as np

from vlsurgery.surgery.methods.method import Chunk, Settings, Stream
from vlsurgery.surgery.methods.weighted import active, sum_of_moves
from vlsurgery.surgery.runtime.arrays import compute_dtype

# Beyond this cosine two tensors lie along one line, or nearly, and the arc between them is a straight one.
COLLINEAR = 0.9995

# Norms below this are those of a tensor that is 0.
NOTHING = 1e-8


def angle(stream: Stream, settings: Settings) -> float | None:  # noqa: ARG001
    """The angle between the base's tensor and the other model's, in radians; None where they lie along one line."""
    from vlsurgery.surgery.methods import kernels

    def products(chunk: Chunk, sums: np.ndarray) -> None:
        kernels.products((chunk.base, *chunk.vectors.values()), sums)

    (first, _), (product, second) = _summed(stream, 2, products).tolist()
    norms = [math.sqrt(square) if math.sqrt(square) > NOTHING else 1.0 for square in (first, second)]
    cosine = min(1.0, max(-1.0, product / norms[0] / norms[1]))
    return None if abs(cosine) > COLLINEAR else math.acos(cosine)


def slerp(chunk: Chunk, settings: Settings, state: float | None) -> np.ndarray:
    """Along the arc from the base to the other model: theta = (sin((1-t) a) base + sin(t a) other) / sin a, with a the
    angle between the two tensors, and t the other model's weight (Shoemake 1985). On a straight line, linear
    interpolation."""
    from vlsurgery.surgery.methods import kernels

    ((name, t),) = settings.coefficients.items()
    if t in (0, 1):
        return chunk.models[name] if t else chunk.origin
    if state is None:
        return sum_of_moves(chunk, chunk.base, {name: t})
    result = chunk.room(name)
    shares = np.array([math.sin((1 - t) * state), math.sin(t * state)]) / math.sin(state)
    kernels.summed((chunk.base, chunk.vectors[name]), shares.astype(result.dtype), result)
    return result


def centring(stream: Stream, settings: Settings) -> float:
    """How far from the base to the models' mean the centre is: N c / (1 + (N-1) c), with c the mean cosine between the
    deltas of two models; 0 where that has no value."""
    from vlsurgery.surgery.methods import kernels

    names = active(settings.coefficients)

    def products(chunk: Chunk, sums: np.ndarray) -> None:
        near = np.empty((len(names), kernels.TILE), compute_dtype([chunk.base.dtype]))
        kernels.products_of_moves(chunk.base, tuple(chunk.vectors[name] for name in names), near, sums)

    sums = _summed(stream, len(names), products).tolist()
    norms = [math.sqrt(row[place]) for place, row in enumerate(sums)]
    cosine = fmean(
        min(1.0, max(-1.0, sums[other][one] / max(norms[one] * norms[other], 1e-6)))
        for one, other in combinations(range(len(names)), 2)
    )
    below = 1 + (len(names) - 1) * cosine
    return len(names) * cosine / below if abs(below) >= 1e-6 else 0.0


def model_stock(chunk: Chunk, settings: Settings, state: float) -> np.ndarray:
    """theta = base + t (mean of the models - base), where t follows from the angles between the models (Jang et al.
    2024, "Model stock", arXiv 2403.19522, eq. 4)."""
    names = active(settings.coefficients)
    return sum_of_moves(chunk, chunk.base, dict.fromkeys(names, state / len(names)))


def _summed(stream: Stream, count: int, add: "Callable[[Chunk, np.ndarray], None]") -> np.ndarray:
    """A matrix of sums over the whole site, `count` rows high and wide. add: adds a block's to it."""

    def sums(chunk: Chunk) -> np.ndarray:
        found = np.zeros((count, count))
        add(chunk, found)
        return found

    return np.sum(tuple(stream.map(sums)), axis=0)
