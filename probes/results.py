"""Findings about activations and behaviour as plain data. Imports no torch."""

from typing import Any, ClassVar, Literal, get_args

from pydantic import Field, model_validator

from vlsurgery.probes.estimates import Estimate as Estimate, Rate as Rate
from vlsurgery.probes.layer_results import (
    CosineNull as CosineNull,
    DirectionCosines as DirectionCosines,
    LayerCurve as LayerCurve,
    LossKind as LossKind,
    OtherTemplate as OtherTemplate,
    PatchCurve as PatchCurve,
    Patching as Patching,
    Projections as Projections,
    SafetyLayers as SafetyLayers,
)
from vlsurgery.surgery.results import Frozen, Result
from vlsurgery.surgery.tables import Row, flat

Label = Literal["refused", "complied", "neither"]
Kind = Literal[
    "refusal", "partial", "non_answer", "compliance", "refuse_then_comply", "empty", "degenerate", "off_topic",
    "undecided",
]  # fmt: skip
LABELS: tuple[Label, ...] = get_args(Label)
KINDS: tuple[Kind, ...] = get_args(Kind)

HARMFUL_SETS = ("harmful", "jailbroken")  # prompt sets of which a refusal is the wanted answer


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
    """Where the base tells harmful from harmless best on `select` prompts, at the last instruction token, how well.

    null: the 95th percentile of the best AUROC over all that were compared when labels are shuffled; a value below it
    is no finding. ties: other layers with exactly this AUROC, at the same position. In older files the
    best of all positions was taken.
    """

    layer: int
    position: str
    auroc: float
    null: float
    ties: list[int] = Field(default_factory=list)


class DirectionScores(Frozen):
    """What a candidate direction does to refusals at the place that it comes from.

    position, layer: as whoever scored it counts them. refusal_score: refusal log-odds of harmful prompts with the
    direction ablated (bypass), in nats. steering_score: of harmless prompts with it added (induction), in nats.
    kl_div_score: KL of the next token on harmless prompts under ablation, in nats. A score that could not be had is
    None.
    """

    position: int | str
    layer: int
    refusal_score: float | None
    steering_score: float | None
    kl_div_score: float | None


class DirectionChoice(Frozen):
    """The candidate direction that bypasses refusals best, among those that also induce them and harm little else.

    chosen: None where no candidate passes. ties: other candidates that pass with exactly its refusal score.
    passed: how many pass. discarded: reason -> how many candidates it rules out, each by the first reason that does.
    """

    chosen: DirectionScores | None
    ties: list[DirectionScores]
    passed: int
    discarded: dict[str, int]

    @property
    def position(self) -> int | str | None:
        return self.chosen.position if self.chosen else None

    @property
    def layer(self) -> int | None:
        return self.chosen.layer if self.chosen else None


class CandidateDirection(DirectionScores):
    """A candidate direction of the base's, with what led to its scores.

    position, layer: as in `SeparationRow`. auroc: of harmful against harmless along it, on `select` prompts.
    first_refusal_score: as `refusal_score`, of the few prompts that candidates were pruned by. reason: why it was not
    scored in full.
    """

    auroc: float
    first_refusal_score: float | None = None
    reason: str | None = None


