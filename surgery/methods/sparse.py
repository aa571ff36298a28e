"""Moves away from a base, thinned out before they are added: by magnitude, at random, or both."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from vlsurgery.surgery.errors import RecipeError
from vlsurgery.surgery.methods.magnitude_threshold import Cut, Wanted, between, cut
from vlsurgery.surgery.methods.method import Chunk, Settings, Stream
from vlsurgery.surgery.methods.random_masks import STEPS
from vlsurgery.surgery.methods.weighted import active, divisor

# Puts a model's move, thinned out, into its room; gives what it is to be multiplied by.
Thin = Callable[[Chunk, Settings, Any, str], float]
Combine = Callable[[Chunk, Settings, Any], np.ndarray]


def by_sum(thin: Thin) -> Combine:
    """theta = base + lambda sum w_i thin(theta_i - base)."""

    def combine(chunk: Chunk, settings: Settings, state: Any) -> np.ndarray:
        from vlsurgery.surgery.methods import kernels

        moves = list(_thinned(chunk, settings, state, thin))
        if not moves:
            return chunk.origin
        parts, scale = tuple(move.delta for move in moves), settings["lambda"] / divisor(settings)
        shares = np.array([move.share * scale for move in moves], parts[0].dtype)
        kernels.added(chunk.base, parts, shares, parts[0])
        return parts[0]

    return combine


def by_sign(thin: Thin) -> Combine:
    """TIES' consensus (Yadav et al. 2023, "TIES-merging", arXiv 2306.01708): entry by entry the sign of the weighted
    sum of all thinned deltas is elected, 0 counting as plus, and the deltas of that sign alone are added; with
    `normalize` they are averaged, each by its weight."""

    def combine(chunk: Chunk, settings: Settings, state: Any) -> np.ndarray:
        from vlsurgery.surgery.methods import kernels

        moves = list(_thinned(chunk, settings, state, thin))
        if not moves:
            return chunk.origin
        parts = tuple(move.delta for move in moves)
        shares, weights = (
            np.array(each, parts[0].dtype) for each in ([move.share for move in moves], [move.weight for move in moves])
        )
        strength = parts[0].dtype.type(settings["lambda"])
        kernels.agreed(chunk.base, parts, shares, weights, strength, settings["normalize"], parts[0])
        return parts[0]

    return combine


class _Move(NamedTuple):
    """A thinned delta, in memory of its own; its model's weight, and that times what makes up for the thinning, by
    which the delta is to be multiplied."""

    delta: np.ndarray
    weight: float
    share: float


def _thinned(chunk: Chunk, settings: Settings, state: Any, thin: Thin) -> Iterator[_Move]:
    """The move of every model that has a weight."""
    for name, weight in active(settings.coefficients).items():
        gain = thin(chunk, settings, state, name)
        yield _Move(chunk.room(name), weight, weight * gain)


def by_magnitude(stream: Stream, settings: Settings) -> dict[str, Cut]:
    """Where each model's delta is cut so that the share `density` of its largest entries is left."""
    densities = {name: settings["density"][name] for name in active(settings.coefficients)}
    wanted = {
        name: Wanted(name, max(1, int(density * stream.numel)), largest=True)
        for name, density in densities.items()
        if 0 < density < 1
    }
    return dict(zip(wanted, cut(stream, list(wanted.values())), strict=True)) if wanted else {}


def trim(chunk: Chunk, settings: Settings, state: Mapping[str, Cut], name: str) -> float:
    """The largest entries of a delta: exactly the share `density` of the site's, of equal ones the first."""
    if name in state:
        between(chunk, name, low=state[name], first=True)
    else:
        _all_or_nothing(chunk, name, settings["density"][name])
    return 1.0


def without_outliers(stream: Stream, settings: Settings) -> dict[str, tuple[Cut | None, Cut | None]]:
    """The cuts below and above the entries that are kept: the smallest go, and the share `gamma` of the largest, as
    far as the share `density` is left. None where nothing is cut off; a model of which nothing is kept is left out."""
    wanted: dict[tuple[str, bool], Wanted] = {}
    kept = {name: int(settings["density"][name] * stream.numel) for name in active(settings.coefficients)}
    for name, count in kept.items():
        below = max(0, stream.numel - count - int(settings["gamma"][name] * stream.numel))
        for top, end in ((False, below), (True, below + count)):
            if count and 0 < end < stream.numel:
                wanted[name, top] = Wanted(name, end, largest=False)
    cuts = dict(zip(wanted, cut(stream, list(wanted.values())), strict=True)) if wanted else {}
    return {name: (cuts.get((name, False)), cuts.get((name, True))) for name, count in kept.items() if count}


def band(chunk: Chunk, settings: Settings, state: Mapping[str, tuple[Cut | None, Cut | None]], name: str) -> float:
    """The entries of middling size (Davari and Belilovsky 2024, "Model breadcrumbs", arXiv 2312.06795)."""
    density = settings["density"][name]
    if density < 1 and name in state:
        low, high = state[name]
        between(chunk, name, low=low, high=high)
    else:
        _all_or_nothing(chunk, name, density)
    return 1.0


def _all_or_nothing(chunk: Chunk, name: str, density: float) -> None:
    """A whole move where the density is 1, nothing of it otherwise; NaN stays."""
    move = chunk.move(name)
    move *= float(density >= 1)


def drop(chunk: Chunk, settings: Settings, state: Any, name: str) -> float:  # noqa: ARG001
    """DARE: thinned at random, by the model's own density."""
    return thin_at_random(chunk, name, settings["density"][name], settings["rescale"])


def thin_at_random(chunk: Chunk, name: str, density: float, rescale: bool) -> float:
    """DARE's thinning (Yu et al. 2024, "Language models are Super Mario", arXiv 2311.03099): each entry is kept with
    probability `density`; with `rescale` what is kept grows by 1/density, so that the expected delta is the whole one.
    """
    from vlsurgery.surgery.methods import kernels

    steps = round(density * STEPS)
    if steps in (0, STEPS):
        _all_or_nothing(chunk, name, density)
        return 1.0
    kernels.kept(chunk.base, chunk.vectors[name], chunk.kept(name, steps), chunk.room(name))
    return STEPS / steps if rescale else 1.0


def magprune(chunk: Chunk, settings: Settings, state: Any, name: str) -> float:  # noqa: ARG001
    """DELLA's MagPrune (Deep et al. 2024, arXiv 2406.11617): within a row, the chance to be kept rises with the rank of
    the magnitude from density - epsilon to density + epsilon; with `rescale` what is kept grows by 1 over its chance.

    Magnitudes are ranked by their first eight binary digits: entries that share them share the mean of their ranks.
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
    chance, spread = (density - epsilon) * STEPS, 2 * epsilon * STEPS / max(1, width - 1)
    drawn, rescale = chunk.chance(name), settings["rescale"]
    kernels.pruned(chunk.base, chunk.vectors[name], width, drawn, chance, spread, rescale, chunk.room(name))
    return 1.0
