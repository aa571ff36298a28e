"""Methods that need the angles between whole tensors: SLERP and Model Stock."""

import math
from collections.abc import Callable
from itertools import combinations
from statistics import fmean
from typing import Final

import numpy as np

from vlsurgery.surgery.methods.method import Chunk, Settings, Stream
from vlsurgery.surgery.methods.weighted import active, add_deltas
from vlsurgery.surgery.runtime.arrays import compute_dtype

# Absolute cosine above which two tensors count as collinear, and linear interpolation replaces the arc.
COLLINEAR_COSINE: Final = 0.9995

# Norm up to which a tensor counts as 0.
ZERO_NORM: Final = 1e-8


def angle(stream: Stream, settings: Settings) -> float | None:  # noqa: ARG001
    """The angle between the base's tensor and the other model's, in radians; None where they are collinear."""
    from vlsurgery.surgery.methods import kernels

    sums = _gram(stream, 2, lambda chunk, sums: kernels.gram((chunk.stored_base, *chunk.stored_models.values()), sums))
    (first, _), (product, second) = sums.tolist()
    norms = [math.sqrt(square) if math.sqrt(square) > ZERO_NORM else 1.0 for square in (first, second)]
    cosine = min(1.0, max(-1.0, product / norms[0] / norms[1]))
    return None if abs(cosine) > COLLINEAR_COSINE else math.acos(cosine)


def slerp(chunk: Chunk, settings: Settings, state: float | None) -> np.ndarray:
    """Spherical interpolation: theta = (sin((1-t) a) base + sin(t a) other) / sin a, with a the angle between the two
    tensors and t the other model's coefficient (Shoemake 1985). Linear interpolation where they are collinear."""
    from vlsurgery.surgery.methods import kernels

    ((name, t),) = settings.coefficients.items()
    if t in (0, 1):
        return chunk.models[name] if t else chunk.origin
    if state is None:
        return add_deltas(chunk, chunk.stored_base, {name: t})
    result = chunk.buffer(name)
    factors = np.array([math.sin((1 - t) * state), math.sin(t * state)]) / math.sin(state)
    kernels.weighted_sum((chunk.stored_base, chunk.stored_models[name]), factors.astype(result.dtype), result)
    return result


def interpolation_ratio(stream: Stream, settings: Settings) -> float:
    """Model Stock's t = N c / (1 + (N-1) c), with c the mean cosine of two models' deltas; 0 where t is undefined."""
    from vlsurgery.surgery.methods import kernels

    names = active(settings.coefficients)

    def add_products(chunk: Chunk, sums: np.ndarray) -> None:
        scratch = np.empty((len(names), kernels.TILE), compute_dtype([chunk.stored_base.dtype]))
        kernels.delta_gram(chunk.stored_base, tuple(chunk.stored_models[name] for name in names), scratch, sums)

    sums = _gram(stream, len(names), add_products).tolist()
    norms = [math.sqrt(row[place]) for place, row in enumerate(sums)]
    cosine = fmean(
        min(1.0, max(-1.0, sums[other][one] / max(norms[one] * norms[other], 1e-6)))
        for one, other in combinations(range(len(names)), 2)
    )
    denominator = 1 + (len(names) - 1) * cosine
    return len(names) * cosine / denominator if abs(denominator) >= 1e-6 else 0.0


def model_stock(chunk: Chunk, settings: Settings, state: float) -> np.ndarray:
    """theta = base + t (mean of the models - base), with t from the angles between the deltas (Jang et al. 2024, "Model
    stock", arXiv 2403.19522, eq. 4)."""
    names = active(settings.coefficients)
    return add_deltas(chunk, chunk.stored_base, dict.fromkeys(names, state / len(names)))


def _gram(stream: Stream, count: int, add_products: Callable[[Chunk, np.ndarray], None]) -> np.ndarray:
    """The matrix [count, count] of dot products over the whole site. add_products: adds a chunk's to it."""

    def of_chunk(chunk: Chunk) -> np.ndarray:
        sums = np.zeros((count, count))
        add_products(chunk, sums)
        return sums

    return np.sum(tuple(stream.map(of_chunk)), axis=0)
