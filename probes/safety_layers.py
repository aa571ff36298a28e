"""Safety layers: behind which layer a model begins to treat harmful requests otherwise than harmless ones.

Li et al., "Safety Layers in Aligned Large Language Models" (arXiv 2408.17003), section 3: the states of the last token
of two harmless requests are compared with those of a harmless and a harmful one. Where the angle between the latter
grows beyond that of the former, safety begins.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor
from torch.nn.functional import normalize

from vlsurgery.probes.evaluation.intervals import Floats, cluster_ids, resample


@dataclass(frozen=True)
class AngleGaps:
    """Behind each layer. same, across: mean cosines of two harmless prompts, and of a harmless and a harmful one.
    gap: mean angle of the latter less that of the former, in degrees; low, high: 95% bootstrap over requests."""

    same: Floats
    across: Floats
    gap: Floats
    low: Floats
    high: Floats


def angle_gaps(
    harmless: Tensor, harmful: Tensor, harmless_requests: Sequence[Hashable], harmful_requests: Sequence[Hashable]
) -> AngleGaps:
    """Cosines and angles of states [n, layers, hidden] and [m, layers, hidden] of the last token.

    Pairs are those of different requests: a request and its harmless twin share their words. Requests are resampled,
    a twin with its own.
    """
    clusters = cluster_ids([*harmless_requests, *harmful_requests])
    ours, theirs = clusters[: len(harmless)], clusters[len(harmless) :]
    weights = resample(int(clusters.max()) + 1)
    first, second = (normalize(states.double(), dim=-1).transpose(0, 1) for states in (harmless, harmful))
    cosines = [(first @ other.transpose(1, 2)).clamp(-1, 1).numpy() for other in (first, second)]
    angles = [np.degrees(np.arccos(each)) for each in cosines]
    apart = [ours[:, None] != other for other in (ours, theirs)]
    single = np.ones((1, len(harmless)))
    same, across = (
        _means(each, mask, single, np.ones((1, mask.shape[1])))[:, 0] for each, mask in zip(cosines, apart, strict=True)
    )
    gap = _gaps(angles, apart, single, np.ones((1, len(harmful))))[:, 0]
    drawn = _gaps(angles, apart, weights[:, ours], weights[:, theirs])
    low, high = np.nanquantile(drawn, (0.025, 0.975), axis=1)
    return AngleGaps(same, across, gap, low, high)


def _gaps(angles: Sequence[Floats], apart: Sequence[Floats], ours: Floats, theirs: Floats) -> Floats:
    """[layers, draws]."""
    return _means(angles[1], apart[1], ours, theirs) - _means(angles[0], apart[0], ours, ours)


def _means(values: Floats, apart: Floats, ours: Floats, theirs: Floats) -> Floats:
    """[layers, draws] means of values [layers, n, m] over pairs that are apart [n, m], weighted [draws, n], [draws, m].

    NaN where a draw has no pair.
    """
    pairs = np.einsum("dn,nm,dm->d", ours, apart.astype(np.float64), theirs)
    sums = np.einsum("dn,lnm,dm->ld", ours, values * apart, theirs, optimize=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        found: Floats = sums / pairs
    return found