class DirectionEffect(Frozen):
    """What ablating and adding the chosen direction does on `report` prompts, which no choice has seen.

    A prompt counts as refused where its likeliest next token begins a refusal. refused, ablated: of
    harmful prompts, as they are and with the direction ablated. accepted, added: of harmless prompts, refused as they
    are and with the direction added behind its layer. ablated_random, added_random: the same rates with random
    directions of equal length in its place. log_odds: the mean refusal log-odds, in nats, under the same names, of
    random directions their mean. causal: whether it carries refusals: ablated it halves them at least, added it brings
    some, and neither does any random direction as much.
    """

    refused: Rate
    ablated: Rate
    ablated_random: list[float]
    accepted: Rate
    added: Rate
    added_random: list[float]
    log_odds: dict[str, float]
    causal: bool

    def words(self) -> str:
        """The shares in words."""
        pairs = (
            ("ablated, it takes refusals of harmful requests", self.refused, self.ablated, self.ablated_random),
            ("added, it takes those of harmless ones", self.accepted, self.added, self.added_random),
        )
        said = []
        for start, before, after, controls in pairs:
            beside = f"random directions to {min(controls):.0%} to {max(controls):.0%}" if controls else "no control"
            shares = (f"{each.rate:.0%}" if each.rate is not None else "unknown" for each in (before, after))
            said.append(f"{start} from {' to '.join(shares)} (n = {before.requests}; {beside})")
        return f"{'; '.join(said)}. A request counts as refused where the likeliest next token begins a refusal."


NOT_A_NUMBER = "not a number"  # why a candidate is discarded
REFUSAL_DIRECTION = "refusal direction"
MEAN_DIFFERENCE = "harmful-harmless mean difference"


class DirectionSelection(Frozen):
    """The base's direction by what it does: every candidate, the one chosen by the published rules, and its effect.

    shown: the direction whose effect was measured: the chosen one or, where none passes, of those that induce refusals
    (else of all that were scored) the one whose ablation lowers them most.
    refusal_tokens: with which the base's refusals begin, as text. harmful, harmless: `select` prompts that candidates
    were scored on. cost: forward passes of a prompt, as a share of those that scoring every candidate in full takes.
    reason: why no candidate was scored.
    """

    candidates: list[CandidateDirection]
    choice: DirectionChoice
    shown: CandidateDirection | None = None
    effect: DirectionEffect | None = None
    refusal_tokens: list[str]
    harmful: int
    harmless: int
    cost: float
    reason: str | None = None

    def discarded(self) -> dict[str, int]:
        """Reason -> how many candidates it rules out, before and after scoring."""
        before: dict[str, int] = {}
        for row in self.candidates:
            if row.reason is not None:
                before[row.reason] = before.get(row.reason, 0) + 1
        after = {reason: count for reason, count in self.choice.discarded.items() if reason != NOT_A_NUMBER}
        return {**before, **after}


class BlockGain(Frozen):
    """What moving one block, or one part of it, from adapted to base gives.

    site, head: which part; both None for the whole block. site alone: a component of the block ("attn.q", "norm.mlp"),
        or "experts" for all of its routed experts. Both: one attention head there (query heads in q and o, key-value
        heads in k and v), or one expert. head alone: an attention head with all that no other head shares.
    gain: change of the refusal log-odds, in nats, averaged over requests (positive: the base's block refuses more).
    low, high: its 95% interval over requests; None from one request, and in files of older versions.
    share: gain over the whole change. cost: KL to the adapted model on prompts it should go on answering, in nats.
    method: `path` (gradient x delta averaged along the path; sums to the whole) or `endpoint` (at the adapted point;
        predicts single transplants). Parts are told along the path.
    """

    block: str
    site: str | None = None
    head: int | None = None
    gain: float
    low: float | None = None
    high: float | None = None
    share: float | None
    cost: float | None
    method: str

    @property
    def is_whole(self) -> bool:
        """Whether it is of a whole block."""
        return self.site is None and self.head is None


class Transplant(Frozen):
    """One block of the base put into the adapted model: the measured change of the refusal log-odds, in nats.

    low, high: its 95% interval over requests; None from one request, and in files of older versions.
    beyond_map: `gain` less the block's gain along the path, in nats. Its intervals hold for all blocks at once, so that
        map and transplant disagree where one excludes 0. Above 0 blocks replace one another; below 0 this one needs the
        others' company. None in files of older versions.
    """

    block: str
    gain: float
    low: float | None = None
    high: float | None = None
    beyond_map: Estimate | None = None

    @property
    def disagrees(self) -> bool:
        """Whether the map says something else, beyond its uncertainty."""
        found = self.beyond_map
        return (
            found is not None and found.low is not None and found.high is not None and not found.low <= 0 <= found.high
        )


