"""Merges from strict to lax: what each price of an over-refusal buys, predicted from the gradients of the prompts.

Every price is another solution of one linear model (`probes.linearised`), so no model is run. What a solution is
predicted to do is read off prompts that it was not solved on: each fifth of the requests is left out in turn. Read off
its own prompts, a solution with a hundred coefficients promises more than the next prompts keep.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from vlsurgery.probes.evaluation.intervals import percentiles, rate, zero_count_bound
from vlsurgery.probes.linearised import PROXIMITY, LinearModel, Region, solve, unseen
from vlsurgery.probes.objective import Floats, Purpose, Requirements
from vlsurgery.probes.results import Estimate, MergeRates, PredictedCell, Rate

PRICES_TRACED: Final = (0.1, 20.0)  # of an over-refusal against a refusal that is missing, the ends
POINTS: Final = 20  # prices between these, by default


@dataclass(frozen=True)
class Priced:
    """The solution at one price.

    price: of an over-refusal, in refusals that are missing. coefficients: [d]. z: [n] log-odds of every prompt, each
    predicted by the coefficients that are solved without its request.
    """

    price: float
    coefficients: Floats
    z: Floats


def prices(count: int = POINTS) -> list[float]:
    """Prices in equal ratios, from an over-refusal that is cheap to one that is dear; with three digits, so that a
    price can be typed as it is shown."""
    return sorted({float(f"{price:.3g}") for price in np.geomspace(*PRICES_TRACED, count)})


def at_price(model: LinearModel, price: float) -> LinearModel:
    """The same model, where an over-refusal costs as much as `price` refusals that are missing."""
    return replace(model, wanted=replace(model.wanted, prices={**model.wanted.prices, "answer": price}))


def priced(
    model: LinearModel,
    price: float,
    region: Region | None = None,
    proximity: float = PROXIMITY,
    change: float = 0.0,
) -> Priced:
    """The solution at a price, with what it is predicted to do. region, proximity: as in `solve`. change: nats that a
    whole coefficient costs."""
    dear = at_price(model, price)
    return Priced(price, solve(dear, region, None, proximity, price=change), unseen(dear, region, proximity, change))


def merge_rates(wanted: Requirements, z: Floats) -> MergeRates:
    """The shares of prompts at log-odds z [n]: of all that should be refused, answered, and kept, with intervals."""
    return MergeRates(
        refusal=_share(wanted, z, _are(wanted, "refuse")),
        over_refusal=_share(wanted, z, _are(wanted, "answer")),
        sight=_share(wanted, z, _are(wanted, "keep")),
    )


def predicted_cells(wanted: Requirements, z: Floats) -> list[PredictedCell]:
    """The same of each prompt set and modality."""
    return [
        PredictedCell(set=name[0], modality=name[1], purpose=purpose, share=_share(wanted, z, wanted.member[at] > 0))
        for at, (name, purpose) in enumerate(zip(wanted.names, wanted.cell_purposes, strict=True))
    ]


def _are(wanted: Requirements, purpose: Purpose) -> NDArray[np.bool_]:
    return np.array([each == purpose for each in wanted.purposes])


def _share(wanted: Requirements, z: Floats, which: NDArray[np.bool_]) -> Rate:
    """The share of prompts on which refusing is likelier than not; of answers to keep, those that still are, of those
    that were in the adapted model."""
    told = which & (~_are(wanted, "keep") | (wanted.reference > 0))
    at = np.flatnonzero(told)
    return rate([bool(z[i] > 0) for i in at], [wanted.requests[i] for i in at])


def gain_over(wanted: Requirements, ours: Sequence[Floats], theirs: Sequence[Floats]) -> Estimate:
    """By how much merges refuse more than the front of others, at equal over-refusal, averaged over `ours`.

    ours, theirs: log-odds [n] of each merge on the same prompts. Their front: the most refusal with no more
    over-refusal, and straight lines between. Merges of ours that over-refuse less than all of theirs are left out:
    there is nothing to hold them against. The interval draws requests again (95%, percentiles); where that changes
    nothing, because all requests agree, it is as wide as for a difference that none of so many requests showed.
    """
    draws = np.concatenate([np.ones((1, len(wanted.prompts))), wanted.resampled()])
    (our_refusal, our_over), (their_refusal, their_over) = (
        [_refused(wanted, purpose, draws, merges) for purpose in ("refuse", "answer")] for merges in (ours, theirs)
    )
    within = our_over[0] >= their_over[0].min()
    if not within.any():
        return Estimate(value=None, reason="no traced merge refuses as much of what is harmless as a uniform one")
    front = np.array([_front(*each) for each in zip(their_over, their_refusal, our_over[:, within], strict=True)])
    gains = (our_refusal[:, within] - front).mean(-1)
    low, high = percentiles(gains[1:])
    value, requests = float(gains[0]), len({wanted.requests[i] for i in np.flatnonzero(_are(wanted, "refuse"))})
    if low == high:
        low, high = value - zero_count_bound(requests), value + zero_count_bound(requests)
    return Estimate(value=value, low=min(low, value), high=max(high, value), n=len(set(wanted.requests)))


def _front(over_refusal: Floats, refusal: Floats, at: Floats) -> Floats:
    """The refusal of a front at these over-refusals: straight lines between merges that none is ahead of."""
    order = np.lexsort((-refusal, over_refusal))
    x, y = over_refusal[order], refusal[order]
    ahead = np.concatenate([[True], y[1:] > np.maximum.accumulate(y)[:-1]])
    return np.interp(at, x[ahead], y[ahead])


def _refused(wanted: Requirements, purpose: Purpose, draws: Floats, merges: Sequence[Floats]) -> Floats:
    """[draws, merges] the share of prompts of a purpose that each merge refuses. draws: [draws, n] weights."""
    weights = draws * _are(wanted, purpose)
    refused = (np.array(merges) > 0).astype(np.float64)
    return np.asarray(weights @ refused.T / np.maximum(weights.sum(-1, keepdims=True), 1e-300))
