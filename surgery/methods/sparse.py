"""Moves away from a base, thinned out before they are added: by magnitude, at random, or both."""

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from surgery.errors import RecipeError
from surgery.methods.chance import HIGHEST, LOWEST, STEPS
from surgery.methods.method import Block, Settings, Stream
from surgery.methods.ranks import Cut, Wanted, above, cut
from surgery.methods.weighted import active, divisor

if TYPE_CHECKING:
    from torch import Tensor

# How far below the largest entry of a row magnitudes are told apart, and how many values they then have.
OCTAVES: Final = 16
DIGITS: Final = OCTAVES * 128

# Rows whose ranks are worked out at a time: each takes a table of `DIGITS` places.
ROWS: Final = 1 << 10

# Sets entries of a model's delta to 0, in the delta's own memory or in new one; gives what is left, and what it is to
# be multiplied by.
Thin = Callable[[Block, Settings, Any, str, "Tensor"], tuple["Tensor", float]]
Combine = Callable[[Block, Settings, Any], "Tensor"]


def by_sum(thin: Thin) -> Combine:
    """theta = base + lambda sum w_i thin(theta_i - base)."""

    def combine(block: Block, settings: Settings, facts: Any) -> "Tensor":
        import torch

        result = block.origin
        scale = settings["lambda"] / divisor(settings)
        for move in _thinned(block, settings, facts, thin):
            result = torch.add(result, move.delta, alpha=move.share * scale, out=move.delta)
        return result

    return combine


def by_sign(thin: Thin) -> Combine:
    """TIES' consensus (Yadav et al. 2023, "TIES-merging", arXiv 2306.01708): entry by entry the sign of the weighted
    sum of all thinned deltas is elected, 0 counting as plus, and the deltas of that sign alone are added; with
    `normalize` they are averaged, each by its weight."""

    def combine(block: Block, settings: Settings, facts: Any) -> "Tensor":
        from surgery.methods import kernels

        moves = list(_thinned(block, settings, facts, thin))
        if not moves:
            return block.origin
        result = moves[0].delta
        parts = tuple(move.delta.numpy() for move in moves)
        shares, weights = (
            np.array(each, parts[0].dtype) for each in ([move.share for move in moves], [move.weight for move in moves])
        )
        strength = parts[0].dtype.type(settings["lambda"])
        kernels.agreed(block.base, parts, shares, weights, strength, settings["normalize"], parts[0])
        return result

    return combine


class _Move(NamedTuple):
    """A thinned delta, in memory of its own; its model's weight, and that times what makes up for the thinning, by
    which the delta is to be multiplied."""

    delta: "Tensor"
    weight: float
    share: float


def _thinned(block: Block, settings: Settings, facts: Any, thin: Thin) -> Iterator[_Move]:
    """The move of every model that has a weight."""
    weights = active(settings.weights)
    for name, delta in block.deltas():
        if name in weights:
            left, gain = thin(block, settings, facts, name, delta)
            yield _Move(left, weights[name], weights[name] * gain)


def by_magnitude(stream: Stream, settings: Settings) -> dict[str, Cut]:
    """Where each model's delta is cut so that the share `density` of its largest entries is left."""
    densities = {name: settings["density"][name] for name in active(settings.weights)}
    wanted = {
        name: Wanted(name, max(1, int(density * stream.numel)), largest=True)
        for name, density in densities.items()
        if 0 < density < 1
    }
    return dict(zip(wanted, cut(stream, list(wanted.values())), strict=True)) if wanted else {}


def trim(
    block: Block, settings: Settings, facts: Mapping[str, Cut], name: str, delta: "Tensor"
) -> tuple["Tensor", float]:
    """The largest entries of a delta: exactly the share `density` of the site's, of equal ones the first."""
    density = settings["density"][name]
    if density <= 0:
        return delta.zero_(), 1.0
    return (above(delta, block.start, facts[name], first=True) if name in facts else delta), 1.0


def without_outliers(stream: Stream, settings: Settings) -> dict[str, tuple[Cut | None, Cut | None]]:
    """The cuts below and above the entries that are kept: the smallest go, and the share `gamma` of the largest, as
    far as the share `density` is left. None where nothing is cut off; a model of which nothing is kept is left out."""
    wanted: dict[tuple[str, bool], Wanted] = {}
    kept = {name: int(settings["density"][name] * stream.numel) for name in active(settings.weights)}
    for name, count in kept.items():
        below = max(0, stream.numel - count - int(settings["gamma"][name] * stream.numel))
        for top, end in ((False, below), (True, below + count)):
            if count and 0 < end < stream.numel:
                wanted[name, top] = Wanted(name, end, largest=False)
    cuts = dict(zip(wanted, cut(stream, list(wanted.values())), strict=True)) if wanted else {}
    return {name: (cuts.get((name, False)), cuts.get((name, True))) for name, count in kept.items() if count}