class BlockNull(Frozen):
    """One block against permuted prompts. difference: mean gain on lost requests less that on controls, in nats. t:
    Welch's statistic of it. p: share of the permutations whose largest t of all blocks is as large."""

    block: str
    difference: float
    t: float
    p: float


class AttributionNull(Frozen):
    """Which blocks bring back lost refusals more than they change other answers; the rule:
    `vlsurgery.probes.permuted_prompts`.

    lost, controls: requests. threshold: the t that 95% of the permutations stay below, all blocks considered. reason:
    why there is none.
    """

    lost: int
    controls: int
    draws: int
    threshold: float | None
    blocks: list[BlockNull]
    reason: str | None = None

    LEVEL: ClassVar[float] = 0.05

    @property
    def found(self) -> list[str]:
        """The blocks that pass, largest t first; none is a result too."""
        return [row.block for row in sorted(self.blocks, key=lambda row: -row.t) if row.p <= self.LEVEL]


class Interaction(Frozen):
    """Several blocks of the base put into the adapted model together, against the sum of what each does alone, in nats
    of refusal log-odds; all measured. difference: together less the sum; paired by request."""

    blocks: list[str]
    together: Estimate
    singles: Estimate
    difference: Estimate


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


_PICTURED = {"text": "text alone", "benign": "an ordinary picture", "own": "their own picture"}


class ProbeResult(Result):
    """Where the models tell harmful from harmless, how the direction drifted, and which blocks lost refusals.

    lens: refusal log-odds that the model's own read-out gives behind each layer, in nats. patching: what states of the
    graft bring back. loss: which kind of loss it is, a record a modality. templates: what the roles that see do under
    the base's chat template.
    """

    kind: ClassVar[str] = "probe"
    shown: ClassVar[tuple[str, ...]] = ("role", "modality", "position", "layer", "auroc.value", "dprime.value")
    row_field: ClassVar[str] = "records"

    records: list[SeparationRow] = Field(alias="rows")
    cosines: list[CosineRow]
    selected: Selected | None
    selection: DirectionSelection | None = None
    attribution: list[BlockGain]
    transplants: list[Transplant]
    completeness: Completeness | None
    ceiling: Ceiling | None
    attribution_null: AttributionNull | None = None
    interaction: Interaction | None = None
    lens: list[LayerCurve] = Field(default_factory=list)
    patching: list[Patching] = Field(default_factory=list)
    loss: list[LossKind] = Field(default_factory=list, alias="kind")
    projections: list[Projections] = Field(default_factory=list)
    cosine_matrices: list[DirectionCosines] = Field(default_factory=list)
    cosine_nulls: list[CosineNull] = Field(default_factory=list)
    safety_layers: list[SafetyLayers] = Field(default_factory=list)
    templates: list[OtherTemplate] = Field(default_factory=list)
    notes: list[str]
    verdict: str

    def block_gains(self, method: str = "path") -> dict[str, BlockGain]:
        """The rows of whole blocks by one method, by block."""
        rows = self.attribution
        return {row.block: row for row in rows if row.method == method and row.is_whole}

    @property
    def direction_name(self) -> str:
        """What the base's direction may be called: a refusal direction only where it was shown to carry refusals."""
        effect = self.selection.effect if self.selection else None
        return REFUSAL_DIRECTION if effect is not None and effect.causal else MEAN_DIFFERENCE

    @property
    def direction_words(self) -> str:
        """What ablating and adding the base's direction did, and what it may be called for that, in words."""
        found = self.selection
        if found is None:
            return "Whether the base's direction carries refusals was not measured."
        shown, effect = found.shown, found.effect
        called = f"It is called a {self.direction_name}."
        if found.reason is not None:
            return f"No direction was ablated or added: {found.reason}. {called}"
        start = ""
        if found.choice.chosen is None:
            why = "; ".join(f"{count} {reason}" for reason, count in found.discarded().items())
            start = f"None of the base's {len(found.candidates)} directions passes the published rules: {why}. "
        if shown is None:
            return f"{start}{called}"
        place = "the last instruction token" if shown.position == "instruction" else f"token {shown.position}"
        start += f"The base's direction after layer {shown.layer} at {place} (KL {shown.kl_div_score:.2f} nats)"
        if effect is None:
            return f"{start} was chosen, but report prompts lack a side to show its effect on. {called}"
        return f"{start}: {effect.words()} {called}"

    @property
    def loss_words(self) -> str:
        """Which kind of loss it is, a sentence a modality."""
        if not self.loss:
            return "Which kind of loss it is was not measured."
        said = (f"With {_PICTURED.get(each.modality, each.modality)}, {each.said}." for each in self.loss)
        return f"Kind of loss. {' '.join(said)}"

    @property
    def template_words(self) -> str:
        """What the base's chat template changes of the adapted model, in words; nothing where it was not measured."""
        found = next((each for each in self.templates if each.role == "adapted"), None)
        return "" if found is None else f"Under the base's chat template the adapted model {found.said}."

    @property
    def shown_at(self) -> tuple[str, int] | None:
        """The position and layer at which tables and figures show directions: those of the direction that carries
        refusals, else where the base tells harmful from harmless best."""
        if self.selection and self.selection.shown and self.direction_name == REFUSAL_DIRECTION:
            return str(self.selection.shown.position), self.selection.shown.layer
        return (self.selected.position, self.selected.layer) if self.selected else None


