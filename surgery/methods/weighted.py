"""Weighted sums of models, and of deltas from a base."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from vlsurgery.surgery.methods.method import Chunk, Settings


def linear(chunk: Chunk, settings: Settings, state: Any) -> np.ndarray:  # noqa: ARG001
    """The weighted mean of the models: theta = sum w_i theta_i / sum w_i, undivided where `normalize` is off (Wortsman
    et al. 2022, "Model soups", arXiv 2203.05482). w_i: the coefficients.

    A mean is computed as the first model plus deltas from it, so that the mean of equal tensors is exact.
    """
    from vlsurgery.surgery.methods import kernels

    used = active(settings.coefficients)
    if not settings["normalize"]:
        result = chunk.buffer(next(iter(used)))
        models = tuple(chunk.stored_models[name] for name in used)
        kernels.weighted_sum(models, np.fromiter(used.values(), result.dtype), result)
        return result
    total = sum(used.values())
    first, *others = used
    if not others:
        return chunk.models[first]
    return add_deltas(chunk, chunk.stored_models[first], {name: used[name] / total for name in others})


def task_arithmetic(chunk: Chunk, settings: Settings, state: Any) -> np.ndarray:  # noqa: ARG001
    """theta = base + lambda sum w_i (theta_i - base), over sum w_i where `normalize` is on (Ilharco et al. 2023,
    "Editing models with task arithmetic", arXiv 2212.04089). w_i: the coefficients.

    All w = 0 give the base itself, and one w = 1 alone that model itself, without rounding.
    """
    scale = scale_of(settings)
    scaled = {name: coefficient * scale for name, coefficient in active(settings.coefficients).items()}
    if not scaled:
        return chunk.origin
    if list(scaled.values()) == [1]:
        return chunk.models[next(iter(scaled))]
    return add_deltas(chunk, chunk.stored_base, scaled)


def active(coefficients: Mapping[str, float]) -> dict[str, float]:
    """The coefficients that are not 0."""
    return {name: coefficient for name, coefficient in coefficients.items() if coefficient}


def scale_of(settings: Settings) -> float:
    """The factor of the summed deltas: lambda, over the sum of the coefficients where `normalize` is on and they do not
    cancel out. A method without these parameters has 1."""
    total = sum(settings.coefficients.values())
    divisor = total if settings.values.get("normalize") and abs(total) >= 1e-8 else 1.0
    return float(settings.values.get("lambda", 1.0) / divisor)


def add_deltas(chunk: Chunk, start: np.ndarray, coefficients: Mapping[str, float]) -> np.ndarray:
    """start + sum over i of w_i (theta_i - start), of one model or more. start: one of the chunk's stored vectors."""
    from vlsurgery.surgery.methods import kernels

    result = chunk.buffer(next(iter(coefficients)))
    models = tuple(chunk.stored_models[name] for name in coefficients)
    kernels.interpolate(start, models, np.fromiter(coefficients.values(), result.dtype), result)
    return result
