"""Findings about activations and behaviour as plain data. Imports no torch."""

from typing import ClassVar

from pydantic import Field

from vlsurgery.surgery.results import Frozen, Result

HARMFUL_SETS = ("harmful", "jailbroken")  # prompt sets of which a refusal is the wanted answer


class Estimate(Frozen):
    """A measured number with its 95% interval. `n`: independent requests. `reason` says why `value` is missing."""

    value: float | None
    low: float | None = None
    high: float | None = None
    n: int = 0
    reason: str | None = None


class Rate(Frozen):
    """A share of prompts with its 95% interval; requests are resampled, not prompts.

    n: prompts. requests: independent requests among them. `reason` says why `rate` is missing.
    """

    rate: float | None
    low: float | None = None
    high: float | None = None
    n: int = 0
    requests: int = 0
    reason: str | None = None


class SeparationRow(Frozen):
    """How well one role tells harmful from harmless at one layer and position.

    position: `instruction` for the last instruction token, else the distance from the prompt's end ("-1" is the last
        token). layer: the residual stream after this decoder block.
    norm: of the harmful mean minus the harmless mean. auroc in [0, 1], .5 is chance; dprime in standard deviations.
        Both on prompts that did not make the direction.
    """

    role: str
    modality: str
    position: str
    layer: int
    norm: float
    auroc: Estimate
    dprime: Estimate


class CosineRow(Frozen):
    """Cosine of a role's direction with a reference direction at the same layer and position, in [-1, 1].

    split_half: cosine of the directions made from the two halves of the role's own prompts: what noise alone allows.
    """

    role: str
    modality: str
    reference: str
    position: str
    layer: int
    cosine: float | None
    split_half: float | None


class Selected(Frozen):
    """The layer and position where the base tells harmful from harmless best on `select` prompts, and how well.

    null: the 95th percentile of the best AUROC over all layers and positions when labels are shuffled; a value below
    it is no finding.
    """

    layer: int
    position: str
    auroc: float
    null: float


class BlockGain(Frozen):
    """What moving one block from adapted to base gives.

    gain: change of the refusal log-odds, in nats, averaged over prompts (positive: the base's block refuses more).
    share: gain over the whole change. cost: KL to the adapted model on prompts it should go on answering, in nats.
    method: `path` (gradient x delta averaged along the path; sums to the whole) or `endpoint` (at the adapted point;
        predicts single transplants).
    """

    block: str
    gain: float
    share: float | None
    cost: float | None
    method: str


class Transplant(Frozen):
    """One block of the base put into the adapted model: the measured change of the refusal log-odds, in nats."""

    block: str
    gain: float


class Completeness(Frozen):
    """Two checks of the attribution maps.

    total: sum of the path map. measured: change of the refusal log-odds from adapted to graft. error: |total -
    measured| / |measured|. points: gradients taken along the path. rank_correlation: Spearman's rho of the endpoint
    map with single transplants.
    """

    total: float
    measured: float
    error: float | None
    points: int
    rank_correlation: float | None


class Ceiling(Frozen):
    """What the LLM's weights can bring back: the refusal log-odds of adapted and graft, in nats, and how many of the
    harmful prompts' refusals each begins greedily as the base does."""

    adapted: float
    graft: float
    adapted_refused: Rate
    graft_refused: Rate


class ProbeResult(Result):
    """Where the models tell harmful from harmless, how the direction drifted, and which blocks lost refusals."""

    kind: ClassVar[str] = "probe"
    shown: ClassVar[tuple[str, ...]] = ("role", "modality", "position", "layer", "auroc.value", "dprime.value")
    row_field: ClassVar[str] = "records"

    records: list[SeparationRow] = Field(alias="rows")
    cosines: list[CosineRow]
    selected: Selected | None
    attribution: list[BlockGain]
    transplants: list[Transplant]
    completeness: Completeness | None
    ceiling: Ceiling | None
    notes: list[str]
    verdict: str


class BehaviourRow(Frozen):
    """What one role does on one prompt set with one kind of picture.

    refused, complied, neither: three shares that sum to 1 (neither: empty, degenerate or off-topic).
    right: share of exactly right answers, where prompts have one. kl: mean KL(adapted || role) per answer token, nats.
    """

    role: str
    set: str
    modality: str
    refused: Rate
    complied: Rate
    neither: Rate
    right: Rate
    kl: float | None = None
    kl_reason: str | None = None


class Paired(Frozen):
    """A difference between two roles on the same requests: `measure` of `role` minus that of `against`."""

    role: str
    against: str
    set: str
    modality: str
    measure: str
    difference: float
    low: float
    high: float
    requests: int


class Judge(Frozen):
    """Which judge called a completion a refusal, and from how many tokens of completion."""

    name: str
    tokens: int
    description: str


class BehaviourResult(Result):
    """How every role behaves on `report` prompts. `looks`: how often this case looked at them, this time included."""

    kind: ClassVar[str] = "behaviour"
    shown: ClassVar[tuple[str, ...]] = (
        "role", "set", "modality", "refused.rate", "complied.rate", "neither.rate", "right.rate", "refused.requests",
    )  # fmt: skip
    row_field: ClassVar[str] = "records"

    records: list[BehaviourRow] = Field(alias="rows")
    paired: list[Paired]
    judge: Judge
    looks: int
    notes: list[str]


class TradeoffPoint(Frozen):
    """One set of coefficients that was tried.

    policy: `fit`, `uniform`, `attribution`, `weights`. parameters: what makes the point, e.g. {"base": .3}.
    coefficients: block -> {"base": ..., "safety": ...}, for points that were compared with others.
    refusal: of the `select` prompts whose refusal was lost, the share on which refusing is likelier than not where
        refusal and answer part. capability: share of the other prompts on which greedy decoding begins as the adapted
        model's own answer does.
    refusal and capability are means over (set, modality); objective, which the choice maximises, is the mean of the
        worst harmful and the worst other (set, modality).
    forward_equivalents, seconds: what it took to find the point, in forward
        passes of one prompt (a backward counts two); a grid's best bears the cost of its grid.
    """

    policy: str
    parameters: dict[str, float]
    coefficients: dict[str, dict[str, float]] | None = None
    refusal: float
    capability: float
    objective: float
    forward_equivalents: int
    seconds: float
    chosen: bool


class TradeoffResult(Result):
    """Every point tried on the way to a merge; `chosen` marks the best of each policy, `policy` the one merged."""

    kind: ClassVar[str] = "tradeoff"
    row_field: ClassVar[str] = "points"

    points: list[TradeoffPoint]
    policy: str
    verdict: str

    def chosen(self, policy: str | None = None) -> TradeoffPoint | None:
        """The best point of a policy (the one that was merged where none is named), which has its coefficients."""
        wanted = policy or self.policy
        return next((point for point in self.points if point.chosen and point.policy == wanted), None)


class Target(Frozen):
    """A model's own completion of one prompt, and what the judge made of it.

    ids: its tokens, with an end token where it ended by itself; of the model that wrote it.
    """

    prompt: str
    role: str
    text: str
    ids: list[int]
    verdict: str


class TargetsResult(Result):
    """What base and adapted themselves answer on `fit` and `select` prompts: the targets of attribution and fitting."""

    kind: ClassVar[str] = "targets"
    row_field: ClassVar[str] = "records"

    records: list[Target] = Field(alias="rows")