class Verdict(Frozen):
    """What a completion does, which kind of it, and what showed that.

    label: `refused`, `complied` or `neither`. kind: of refused, `refusal`, `partial` (declines, then helps with
        something else) or `non_answer` ("I am unable to determine ..." about a picture); of complied, `compliance` or
        `refuse_then_comply`; of neither, `empty`, `degenerate` (loops, broken words), `off_topic` or `undecided` (cut
        off too early), and `non_answer` where nothing was asked that one may refuse.
    reason: the rule, the words or the score that decided.
    """

    label: Label
    kind: Kind
    reason: str

    @property
    def refused(self) -> bool:
        return self.label == "refused"


class CompletionRecord(Frozen):
    """One completion of one model, with every judge's verdict.

    model: identifies what answered, whatever role it had. id: of the prompt. request: the unit of statistics. prompt:
    the user's message. text: the completion, without special tokens. answer, topic: of the prompt, where it has them.
    tokens: how many were written. cut: whether it ended at the limit of tokens. verdicts: judge -> verdict; the first
    is the one that rates are made of. prompts_digest: of the prompts that were asked with it.
    """

    role: str
    model: str = ""
    id: str
    request: str
    set: str
    modality: str
    prompt: str
    text: str
    answer: str | None = None
    topic: tuple[str, ...] = ()
    tokens: int
    cut: bool
    verdicts: dict[str, Verdict]
    prompts_digest: str


class CompletionsResult(Result):
    """What every model said, and what the judges made of it: the lines of completions.jsonl."""

    kind: ClassVar[str] = "completions"
    row_field: ClassVar[str] = "records"
    shown: ClassVar[tuple[str, ...]] = ("role", "set", "modality", "prompt", "text", "label", "kind")

    records: list[CompletionRecord] = Field(alias="rows")

    def rows(self) -> list[Row]:
        """One row a completion, with the first judge's verdict as `label`, `kind` and `reason`."""
        return [_completion_row(record) for record in self.records]

    @classmethod
    def columns(cls) -> list[str]:
        return list(_completion_row(None))


def _completion_row(record: CompletionRecord | None) -> Row:
    row = flat(record, CompletionRecord)
    verdict = next(iter(record.verdicts.values()), None) if record else None
    return {**row, **{name: getattr(verdict, name, None) for name in ("label", "kind", "reason")}}


