"""Weighted sums: of models, and of moves away from a base."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from vlsurgery.surgery.methods.method import Chunk, Settings


def linear(chunk: Chunk, settings: Settings, state: Any) -> np.ndarray:  # noqa: ARG001
    """The weighted mean of the models: theta = sum w_i theta_i / sum w_i, or without the division where `normalize` is
    off (Wortsman et al. 2022, "Model soups", arXiv 2203.05482).

    A mean is taken as the first model's tensor and moves away from it, so that equal tensors stay what they are.
    """
    from vlsurgery.surgery.methods import kernels

    weights = active(settings.coefficients)
    total = sum(weights.values()) if settings["normalize"] else 1.0
    shares = {name: weight / total for name, weight in weights.items()}
    first, *others = shares
    if not settings["normalize"]:
        result = chunk.room(first)
        kernels.summed(
            tuple(chunk.vectors[name] for name in shares), np.fromiter(shares.values(), result.dtype), result
        )
        return result
    if not others:
        return chunk.models[first]
    return sum_of_moves(chunk, chunk.vectors[first], {name: shares[name] for name in others})


def blend(chunk: Chunk, settings: Settings, state: Any) -> np.ndarray:  # noqa: ARG001
    """Move a tensor toward others, each by its own share: theta = adapted + sum over r of c_r (theta_r - adapted).

    With base alone this is linear interpolation; c_base = c_safety = 1 adds both whole moves. All c = 0 give `adapted`
    itself, and one c = 1 alone the other tensor itself, not a rounding of it.
    """
    return moved(chunk, active(settings.coefficients), 1.0)


def task_arithmetic(chunk: Chunk, settings: Settings, state: Any) -> np.ndarray:  # noqa: ARG001
    """theta = base + lambda sum w_i (theta_i - base), over sum w_i where `normalize` is on (Ilharco et al. 2023,
    "Editing models with task arithmetic", arXiv 2212.04089)."""
    weights = active(settings.coefficients)
    return moved(chunk, weights, settings["lambda"] / divisor(settings))


def active(weights: Mapping[str, float]) -> dict[str, float]:
    """The weights that are not 0."""
    return {name: weight for name, weight in weights.items() if weight}


def divisor(settings: Settings) -> float:
    """What weighted moves are divided by: the sum of weights where they are normalised and don't cancel, else 1."""
    total = sum(settings.coefficients.values())
    return total if settings["normalize"] and abs(total) >= 1e-8 else 1.0


def moved(chunk: Chunk, weights: Mapping[str, float], scale: float) -> np.ndarray:
    """The base, moved toward each model by its weight times `scale`; a model itself where the move is the whole way."""
    if not weights:
        return chunk.origin
    shares = {name: weight * scale for name, weight in weights.items()}
    first, *others = shares
    if not others and shares[first] == 1:
        return chunk.models[first]
    return sum_of_moves(chunk, chunk.base, shares)


def sum_of_moves(chunk: Chunk, start: np.ndarray, shares: Mapping[str, float]) -> np.ndarray:
    """start + sum over i of shares[i] (theta_i - start); there is one share or more. start: of the block's vectors."""
    from vlsurgery.surgery.methods import kernels

    result = chunk.room(next(iter(shares)))
    models = tuple(chunk.vectors[name] for name in shares)
    kernels.moved(start, models, np.fromiter(shares.values(), result.dtype), result)
    return result
