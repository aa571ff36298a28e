"""C3: whether the loss sits in some layers, against layers that changed as much and against chance.

What a layer brings back is measured on some requests and shown on others, so that picking the largest gives no
advantage.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlsurgery.probes.claims.evidence import averaged, decided, missing, together
from vlsurgery.probes.claims.findings import CaseFindings
from vlsurgery.probes.claims.wording import figures, told
from vlsurgery.probes.evaluation.intervals import percentiles
from vlsurgery.probes.evaluation.mean_intervals import request_means
from vlsurgery.probes.results import Claim, ClaimEvidence, LayersResult
from vlsurgery.surgery.results import DiffResult

Floats = NDArray[np.float64]
TOP = 0.25  # the share of layers that is looked for
MOST = 0.5  # and the share of the gain that they must carry for the loss to sit in some layers
AS_MUCH = 0.8  # a decoy changed at least so much, as a share of the mean change of the top layers
DRAWS = 400  # bootstrap draws, permutations, and divisions in halves
SHARE = "share of the gain in the top quarter of layers"
DECOYS = "top layers against decoys that changed as much"


def loss_sits_in_some_layers(cases: Sequence[CaseFindings]) -> Claim:
    """C3: the top quarter of layers carries more than half of what single layers of the base bring back, more than
    chance gives, and more than decoys do."""
    found = {case.name: concentration(case.layers, case.diff) for case in cases}
    share = averaged({name: each.share for name, each in found.items()}, smallest=0.0)
    decoys = averaged({name: each.decoys for name, each in found.items()}, smallest=0.0)
    said = f"The top quarter of layers carries {figures(share)} of what single layers bring back, where more than "
    said = told(f"{said}{share.bar:.2f} is asked; against decoys, {figures(decoys)}.", share)
    tops = [f"{name}: {', '.join(map(str, each.top))}" for name, each in found.items() if each.top]
    said += f" Top layers of {'; '.join(tops)}." if tops else ""
    evidence = [share, decoys]
    return Claim(
        key="C3",
        text="The loss sits in some layers, not in all",
        verdict=together(evidence),
        said=said,
        evidence=evidence,
    )


@dataclass(frozen=True)
class Concentration:
    """How much of the gain few layers carry. top: these layers, by all requests."""

    share: ClaimEvidence
    decoys: ClaimEvidence
    top: tuple[int, ...] = ()


def concentration(layers: LayersResult | None, diff: DiffResult | None, seed: int = 0) -> Concentration:
    """Both pieces of evidence of one case."""
    if layers is None or not layers.records:
        reason = (layers.reason if layers else None) or "single layers were not transplanted"
        return Concentration(missing(SHARE, reason), missing(DECOYS, reason))
    gains = _by_request(layers)
    numbers = [row.layer for row in layers.records]
    rng, count = np.random.default_rng(seed), gains.shape[1]
    whole = np.ones((DRAWS, count))
    drawn = _halved(gains[None], whole, rng)
    resampled = _halved(gains[None], rng.multinomial(count, whole[0] / count, size=DRAWS), rng)
    shuffled = _halved(rng.permuted(np.tile(gains, (DRAWS, 1, 1)), axis=1), whole, rng)
    of = {"requests": count, "prompts": len(layers.prompts)}
    share = ClaimEvidence(
        name=SHARE,
        unit="share",
        bar=max(MOST, float(np.quantile(shuffled.shares, 0.95))),
        verdict="can't tell",
        **_estimated(drawn.shares, resampled.shares),
        **of,
    )
    changes = _changes(diff, numbers)
    if changes is None:
        decoys = missing(DECOYS, "the weight change of the layers was not measured")
    else:
        decoys = _decoys(drawn.contrasts(changes), resampled.contrasts(changes), of)
    top = np.argsort(-gains.mean(1), kind="stable")[: top_count(len(gains))]
    return Concentration(decided(share, 0.0), decoys, tuple(sorted(numbers[at] for at in top)))


@dataclass(frozen=True)
class Halves:
    """Divisions of the requests in two halves.

    top: [draws, layers] whether a layer is among the top ones on the first half. gains: [draws, layers] mean gain on
    the second.
    """

    top: NDArray[np.bool_]
    gains: Floats

    @property
    def shares(self) -> Floats:
        """[draws] share of the positive gains that the top layers carry; 0 where there are none."""
        positive = self.gains.clip(min=0.0)
        whole = positive.sum(1)
        return np.divide((positive * self.top).sum(1), whole, out=np.zeros_like(whole), where=whole > 0)

    def contrasts(self, changes: Floats) -> Floats:
        """(a - b) / (|a| + |b|) of the mean gains of the top layers and of their decoys, where there are decoys.

        changes: [layers] relative weight change. A decoy is no top layer, and changed at least AS_MUCH.
        """
        top_change = (self.top * changes).sum(1) / self.top.sum(1)
        decoys = ~self.top & (changes >= AS_MUCH * top_change[:, None])
        have = decoys.any(1)
        one, other = ((self.gains[have] * side[have]).sum(1) / side[have].sum(1) for side in (self.top, decoys))
        sizes = np.abs(one) + np.abs(other)
        return np.divide(one - other, sizes, out=np.zeros_like(sizes), where=sizes > 0)


def top_count(layers: int) -> int:
    """How many layers are the top quarter."""
    return max(1, math.ceil(TOP * layers))


def _halved(gains: Floats, weights: NDArray[Any], rng: np.random.Generator) -> Halves:
    """One division a row of weights [draws, requests], which say how often each request counts; its copies stay on its
    side. gains: [draws or 1, layers, requests]."""
    draws, count = weights.shape
    first = rng.permuted(np.tile(np.arange(count) < count // 2, (draws, 1)), axis=1)
    chosen_on, shown_on = (_means(gains, weights * side) for side in (first, ~first))
    order = np.argsort(-chosen_on, axis=1, kind="stable")[:, : top_count(chosen_on.shape[1])]
    top = np.zeros(chosen_on.shape, dtype=bool)
    np.put_along_axis(top, order, True, axis=1)
    return Halves(top, shown_on)


def _means(gains: Floats, weights: Floats) -> Floats:
    """[draws, layers] weighted mean over requests; 0 where no request counts."""
    sums: Floats = np.matmul(gains, weights[:, :, None])[:, :, 0]
    return sums / weights.sum(1).clip(min=1.0)[:, None]


def _estimated(drawn: Floats, resampled: Floats) -> dict[str, float]:
    """The mean over divisions, and the percentile interval of the resampled ones."""
    value, (low, high) = float(drawn.mean()), percentiles(resampled)
    return {"value": value, "low": min(low, value), "high": max(high, value)}


def _decoys(drawn: Floats, resampled: Floats, of: Mapping[str, int]) -> ClaimEvidence:
    """The contrast with decoys; none where most divisions had no decoy. of: requests and prompts."""
    if min(len(drawn), len(resampled)) < DRAWS / 2:
        return missing(DECOYS, "no other layer changed as much as the top layers did")
    numbers = _estimated(drawn, resampled)
    return decided(ClaimEvidence(name=DECOYS, unit="contrast", verdict="can't tell", **numbers, **of), 0.0)


def _by_request(layers: LayersResult) -> Floats:
    """[layers, requests] mean gain over the prompts of each request."""
    return request_means(np.array([row.gains for row in layers.records]).T, layers.requests).T


def _changes(diff: DiffResult | None, numbers: Sequence[int]) -> Floats | None:
    """The relative change of each layer from base to adapted; None where one is not known."""
    if diff is None:
        return None
    known = {
        layer.layer: layer.metrics.vl.relative
        for layer in diff.layers
        if layer.tower == "text" and layer.metrics.vl is not None
    }
    found = [known.get(number) for number in numbers]
    return None if any(each is None for each in found) else np.array(found, dtype=float)