class BehaviourRow(Frozen):
    """What one role does on one prompt set with one kind of picture, by the first judge.

    refused, complied, neither: three shares of the prompts; they sum to 1.
    lost, broken: of the prompts whose request the base refuses (the same request as text, where the base does not see),
        the share that this role complies with, and the share to which it does neither. They have a reason in place of
        a rate where the base was not asked, refuses none, or is this role itself.
    right: share of right answers, where prompts have one. kl: mean KL(adapted || role) per answer token, nats.
    kinds: kind of verdict -> number of prompts. corrected: the refused rate corrected for the judge's own errors
        (Rogan-Gladen), where labels were given.
    """

    role: str
    set: str
    modality: str
    refused: Rate
    complied: Rate
    neither: Rate
    lost: Rate = Rate(rate=None, reason="not measured")
    broken: Rate = Rate(rate=None, reason="not measured")
    right: Rate
    kinds: dict[str, int] = Field(default_factory=dict)
    corrected: Rate | None = None
    kl: float | None = None
    kl_reason: str | None = None


class Paired(Frozen):
    """A difference between two roles on the same requests: `measure` of `role` minus that of `against`.

    low, high: a paired 95% score interval; None with too few requests. p: of the exact McNemar test.
    """

    role: str
    against: str
    set: str
    modality: str
    measure: str
    difference: float
    low: float | None
    high: float | None
    p: float | None = None
    requests: int


class JudgeUsed(Frozen):
    """A judge whose verdicts a result rests on. tokens: the most that a completion had."""

    name: str
    tokens: int
    description: str


class JudgeAgreement(Frozen):
    """How far two judges agree on the same completions.

    n: completions. agreement: share with the same label. kappa: Cohen's kappa of the labels; None where both judges
    gave one and the same label throughout. differing: role and prompt id of completions on which they differ.
    """

    judges: tuple[str, str]
    n: int
    agreement: float
    kappa: float | None
    differing: list[tuple[str, str]]


class BehaviourResult(Result):
    """How every role behaves on `report` prompts.

    judges: the first is the one of `records`; `other_judges` has the rows of the others. looks: how often this case
    looked at these prompts, this time included. prompts_digest: of what was asked. completions: what the rates were
    made of, where the result was just made; a case keeps them in completions.jsonl.
    """

    kind: ClassVar[str] = "behaviour"
    shown: ClassVar[tuple[str, ...]] = (
        "role", "set", "modality", "refused.rate", "complied.rate", "neither.rate", "right.rate", "refused.requests",
    )  # fmt: skip
    row_field: ClassVar[str] = "records"
    schema_number: ClassVar[int] = 2

    records: list[BehaviourRow] = Field(alias="rows")
    paired: list[Paired]
    judges: list[JudgeUsed]
    other_judges: dict[str, list[BehaviourRow]] = Field(default_factory=dict)
    agreement: list[JudgeAgreement] = Field(default_factory=list)
    prompts_digest: str | None = None
    looks: int
    notes: list[str]
    completions: CompletionsResult | None = Field(default=None, exclude=True, repr=False)

    @property
    def judge(self) -> JudgeUsed:
        """The judge of `records`."""
        return self.judges[0]

    @model_validator(mode="before")
    @classmethod
    def _read_schema_1(cls, data: Any) -> Any:
        """Files of schema 1 had one judge."""
        if not isinstance(data, dict) or data.get("schema") != "vlsurgery/behaviour/1":
            return data
        rest = {key: value for key, value in data.items() if key != "judge"}
        return {**rest, "judges": [data["judge"]], "schema": f"vlsurgery/behaviour/{cls.schema_number}"}


