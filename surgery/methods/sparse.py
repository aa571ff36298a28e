"""Moves away from a base, thinned out before they are added: by magnitude, at random, or both."""

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from surgery.methods.chance import STEPS
from surgery.methods.method import Block, Settings, Stream
from surgery.methods.ranks import Cut, above, largest, smallest
from surgery.methods.weighted import active, divisor

if TYPE_CHECKING:
    from torch import Tensor

# Larger than 0 and smaller than any sum of weights that means something.
TINY: Final = 1e-30

# Gives a model's delta with some of its entries set to 0.
Thin = Callable[[Block, Settings, Any, str, "Tensor"], "Tensor"]
Combine = Callable[[Block, Settings, Any], "Tensor"]


def by_sum(thin: Thin) -> Combine:
    """theta = base + lambda sum w_i thin(theta_i - base)."""

    def combine(block: Block, settings: Settings, facts: Any) -> "Tensor":
        result = block.origin
        scale = settings["lambda"] / divisor(settings)
        for weight, delta in _thinned(block, settings, facts, thin):
            result = result.add(delta, alpha=weight * scale)
        return result

    return combine


def by_sign(thin: Thin) -> Combine:
    """TIES' consensus (Yadav et al. 2023, "TIES-merging", arXiv 2306.01708): entry by entry the sign of the weighted
    sum of all thinned deltas is elected, 0 counting as plus, and the deltas of that sign alone are added; with
    `normalize` they are averaged, each by its weight."""

    def combine(block: Block, settings: Settings, facts: Any) -> "Tensor":
        moves = [(weight, delta.mul_(weight)) for weight, delta in _thinned(block, settings, facts, thin)]
        if not moves:
            return block.origin
        up, down = block.origin.new_zeros(len(block.origin)), block.origin.new_zeros(len(block.origin))
        for _, move in moves:
            up += move.clamp(min=0)
            down += move.clamp(max=0)
        elected = up + down
        # The one of the two that has the elected sign: half of their sum and of their distance, signed by the election.
        agreed = (up - down).copysign_(elected).add_(elected).mul_(0.5)
        if settings["normalize"]:
            voted = elected.new_zeros(len(elected))
            side = elected.new_ones(len(elected)).copysign_(elected)
            for weight, move in moves:
                voted.add_(move.sign_().mul_(side).clamp_(min=0), alpha=weight)
            agreed /= voted.clamp_(min=TINY)
        return block.origin.add(agreed, alpha=settings["lambda"])

    return combine


def _thinned(block: Block, settings: Settings, facts: Any, thin: Thin) -> Iterator[tuple[float, "Tensor"]]:
    """Weight and thinned delta, in memory of its own, of every model that has a weight."""
    weights = active(settings.weights)
    for name, delta in block.deltas():
        if name in weights:
            yield weights[name], thin(block, settings, facts, name, delta)


def by_magnitude(stream: Stream, settings: Settings) -> dict[str, Cut]:
    """Where each model's delta is cut so that the share `density` of its largest entries is left."""
    counts = {}
    for name in active(settings.weights):
        density = settings["density"][name]
        if 0 < density < 1:
            counts[name] = max(1, int(density * stream.numel))
    return largest(stream, counts) if counts else {}


def trim(block: Block, settings: Settings, facts: Mapping[str, Cut], name: str, delta: "Tensor") -> "Tensor":
    """The largest entries of a delta: exactly the share `density` of the site's, of equal ones the first."""
    density = settings["density"][name]
    if density <= 0:
        return delta.new_zeros(len(delta))
    return above(delta, block.start, facts[name], first=True) if name in facts else delta


def without_outliers(stream: Stream, settings: Settings) -> dict[str, tuple[Cut | None, Cut | None]]:
    """The cuts below and above the entries that are kept: the smallest go, and the share `gamma` of the largest, as
    far as the share `density` is left. None where nothing is cut off."""
    low, kept = {}, {}
    for name in active(settings.weights):
        density = settings["density"][name]
        if density < 1:
            kept[name] = int(density * stream.numel)
            low[name] = max(0, stream.numel - kept[name] - int(settings["gamma"][name] * stream.numel))
    top = {name: low[name] + kept[name] for name in kept}
    below = smallest(stream, {name: count for name, count in low.items() if count})
    beyond = smallest(stream, {name: count for name, count in top.items() if 0 < count < stream.numel})
    return {name: (below.get(name), beyond.get(name)) for name in kept if kept[name]}


def band(
    block: Block, settings: Settings, facts: Mapping[str, tuple[Cut | None, Cut | None]], name: str, delta: "Tensor"
) -> "Tensor":
    """The entries of middling size (Davari and Belilovsky 2024, "Model breadcrumbs", arXiv 2312.06795)."""
    if settings["density"][name] >= 1:
        return delta
    if name not in facts:
        return delta.new_zeros(len(delta))
    low, high = facts[name]
    kept = delta if low is None else above(delta, block.start, low, first=False)
    return kept if high is None else kept - above(delta, block.start, high, first=False)


def drop(block: Block, settings: Settings, facts: Any, name: str, delta: "Tensor") -> "Tensor":  # noqa: ARG001
    """DARE (Yu et al. 2024, "Language models are Super Mario", arXiv 2311.03099): each entry is kept with probability
    `density`; with `rescale` what is kept grows by 1/density, so that the expected delta is the whole one."""
    density = settings["density"][name]
    if density >= 1:
        return delta
    steps = round(density * STEPS)
    if not steps:
        return delta.new_zeros(len(delta))
    import torch

    kept = torch.from_numpy(block.chance(name) < steps).to(delta.dtype)
    kept *= delta
    return kept.mul_(STEPS / steps) if settings["rescale"] else kept


def magprune(block: Block, settings: Settings, facts: Any, name: str, delta: "Tensor") -> "Tensor":  # noqa: ARG001
    """DELLA's MagPrune (Deep et al. 2024, arXiv 2406.11617): within a row, the chance to be kept rises with the rank of
    the magnitude from density - epsilon to density + epsilon; with `rescale` what is kept grows by 1 over its chance.

    Entries of one magnitude have one chance, that of the first of their ranks.
    """
    density, epsilon = settings["density"][name], settings["epsilon"][name]
    if density >= 1:
        return delta
    if density <= 0:
        return delta.new_zeros(len(delta))
    rows = delta.abs().view(-1, min(block.width, len(delta))).numpy()
    steps = np.rint((density - epsilon + 2 * epsilon * _ranks(rows)) * STEPS).reshape(-1)
    import torch

    kept = torch.from_numpy(np.where(block.chance(name) < steps, STEPS / steps if settings["rescale"] else 1.0, 0.0))
    return kept.to(delta.dtype).mul_(delta)


def _ranks(rows: np.ndarray) -> np.ndarray:
    """The rank of each entry within its row as a share, 0 for the smallest and 1 for the largest."""
    width = rows.shape[1]
    order = np.argsort(rows, axis=1)
    rising = np.take_along_axis(rows, order, axis=1)
    places = np.zeros(rows.shape, dtype=np.int32)
    places[:, 1:] = np.where(rising[:, 1:] > rising[:, :-1], np.arange(1, width, dtype=np.int32), 0)
    np.maximum.accumulate(places, axis=1, out=places)
    shares = (places / max(1, width - 1)).astype(np.float32)
    ranks = np.empty_like(shares)
    np.put_along_axis(ranks, order, shares, axis=1)
    return ranks
