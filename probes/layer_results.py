"""Findings layer by layer, as plain data: lists over layers, so that deep models stay small files. Imports no torch."""

from typing import Literal

from pydantic import Field

from vlsurgery.probes.estimates import Estimate, Rate
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


class Projections(Frozen):
    """How far prompts lie along the base's text direction of the same layer and position, prompt by prompt.

    prompts: ids, in the order of values. layers: at most some tens. values: position (`instruction`, and the last
    token) -> one list a layer, along the direction of length 1, in the states' own unit.
    """

    role: str
    modality: str
    set: str
    prompts: list[str]
    layers: list[int]
    values: dict[str, list[list[float]]]


class SafetyLayers(Frozen):
    """Where a model begins to treat harmful requests otherwise than harmless ones (Li et al., arXiv 2408.17003).

    same, across: behind each layer, the mean cosine of the last token's states of two harmless requests, and of a
    harmless and a harmful one. gap: mean angle of the latter less that of the former, in degrees; low, high: its 95%
    bootstrap interval over requests.
    """

    role: str
    modality: str
    layers: list[int]
    same: list[float]
    across: list[float]
    gap: list[float]
    low: list[float]
    high: list[float]
    requests: int


class CosineNull(Frozen):
    """What cosines with the base's text direction are, layer by layer, if labels mean nothing.

    mean, low, high: of directions made with labels that were shuffled by request, the same for base and role; 95% of
    draws lie between. lowest, highest: 5th and 95th percentile of the least and the greatest over all layers.
    random: 95th percentile of the greatest size over all layers of a random direction's cosine with any other.
    """

    role: str
    modality: str
    position: str
    layers: list[int]
    mean: list[float]
    low: list[float]
    high: list[float]
    lowest: float
    highest: float
    random: float


class DirectionCosines(Frozen):
    """Cosines between directions of one position. keys: "<role>/<modality>", the base's text direction first.

    layers: at most some tens. between: behind each layer, [keys][keys]. across: key -> [layers][layers], a row a layer
    of the base's text direction, a column a layer of the key's.
    """

    position: str
    keys: list[str]
    layers: list[int]
    between: list[list[list[float]]]
    across: dict[str, list[list[float]]]


class OtherTemplate(Frozen):
    """What becomes of a model that reads text under the base's chat template instead of its own.

    cosine: behind each layer, of the directions that both templates give, at the last instruction token; split_half:
    the cosine of the halves of its own, the most that can be expected. apart, other_apart: the best AUROC over layers
    of harmful against harmless, under its own and the base's. odds, other_odds: refusal log-odds of harmful `report`
    prompts in nats; difference: the latter less the former, paired by request. said: in words, without the role.
    """

    role: str
    cosine: list[float] = Field(default_factory=list)
    split_half: list[float] = Field(default_factory=list)
    apart: Estimate
    other_apart: Estimate
    odds: Estimate
    other_odds: Estimate
    difference: Estimate
    said: str


LossName = Literal["none", "phrasing", "breakage", "recognition", "read-out", "can't tell"]


class LossEvidence(Frozen):
    """What the kind of loss is told from, for requests in one modality.

    complied, neither: of the harmful prompts that the base refuses, what the adapted model does, by the judge. gone:
    both together. broken: of what is gone, the share that is neither. opened: of those that the adapted model refuses
    too, how many begin with one of the base's openings. apart: the best AUROC over layers of harmful against harmless
    at the last instruction token; null: of that maximum. base_apart, base_null: the same of the base. gap: refusal
    log-odds of the graft less the adapted model's on harmful `report` prompts, in nats. added: the part of it that
    adding the base's direction behind `layer` brings, which was chosen on `select` prompts; added_random: the same of
    random directions as long.
    """

    modality: str
    complied: Rate
    neither: Rate
    gone: Rate
    broken: Rate
    opened: Rate
    apart: Estimate
    null: float | None
    base_apart: Estimate
    base_null: float | None
    gap: Estimate
    layer: int | None
    added: Estimate
    added_random: list[float]


class LossKind(LossEvidence):
    """Which kind of loss the adapted model's is, and what that was told from. said: in words."""

    kind: LossName
    said: str