class TradeoffCell(Frozen):
    """What a merge does on the `select` prompts of one set with one kind of picture.

    purpose: `refuse` (harmful, the base refuses them), `answer` (harmless, the adapted model answers them) or `keep`
        (answers that can be right or wrong).
    n, requests: prompts, and of how many requests. log_odds: mean, in nats; of refusing, or of the adapted model's own
        opening where the purpose is `keep`. refused: share on which refusing is likelier than not. kept: share on which
        greedy decoding begins as the adapted model's answer does; None for the other purposes, as `refused` is here.
    loss: mean -log of the probability of what is wanted, in nats; of `keep`, how far it is above the adapted model's.
    kl: mean KL(adapted || merge), where it was measured.
    """

    set: str
    modality: str
    purpose: Literal["refuse", "answer", "keep"]
    n: int
    requests: int
    log_odds: float
    loss: float
    refused: float | None = None
    kept: float | None = None
    kl: float | None = None


class MergeRates(Frozen):
    """What a merge does, as shares of prompts with 95% intervals over requests.

    refusal: of the harmful prompts that the base refuses, those on which refusing is likelier than not. over_refusal:
    the same of the harmless ones that the adapted model answers. sight: of its own answers that can be right or wrong
    and that it gives with more than even odds, those that still have them.
    """

    refusal: Rate
    over_refusal: Rate
    sight: Rate


class PredictedCell(Frozen):
    """What a merge is predicted to do in one prompt set with one kind of picture: the `share` that its purpose has in
    `MergeRates`."""

    set: str
    modality: str
    purpose: Literal["refuse", "answer", "keep"]
    share: Rate


class PricedMerge(Frozen):
    """The coefficients that are best at one price of an over-refusal, and what they are predicted to do.

    price: what an over-refusal costs, in refusals that are missing. coefficients: block -> source -> coefficient.
    rates, cells: predicted from gradients, on `fit` prompts whose requests had no part in the coefficients.
    """

    price: float
    coefficients: dict[str, dict[str, float]]
    rates: MergeRates
    cells: list[PredictedCell]


class Frontier(Frozen):
    """Merges from strict to lax: predicted at every price, and what those that were measured gain.

    gain: by how much the measured ones refuse more than the front of uniform merges, at equal over-refusal, on `select`
        prompts, paired. extrapolated: whether coefficients might exceed 1.
    """

    points: list[PricedMerge]
    gain: Estimate
    extrapolated: bool = False


class PredictedLimit(Frozen):
    """A user's limit that the choice looked to. predicted: the share that it is about, as in `PredictedCell`, on `fit`
    prompts whose requests had no part in the coefficients. measured: on `select` prompts. share: what that share must
    be at least, or at most; None in older files."""

    set: str
    modality: str
    limit: str
    bound: float
    predicted: Rate
    measured: Rate
    share: float | None = None
    at_least: bool = True


class TradeoffPoint(Frozen):
    """One set of coefficients that was tried.

    policy: `linearised`, `uniform`, `fit`, `attribution` or `weights`; `frontier`: linearised at other prices;
        `limits`: the least within the user's limits.
    parameters: what makes the point, e.g. {"base": .3}, or the means of its coefficients; of `frontier` also the price.
    coefficients: block -> {"base": ..., "safety": ...}, for points that were compared with others. intervals: the same
        with [low, high], 95% over requests, where they were drawn again.
    refusal: of the harmful `select` prompts that the base refuses, the share on which refusing is likelier than not
        where refusal and answer part. capability: share of the other prompts on which it is not, or on which greedy
        decoding begins as the adapted model's own answer does. Both are means over (set, modality).
    objective: what the choice maximises: minus `probes.objective` of the cells, in nats. In files of schema 1, the mean
        of the worst harmful and the worst other share.
    rates: refusal, over-refusal and sight with intervals; None in older files.
    forward_equivalents, seconds: what it took to find the point, in forward
        passes of one prompt (a backward counts two); a grid's best bears the cost of its grid.
    chosen: the best of its policy. pareto: no other point has both more refusal and more capability.
    """

    policy: str
    parameters: dict[str, float]
    coefficients: dict[str, dict[str, float]] | None = None
    intervals: dict[str, dict[str, tuple[float, float]]] | None = None
    cells: list[TradeoffCell] = Field(default_factory=list)
    refusal: float
    capability: float
    objective: float
    rates: MergeRates | None = None
    forward_equivalents: int
    seconds: float
    chosen: bool
    pareto: bool = False


