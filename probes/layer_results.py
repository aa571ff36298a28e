"""Findings layer by layer, as plain data: lists over layers, so that deep models stay small files. Imports no torch."""

from typing import Literal

from vlsurgery.probes.estimates import Estimate
from vlsurgery.surgery.results import Frozen

PatchedTokens = Literal["image", "text", "all"]


class LayerCurve(Frozen):
    """A mean over requests behind each of some layers, with its 95% interval, for one role and kind of prompt.

    layers: of the residual stream behind them, in order. value, low, high: one a layer; bounds are None from one
    request. requests: independent ones.
    """

    role: str
    modality: str
    set: str
    layers: list[int]
    value: list[float]
    low: list[float | None]
    high: list[float | None]
    requests: int


class PatchCurve(Frozen):
    """How much of a gap comes back when states of the graft are put into the adapted model behind one layer.

    tokens: whose states. share: 0 where patching changes nothing, 1 where it gives the graft's refusal log-odds; one a
    layer. low, high: its 95% interval over requests; None where the gap's own interval holds 0.
    """

    tokens: PatchedTokens
    share: list[float | None]
    low: list[float | None]
    high: list[float | None]


class Patching(Frozen):
    """Where the picture acts: patching the graft's residual stream into the adapted model, on harmful prompts.

    adapted, graft: their mean refusal log-odds, in nats. gap: graft less adapted, paired by request. layers: behind
    which was patched. requests: independent ones. reason: why there are no curves.
    """

    modality: str
    layers: list[int]
    adapted: Estimate
    graft: Estimate
    gap: Estimate
    curves: list[PatchCurve]
    requests: int