def band(
    block: Block, settings: Settings, facts: Mapping[str, tuple[Cut | None, Cut | None]], name: str, delta: "Tensor"
) -> tuple["Tensor", float]:
    """The entries of middling size (Davari and Belilovsky 2024, "Model breadcrumbs", arXiv 2312.06795)."""
    if settings["density"][name] >= 1:
        return delta, 1.0
    if name not in facts:
        return delta.zero_(), 1.0
    low, high = facts[name]
    kept = delta if low is None else above(delta, block.start, low, first=False)
    return (kept if high is None else kept - above(delta, block.start, high, first=False)), 1.0


def drop(
    block: Block,
    settings: Settings,
    facts: Any,  # noqa: ARG001
    name: str,
    delta: "Tensor",
) -> tuple["Tensor", float]:
    """DARE: thinned at random, by the model's own density."""
    return thin_at_random(block, name, delta, settings["density"][name], settings["rescale"])


def thin_at_random(block: Block, name: str, delta: "Tensor", density: float, rescale: bool) -> tuple["Tensor", float]:
    """DARE's thinning (Yu et al. 2024, "Language models are Super Mario", arXiv 2311.03099): each entry is kept with
    probability `density`; with `rescale` what is kept grows by 1/density, so that the expected delta is the whole one.
    """
    steps = round(density * STEPS)
    if steps in (0, STEPS):
        return delta.mul_(steps // STEPS), 1.0
    _mask(delta, block.kept(name, steps))
    return delta, STEPS / steps if rescale else 1.0


def magprune(
    block: Block,
    settings: Settings,
    facts: Any,  # noqa: ARG001
    name: str,
    delta: "Tensor",
) -> tuple["Tensor", float]:
    """DELLA's MagPrune (Deep et al. 2024, arXiv 2406.11617): within a row, the chance to be kept rises with the rank of
    the magnitude from density - epsilon to density + epsilon; with `rescale` what is kept grows by 1 over its chance.

    Magnitudes are ranked by their first eight binary digits: entries that share them share the mean of their ranks.
    """
    import torch

    density, epsilon = settings["density"][name], settings["epsilon"][name]
    if density <= 0 or density >= 1:
        return delta.mul_(float(density >= 1)), 1.0
    if not epsilon <= density <= 1 - epsilon:
        raise RecipeError(
            f"density {density:g} and epsilon {epsilon:g}: chances from {density - epsilon:g} to "
            f"{density + epsilon:g}, which must lie between 0 and 1. Lower epsilon."
        )
    # Chances in steps, less what the numbers that are drawn begin at, so that both are of 16 bits. None is 0, by which
    # what is kept would have to be divided.
    bounds = torch.empty(len(delta), dtype=torch.int16)
    width = min(block.width, len(delta))
    rows = delta.float().abs().view(-1, width)
    for first in range(0, len(rows), ROWS):
        places, twice = _ranks(rows[first : first + ROWS])
        steps = twice.to(torch.float32).mul_(epsilon * STEPS / max(1, width - 1))
        steps.add_((density - epsilon) * STEPS + LOWEST).round_().clamp_(LOWEST + 1, HIGHEST)
        bounds[first * width : (first + ROWS) * width] = steps.to(torch.int16).index_select(0, places)
    _mask(delta, block.chance(name) < bounds.numpy())
    if not settings["rescale"]:
        return delta, 1.0
    return delta.div_(bounds.to(torch.float32).sub_(LOWEST)), float(STEPS)


def _mask(delta: "Tensor", kept: np.ndarray) -> None:
    """Set what is not kept to 0. numpy multiplies by truth values twice as fast as torch does."""
    numbers = delta.numpy()
    np.multiply(numbers, kept, out=numbers)


def _ranks(rows: "Tensor") -> "tuple[Tensor, Tensor]":
    """For each entry the place in a table, and the table: twice the ranks within a row, from 0 to 2 (width - 1).

    rows: magnitudes. The table has a stretch for each row, with a place for each value of exponent and first seven
    digits behind the point; what is smaller than the row's largest by more than `OCTAVES` is taken for 0.
    """
    import torch

    height = len(rows)
    digits = rows.view(torch.int32) >> 16
    begin = torch.arange(0, height * DIGITS, DIGITS, dtype=torch.int32)[:, None]
    digits += begin + (DIGITS - 1) - digits.amax(dim=1, keepdim=True)
    places = torch.maximum(digits, begin, out=digits).view(-1)
    counts = torch.bincount(places, minlength=height * DIGITS).to(torch.int32).view(height, DIGITS)
    # Of n equal entries with m below, the mean rank is m + (n - 1) / 2.
    twice = counts.cumsum(dim=1, dtype=torch.int32).mul_(2).sub_(counts).sub_(1)
    return places, twice.view(-1)