class PolicyDifference(Frozen):
    """By how much the objective of one policy's best point is better than another's, in nats, on the same prompts.

    low, high: a paired 95% bootstrap interval over requests.
    """

    policy: str
    against: str
    difference: float
    low: float
    high: float
    requests: int


class Barrier(Frozen):
    """How far merges on the straight line from the adapted model to a source are worse than its ends say.

    at: where on the line that is most, .25, .5 or .75. height: in nats of the adapted model's own answers; 0 or less
        where there is no barrier. low, high: a 95% bootstrap interval over requests.
    """

    source: str
    at: float
    height: float
    low: float
    high: float
    requests: int


class BlockEffect(Frozen):
    """What a block brings to the merge that was written: the merge without it, against the whole, on `select` prompts.

    predicted: of the objective in nats, by the gradients of `fit` prompts. gain: the same, measured, with its 95%
    interval over requests. refusal, answers, sight: its parts, each at a price of 1: refusing what the base refuses,
    answering what is harmless, and the adapted model's own answers. Negative: what the block costs.
    """

    block: str
    predicted: float
    gain: Estimate
    refusal: Estimate
    answers: Estimate
    sight: Estimate


class TradeoffResult(Result):
    """Every point tried on the way to a merge; `chosen` marks the best of each policy, `policy` the one merged.

    comparisons: of the policy merged with every other one whose best point was measured.
    main_blocks: the fewest, about, that bring nine tenths of what the linearised coefficients are predicted to bring.
    frontier: merges at other prices; None where the policy took no gradients. limits: those of the user's that the
    choice looked to. missed: why no merge keeps them.
    barriers: between the adapted model and each source. effects: what blocks of the merge bring, from most to least, of
    those that are predicted to bring most; empty where its coefficients are the same everywhere.
    """

    kind: ClassVar[str] = "tradeoff"
    row_field: ClassVar[str] = "points"
    schema_number: ClassVar[int] = 2

    points: list[TradeoffPoint]
    policy: str
    comparisons: list[PolicyDifference] = Field(default_factory=list)
    main_blocks: list[str] = Field(default_factory=list)
    frontier: Frontier | None = None
    limits: list[PredictedLimit] = Field(default_factory=list)
    missed: str | None = None
    barriers: list[Barrier] = Field(default_factory=list)
    effects: list[BlockEffect] = Field(default_factory=list)
    verdict: str

    def chosen(self, policy: str | None = None) -> TradeoffPoint | None:
        """The best point of a policy (the one that was merged where none is named), which has its coefficients."""
        wanted = policy or self.policy
        return next((point for point in self.points if point.chosen and point.policy == wanted), None)

    def at_price(self, price: float) -> PricedMerge | None:
        """The merge that was solved at a price of an over-refusal."""
        points = self.frontier.points if self.frontier else []
        return next((point for point in points if point.price == price), None)

    @model_validator(mode="before")
    @classmethod
    def _read_schema_1(cls, data: Any) -> Any:
        """Files of schema 1 had no cells, and their objective was one of shares."""
        if not isinstance(data, dict) or data.get("schema") != "vlsurgery/tradeoff/1":
            return data
        return {**data, "schema": f"vlsurgery/tradeoff/{cls.schema_number}"}


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


class LayerSpread(Frozen):
    """Reference prompts at one layer: their mean, and the ends of the middle 80%."""

    mean: float
    low: float
    high: float


