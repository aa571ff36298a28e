"""Whether a block brings refusals back where they were lost, more than elsewhere: a null by permuted prompts.

Every block has a gain for each request whose refusal was lost, and for control requests, which the adapted model should
go on answering. If a block's weights did nothing to lost refusals that they don't do to other answers, its gains on
both would be draws of one distribution, and which requests are called lost would be exchangeable: any choice of as many
requests would be as likely. So the labels "lost" and "control" are shuffled among requests, and the largest statistic
of all blocks is noted each time (Westfall and Young 1993, maxT): a block passes where its own is larger than 95% of
these maxima, whatever the number of blocks and however they hang together.

The statistic is Welch's t of the two means, so that blocks whose gains vary much do not drown the others. It is
one-sided: a block passes for refusals that it brings back. Requests are shuffled whole, whatever number of prompts they
have. Controls have pictures as often as the lost prompts do, since a picture moves gains too.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from vlsurgery.probes.evaluation.mean_intervals import request_means
from vlsurgery.probes.results import AttributionNull, BlockNull

Floats = NDArray[np.float64]
DRAWS: Final = 2000
MIN_REQUESTS: Final = 4  # on either side; fewer have too few orders to shuffle


def permutation_null(
    blocks: Sequence[str], lost: Floats, lost_requests: Sequence[str], controls: Floats, control_requests: Sequence[str]
) -> AttributionNull:
    """Each block's difference of gains, lost less control, and its p-value for the maximum over blocks.

    lost, controls: [prompts, blocks] gains in nats. With too few requests on either side there is a reason and no
    block.
    """
    counts = len(set(lost_requests)), len(set(control_requests))
    if min(counts) < MIN_REQUESTS:
        reason = (
            f"of {counts[0]} requests whose refusal was lost and {counts[1]} to go on answering, as text or with the "
            f"same kinds of picture, at least {MIN_REQUESTS} each are needed"
        )
        return AttributionNull(lost=counts[0], controls=counts[1], draws=0, threshold=None, blocks=[], reason=reason)
    sides = request_means(lost, lost_requests), request_means(controls, control_requests)
    gains = np.concatenate(sides)
    chosen = np.zeros((DRAWS + 1, len(gains)), bool)
    chosen[0, : counts[0]] = True
    generator = np.random.default_rng(0)
    for draw in range(1, DRAWS + 1):
        chosen[draw, generator.permutation(len(gains))[: counts[0]]] = True
    found = _welch(gains, chosen)
    largest = found[1:].max(1)
    p_values = (1 + (largest[:, None] >= found[0] - 1e-12).sum(0)) / (1 + DRAWS)
    differences = sides[0].mean(0) - sides[1].mean(0)
    rows = [
        BlockNull(block=block, difference=float(difference), t=float(t), p=float(p))
        for block, difference, t, p in zip(blocks, differences, found[0], p_values, strict=True)
    ]
    return AttributionNull(
        lost=counts[0],
        controls=counts[1],
        draws=DRAWS,
        threshold=float(np.quantile(largest, 1 - AttributionNull.LEVEL, method="higher")),
        blocks=rows,
    )


def _welch(gains: Floats, chosen: NDArray[np.bool_]) -> Floats:
    """[draws, blocks] Welch's t of the chosen requests against the others; 0 where a block's gains do not vary.

    gains: [requests, blocks]. chosen: [draws, requests].
    """
    centred = gains - gains.mean(0)
    means, errors = [], []
    for side in (chosen, ~chosen):
        weights = side.astype(np.float64)
        count = weights.sum(1, keepdims=True)
        mean = weights @ centred / count
        variance = np.maximum(weights @ centred**2 / count - mean**2, 0) * count / (count - 1)
        means.append(mean)
        errors.append(variance / count)
    spread = np.sqrt(errors[0] + errors[1])
    scale = np.abs(centred).max(0)
    known = spread > 1e-12 * np.where(scale > 0, scale, 1)
    return np.where(known, (means[0] - means[1]) / np.where(known, spread, 1), 0.0)
