"""Deltas that are sparsified before they are summed: by magnitude, at random, or both."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from vlsurgery.surgery.errors import RecipeError
from vlsurgery.surgery.methods.magnitude_threshold import Band, Extremes, find_thresholds, keep_band
from vlsurgery.surgery.methods.method import Chunk, Settings, Stream
from vlsurgery.surgery.methods.random_masks import PROBABILITY_STEPS, keep_mask, key_of, uniform_int16
from vlsurgery.surgery.methods.weighted import active, scale_of

# Puts a model's sparsified delta into its buffer and returns the factor that makes up for what was dropped.
Sparsify = Callable[[Chunk, Settings, Any, str], float]
Combine = Callable[[Chunk, Settings, Any], np.ndarray]


def sum_deltas(sparsify: Sparsify) -> Combine:
    """theta = base + lambda sum w_i sparsify(theta_i - base). w_i: the coefficients."""

    def combine(chunk: Chunk, settings: Settings, state: Any) -> np.ndarray:
        from vlsurgery.surgery.methods import kernels

        deltas, _, rescaled = _sparsified(chunk, settings, state, sparsify)
        if not deltas:
            return chunk.origin
        out = deltas[0]
        kernels.add_deltas(chunk.stored_base, deltas, (rescaled * scale_of(settings)).astype(out.dtype), out)
        return out

    return combine


def elect_sign(sparsify: Sparsify) -> Combine:
    """TIES' consensus (Yadav et al. 2023, "TIES-merging", arXiv 2306.01708): per entry, the sign of the weighted sum of
    all sparsified deltas is elected, 0 counting as plus, and only the deltas of that sign are summed; with `normalize`
    they are averaged by their coefficients."""

    def combine(chunk: Chunk, settings: Settings, state: Any) -> np.ndarray:
        from vlsurgery.surgery.methods import kernels

        deltas, *factors = _sparsified(chunk, settings, state, sparsify)
        if not deltas:
            return chunk.origin
        out = deltas[0]
        coefficients, rescaled = (each.astype(out.dtype) for each in factors)
        scale = out.dtype.type(settings["lambda"])
        kernels.disjoint_merge(chunk.stored_base, deltas, rescaled, coefficients, scale, settings["normalize"], out)
        return out

    return combine


def _sparsified(
    chunk: Chunk, settings: Settings, state: Any, sparsify: Sparsify
) -> tuple[tuple[np.ndarray, ...], np.ndarray, np.ndarray]:
    """The sparsified deltas of the models whose coefficient is not 0, in their buffers; these coefficients; and the
    coefficients times the factors that make up for what was dropped."""
    used = active(settings.coefficients)
    factors = [sparsify(chunk, settings, state, name) for name in used]
    coefficients = np.array(list(used.values()))
    return tuple(chunk.buffer(name) for name in used), coefficients, coefficients * factors


def trim_thresholds(stream: Stream, settings: Settings) -> dict[str, Band]:
    """The band from the threshold above which the fraction `density` of each model's delta lies."""
    wanted = {
        name: Extremes(name, max(1, int(settings["density"][name] * stream.numel)), largest=True)
        for name in active(settings.coefficients)
        if 0 < settings["density"][name] < 1
    }
    return {name: (threshold, None) for name, threshold in find_thresholds(stream, wanted).items()}


def trim(chunk: Chunk, settings: Settings, state: Mapping[str, Band], name: str) -> float:
    """Keep the largest entries of a delta: exactly the fraction `density` of the site's, of equal ones the first."""
    return magnitude_band(chunk, settings, state, name, first=True)


def band_thresholds(stream: Stream, settings: Settings) -> dict[str, Band]:
    """The thresholds below and above the entries that are kept: the fraction `gamma` of the largest is dropped, and the
    smallest until the fraction `density` is left. None where nothing is dropped on that side; a model of which nothing
    is kept is left out."""
    wanted: dict[tuple[str, bool], Extremes] = {}
    kept = {name: int(settings["density"][name] * stream.numel) for name in active(settings.coefficients)}
    for name, count in kept.items():
        below = max(0, stream.numel - count - int(settings["gamma"][name] * stream.numel))
        for top, end in ((False, below), (True, below + count)):
            if count and 0 < end < stream.numel:
                wanted[name, top] = Extremes(name, end, largest=False)
    found = find_thresholds(stream, wanted)
    return {name: (found.get((name, False)), found.get((name, True))) for name, count in kept.items() if count}


def magnitude_band(
    chunk: Chunk, settings: Settings, state: Mapping[str, Band], name: str, first: bool = False
) -> float:
    """Keep the entries of middle magnitude (Davari and Belilovsky 2024, "Model breadcrumbs", arXiv 2312.06795)."""
    density = settings["density"][name]
    if density < 1 and name in state:
        keep_band(chunk, name, state[name], first)
    else:
        _all_or_nothing(chunk, name, density)
    return 1.0


def _all_or_nothing(chunk: Chunk, name: str, density: float) -> None:
    """Keep the whole delta where the density is 1, and nothing otherwise; NaN stays."""
    delta = chunk.delta(name)
    delta *= float(density >= 1)


def random_prune(chunk: Chunk, settings: Settings, state: Any, name: str) -> float:  # noqa: ARG001
    """DARE, with the model's own density."""
    return prune_at_random(chunk, name, settings["density"][name], settings["rescale"])


def prune_at_random(chunk: Chunk, name: str, density: float, rescale: bool) -> float:
    """DARE (Yu et al. 2024, "Language models are Super Mario", arXiv 2311.03099): keep each entry with probability
    `density`; with `rescale` the factor is 1/density, so that the expected delta is the whole one."""
    from vlsurgery.surgery.methods import kernels

    steps = round(density * PROBABILITY_STEPS)
    if steps in (0, PROBABILITY_STEPS):
        _all_or_nothing(chunk, name, density)
        return 1.0
    mask = keep_mask(key_of(chunk.seed, chunk.site, name), chunk.start, len(chunk), steps)
    kernels.masked_delta(chunk.stored_base, chunk.stored_models[name], mask, chunk.buffer(name))
    return PROBABILITY_STEPS / steps if rescale else 1.0


def magprune(chunk: Chunk, settings: Settings, state: Any, name: str) -> float:  # noqa: ARG001
    """DELLA's MagPrune (Deep et al. 2024, arXiv 2406.11617): within a row, the keep probability rises with the rank of
    the magnitude from density - epsilon to density + epsilon; with `rescale` each kept entry is divided by its own.

    Magnitudes are ranked by exponent and the first seven binary digits behind the point: entries that share these share
    the mean of their ranks.
    """
    from vlsurgery.surgery.methods import kernels

    density, epsilon = settings["density"][name], settings["epsilon"][name]
    if density <= 0 or density >= 1:
        _all_or_nothing(chunk, name, density)
        return 1.0
    if not epsilon <= density <= 1 - epsilon:
        raise RecipeError(
            f"density {density:g} and epsilon {epsilon:g}: chances from {density - epsilon:g} to "
            f"{density + epsilon:g}, which must lie between 0 and 1. Lower epsilon."
        )
    width = min(chunk.width, len(chunk))
    least, step = (density - epsilon) * PROBABILITY_STEPS, 2 * epsilon * PROBABILITY_STEPS / max(1, width - 1)
    drawn, out = uniform_int16(key_of(chunk.seed, chunk.site, name), chunk.start, len(chunk)), chunk.buffer(name)
    kernels.magprune(chunk.stored_base, chunk.stored_models[name], width, drawn, least, step, settings["rescale"], out)
    return 1.0