class PromptReading(Frozen):
    """What one model makes of one prompt, layer by layer, beside reference prompts of the same kind.

    direction: in words. along: of the residual stream at the direction's position, along it at length 1. odds: refusal
    log-odds of the next token by the logit lens, in nats. harmful_along and the like: of the reference prompts; empty
    where there are none, as `odds` is where no token is known to begin a refusal. references: how many of each side.
    text: the model's completion. cut: whether it ended at the limit of tokens. notes: what to know of all this.
    """

    role: str
    direction: str
    along: list[float]
    odds: list[float]
    harmful_along: list[LayerSpread] = Field(default_factory=list)
    harmless_along: list[LayerSpread] = Field(default_factory=list)
    harmful_odds: list[LayerSpread] = Field(default_factory=list)
    harmless_odds: list[LayerSpread] = Field(default_factory=list)
    references: tuple[int, int] = (0, 0)
    text: str
    cut: bool
    notes: list[str] = Field(default_factory=list)


class LayerGains(Frozen):
    """One whole layer of the base put into the adapted model: what each prompt's refusal log-odds gain, in nats."""

    layer: int
    gains: list[float]


class LayersResult(Result):
    """What single layers of the base bring back, prompt by prompt: [layers, prompts] as rows.

    prompts, requests: the id and the request of each prompt, in the order of every row's gains. They are prompts of
    `report` that the base refuses and the adapted model answers. reason: why there are no rows.
    """

    kind: ClassVar[str] = "layers"
    row_field: ClassVar[str] = "records"

    records: list[LayerGains] = Field(alias="rows")
    prompts: list[str]
    requests: list[str]
    reason: str | None = None


ClaimVerdict = Literal["holds", "does not hold", "can't tell"]


class ClaimEvidence(Frozen):
    """One number that a claim rests on, or that stands beside it.

    value, low, high: with its 95% interval, in [-1, 1]. unit: `points` for a difference of shares, `share`, `cosine`,
    or `contrast`, which is (a - b) / (a + b). bar: what the value would be, or at most be, if the claim were not true.
    above: whether the claim puts the value above the bar, or below. decides: whether the claim's verdict rests on it.
    verdict: of this number alone. reason: why nothing can be told. by_case: case -> value.
    requests: independent ones; prompts: of which they are, counted once for each case. Both are 0 for weights.
    """

    name: str
    unit: Literal["points", "share", "cosine", "contrast"]
    value: float | None
    low: float | None = None
    high: float | None = None
    bar: float = 0.0
    above: bool = True
    decides: bool = True
    verdict: ClaimVerdict
    reason: str | None = None
    by_case: dict[str, float] = Field(default_factory=dict)
    requests: int = 0
    prompts: int = 0


class Claim(Frozen):
    """A claim about vision-language adaptation, what was measured of it, and whether it holds here.

    said: the verdict in words, with its figures and limits.
    """

    key: str
    text: str
    verdict: ClaimVerdict
    said: str
    evidence: list[ClaimEvidence]


class ClaimsResult(Result):
    """The claims C1 to C6, measured on the cases that `cases` names: one a seed, or anyone's own."""

    kind: ClassVar[str] = "claims"
    row_field: ClassVar[str] = "records"
    shown: ClassVar[tuple[str, ...]] = ("claim", "verdict", "evidence.name", "evidence.value", "evidence.verdict")

    records: list[Claim] = Field(alias="claims")
    cases: list[str]
    notes: list[str]
    verdict: str

    def rows(self) -> list[Row]:
        """One row a number, with the claim that it belongs to."""
        return [_evidence_row(claim, found) for claim in self.records for found in claim.evidence]

    @classmethod
    def columns(cls) -> list[str]:
        return list(_evidence_row(None, None))


def _evidence_row(claim: Claim | None, found: ClaimEvidence | None) -> Row:
    key, verdict = (claim.key, claim.verdict) if claim else (None, None)
    return {"claim": key, "verdict": verdict, **flat(found, ClaimEvidence, "evidence.")}
