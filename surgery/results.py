"""Findings about weights as plain data, and their JSON. Imports no torch, so that figures open at once."""

import json
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, Final, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from vlsurgery.surgery.errors import SurgeryError
from vlsurgery.surgery.runtime.atomic_file import write_text as write_text
from vlsurgery.surgery.runtime.regular_file import read_regular
from vlsurgery.surgery.runtime.visible import visible
from vlsurgery.surgery.tables import Row, Tabular, flat, spread

# Most bytes of a result that is read: a model of 100,000 tensors takes a tenth of that.
MAX_RESULT_BYTES: Final = 1 << 30

Tower = Literal["text", "vision", "audio", "projector", "other"]


class Frozen(BaseModel):
    """A result: written once, never changed; unknown keys are refused and NaN is not a number."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, populate_by_name=True)


class CheckpointRef(Frozen):
    """Which checkpoint a result speaks of: where it was, and the identity that it had then.

    pickled: its weights are pickled, and were allowed to be loaded as weights only; left out of the JSON otherwise.
    contents: name -> SHA-256 of every file of its weights, where they were taken; left out of the JSON otherwise.
    text_stack: the container of the language model's layers, where the user chose it; left out of the JSON otherwise.
    """

    path: str
    identity: str
    pickled: bool = False
    contents: dict[str, str] | None = None
    text_stack: str | None = None

    @model_serializer(mode="wrap")
    def _without_defaults(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in write(self).items() if key in ("path", "identity") or value}


class Result(Tabular, Frozen):
    """What every result file starts with.

    settings: the options that shaped the result; a step is done again when they differ.
    checkpoints: role -> checkpoint.
    """

    kind: ClassVar[str]
    schema_number: ClassVar[int] = 1

    schema_: str = Field(default="", alias="schema")
    created: str = Field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    version: str = Field(default_factory=lambda: version("vlsurgery"))
    settings: dict[str, Any] = {}
    checkpoints: dict[str, CheckpointRef] = {}

    def model_post_init(self, context: Any) -> None:  # noqa: ARG002
        expected = f"vlsurgery/{self.kind}/{self.schema_number}"
        if self.schema_ not in ("", expected):
            raise SurgeryError(f"expected a result of schema {expected!r}, found {self.schema_!r}")
        object.__setattr__(self, "schema_", expected)

    def json_text(self) -> str:
        return self.model_dump_json(by_alias=True, indent=1) + "\n"

    def save(self, path: Path) -> None:
        """Write the JSON so that `path` holds either the old text or the whole new one."""
        write_text(path, self.json_text())

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a result back. Raises SurgeryError that names the file and the first fault."""
        try:
            return cls.model_validate_json(read_regular(path, MAX_RESULT_BYTES))
        except (OSError, ValidationError, SurgeryError) as error:
            first = first_fault(error) if isinstance(error, ValidationError) else visible(str(error))[:200]
            raise SurgeryError(f"{path}: not a readable {cls.kind} result: {first}. Run the step again.") from error


def first_fault(error: ValidationError) -> str:
    """Where something is wrong, and what, on one short line; keys from the file are in it, made safe to print."""
    first = error.errors(include_input=False, include_url=False)[0]
    place = ".".join(str(part)[:80] for part in first["loc"][:6])
    return " ".join(visible(f"{place}: {first['msg']}" if place else first["msg"]).split())[:300]


class TypedTensor(Frozen):
    """One tensor of a checkpoint: its raw name, its site, and what it takes."""

    name: str
    tower: Tower
    layer: int | None
    component: str
    block: str | None
    shape: list[int]
    dtype: str
    own_layer: int | None = None


class TowerAnatomy(Frozen):
    """One tower: how many layers, which components, how many tensors and parameters."""

    tower: Tower
    layers: int
    components: list[str]
    tensors: int
    parameters: int


class AnatomyResult(Result):
    """What a checkpoint holds, from its headers alone.

    dtypes: dtype -> tensors. tied: whether the head is the embedding. quantised: the scheme, None for plain weights.
    notes: remarks on its files, such as an index that is stale.
    """

    kind: ClassVar[str] = "anatomy"
    row_field: ClassVar[str] = "tensors"

    model_type: str | None
    towers: list[TowerAnatomy]
    tensors: list[TypedTensor]
    parameters: int
    bytes: int
    dtypes: dict[str, int]
    tied: bool
    quantised: str | None
    notes: list[str] = []


class SliceName(Frozen):
    """A part of a tensor: its name, and [start, stop] along each dimension; [start, stop, step] where rows of several
    parts take turns.

    transposed: the last two dimensions of what the slice gives change places, because this checkpoint stores the
    matrix the other way round than the pair's `shape` has it.
    """

    name: str
    slice: list[tuple[int, int] | tuple[int, int, int]]
    transposed: bool = False

    def __str__(self) -> str:
        """As numpy would write it: "mlp.gate_up_proj.weight[0:96:2, 0:64].T"."""
        cuts = ", ".join(":".join(map(str, cut)) for cut in self.slice)
        return f"{self.name}{f'[{cuts}]' if cuts else ''}{'.T' if self.transposed else ''}"


class Reasoned(Frozen):
    """Metrics, and why those that are `None` could not be had.

    why: metric -> reason. A metric that is `None` without a reason was not asked for, or means nothing here (the
    spectrum of a layer taken as one long vector); it is left out of the JSON, and so is an empty `why`.
    """

    why: dict[str, str] = {}

    @model_serializer(mode="wrap")
    def _without_what_was_not_asked(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {
            key: value
            for key, value in write(self).items()
            if value is not None or key in self.why
            if key != "why" or value
        }


class HeadMetrics(Frozen):
    """How far one attention head moved; `relative`, `cosine` and `rms` as in DeltaMetrics.

    head: its number. Query heads in q and o, key-value heads in k and v. part: of a fused projection, which of q, k
    and v this is; left out otherwise.
    """

    head: int
    part: str | None = None
    relative: float | None
    cosine: float | None
    rms: float

    @model_serializer(mode="wrap")
    def _without_a_part(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in write(self).items() if key != "part" or value is not None}


class ExpertMetrics(Frozen):
    """How far one expert of a stack moved; `relative`, `cosine` and `rms` as in DeltaMetrics."""

    expert: int
    relative: float | None
    cosine: float | None
    rms: float


class DeltaMetrics(Reasoned):
    """How far one tensor moved.

    relative: Frobenius norm of the delta over that of the tensor it started from; `None` where that is 0.
    cosine: between the tensor before and after, in [-1, 1]; `None` where either is 0.
    rms: root mean square of the delta's entries. max_abs: its largest entry. changed: share of entries that differ.
    mean_shift: mean of the delta's entries. heads: per head, of attention's q, k, v and o. experts: per expert, of a
    stack of them.

    The rest is of the delta as a matrix, at level `full`; where the matrix has no spectrum, `why` says so once, under
    `singular_values`. Definitions and bounds: `vlsurgery.surgery.diff.spectrum`, `vlsurgery.surgery.diff.subspaces`.

    singular_values: the leading ones, at most 64, from below: the true i-th is never smaller, and larger by at most
        singular_values_error (up to rounding).
    stable_rank: squared Frobenius norm over the squared largest singular value, from 1 to the smaller side.
    effective_rank: exponential of the entropy of the singular values' shares in their sum (Roy and Vetterli 2007);
        exact, or an estimate between effective_rank_low and effective_rank_high.
    energy: "1", "8", "64" -> share of the squared Frobenius norm in so many leading singular values.
    base_overlap: share of the delta's squared norm inside of the base's leading left and right subspaces, and
        base_overlap_null, what a delta of random direction has there.
    intruder_share: share of the squared norm of the delta's leading 8 directions outside of both of these subspaces
        (cf. the intruder dimensions of Shuttleworth et al. 2024, arXiv 2410.21228), and intruder_share_null, what
        random directions have there.
    """

    relative: float | None
    cosine: float | None
    rms: float
    max_abs: float
    changed: float
    mean_shift: float | None = None
    heads: list[HeadMetrics] | None = None
    experts: list[ExpertMetrics] | None = None
    singular_values: list[float] | None = None
    singular_values_error: float | None = None
    stable_rank: float | None = None
    effective_rank: float | None = None
    effective_rank_low: float | None = None
    effective_rank_high: float | None = None
    energy: dict[str, float] | None = None
    base_overlap: float | None = None
    base_overlap_null: float | None = None
    intruder_share: float | None = None
    intruder_share_null: float | None = None


# In how many leading directions `energy` is counted.
ENERGY_DIRECTIONS: Final = ("1", "8", "64")


class Null(Frozen):
    """What a number would be of two deltas that have nothing to do with each other but share a checkpoint's noise.

    mean: where all of the noise is shared. low, high: the range in which such deltas leave the number, 95% of them.
    """

    mean: float
    low: float
    high: float


class Sides(Frozen):
    """A number of the left singular subspaces (of rows) and one of the right (of columns)."""

    left: float
    right: float


class BetweenMetrics(Reasoned):
    """How the VL delta and the safety delta of one tensor relate. Nulls: `vlsurgery.surgery.diff.nulls`.

    cosine: between the two deltas. Both contain `adapted`, so it is -.5 for three independent models and negative
        from rounding alone: a negative value is evidence of divergence only outside of `cosine_null`. `None` where a
        delta is 0.
    sign_conflict: share of the entries changed by both deltas in which they point opposite ways; `None` where there
        are none. sign_conflict_weighted: the same, each entry weighed by the product of its two changes.
    reversal: share of the safety delta's squared norm that points straight back along the VL delta, in [0, 1].
    subspace_left, subspace_right: mean squared cosine of the principal angles between the two deltas' leading 8
        singular directions; subspace_null is that of independent moves that share what storing `adapted` rounded
        away, and of unrelated models that share `adapted` alone (`vlsurgery.surgery.diff.subspace_nulls`).
    """

    cosine: float | None
    cosine_null: Null | None = None
    sign_conflict: float | None
    sign_conflict_null: Null | None = None
    sign_conflict_weighted: float | None = None
    sign_conflict_weighted_null: Null | None = None
    reversal: float | None = None
    reversal_null: Null | None = None
    subspace_left: float | None = None
    subspace_right: float | None = None
    subspace_null: Sides | None = None


class PairMetrics(Frozen):
    vl: DeltaMetrics | None = None
    safety: DeltaMetrics | None = None
    between: BetweenMetrics | None = None


class Match(Frozen):
    """One site that the checkpoints share. `names`: role -> the tensor's raw name, or a slice of it.

    added, own_layer: of a layer that adaptation inserted; `layer` is then None, and `own_layer` the number that it has
    in the models that hold it.
    """

    tower: Tower
    layer: int | None
    component: str
    added: bool = False
    own_layer: int | None = None
    names: dict[str, str | SliceName]
    shape: list[int]


class Pair(Match):
    """A match, and what was measured on it."""

    block: str | None
    dtype: str
    metrics: PairMetrics


class UnmatchedTensor(Frozen):
    """A tensor without partner, and why: the reason says what was looked for."""

    role: str
    name: str
    reason: str


class Mismatch(Frozen):
    """A setting or a vocabulary in which checkpoints differ though their shapes agree.

    name: what differs ("rope_theta", "tokens"), as `--ignore-mismatch` takes it. values: role -> its value in words,
    only of the roles that have one. meaning: what the difference does. serious: rows of the embedding or head stand
    for other tokens, so that a merge of them is refused.
    """

    name: str
    values: dict[str, str]
    meaning: str
    serious: bool = False

    def sentence(self) -> str:
        """The mismatch in one line of words."""
        values = ", ".join(f"{value} in {role}" for role, value in self.values.items())
        return f"different {self.name}: {values}. {self.meaning}"


class Summary(Frozen):
    """One layer, block or tower: the metrics of all its tensors taken as one long vector."""

    key: str
    tower: Tower
    layer: int | None
    tensors: int
    parameters: int
    metrics: PairMetrics


def _pair_row(pair: Pair | None) -> Row:
    """Where a pair is, by the adapted model's name, and its metrics: `vl.relative`, `between.cosine_null.mean`, ..."""
    row = flat(pair, Pair)
    row["names"] = None if pair is None else str(pair.names.get("adapted", ""))
    row["shape"] = None if pair is None else "x".join(map(str, pair.shape))
    for delta in ("vl", "safety"):
        row = spread(row, f"metrics.{delta}.energy", ENERGY_DIRECTIONS)
    found = {key.removeprefix("metrics."): value for key, value in row.items()}
    return {"name" if key == "names" else key: value for key, value in found.items()}


# The keys of a diff that went by another name in schema 1.
RENAMED_IN_SCHEMA_2: Final = {
    "foreign": "intruder_share",
    "foreign_null": "intruder_share_null",
    "undoes": "reversal",
    "undoes_null": "reversal_null",
}


class DiffResult(Result):
    """What changed in the weights.

    verdict: where most of the change sits, in words. notes: what a reader should know beside it (vocabulary that
    grew, a stale head). warnings: what puts the whole result in doubt (a base that does not look like the parent).
    mismatches: settings and tokens in which the checkpoints differ; notes and warnings tell them too.
    """

    kind: ClassVar[str] = "diff"
    row_field: ClassVar[str] = "pairs"
    shown: ClassVar[tuple[str, ...]] = (
        "tower", "layer", "component", "vl.relative", "vl.cosine", "safety.relative", "between.cosine",
    )  # fmt: skip
    schema_number: ClassVar[int] = 2

    pairs: list[Pair]
    unmatched: list[UnmatchedTensor]
    layers: list[Summary]
    blocks: list[Summary]
    towers: list[Summary]
    verdict: str
    notes: list[str] = []
    warnings: list[str] = []
    mismatches: list[Mismatch] = []

    def rows(self) -> list[Row]:
        """One row a pair: where it is, and every metric. What could not be had is None."""
        return [_pair_row(pair) for pair in self.pairs]

    @classmethod
    def columns(cls) -> list[str]:
        return list(_pair_row(None))

    @model_validator(mode="before")
    @classmethod
    def _read_schema_1(cls, data: Any) -> Any:
        """Files of schema 1 called two metrics otherwise."""
        if not isinstance(data, dict) or data.get("schema") != "vlsurgery/diff/1":
            return data
        text = json.dumps(data)
        for old, new in RENAMED_IN_SCHEMA_2.items():
            text = text.replace(f'"{old}"', f'"{new}"')
        return {**json.loads(text), "schema": f"vlsurgery/diff/{cls.schema_number}"}


class Shared(Frozen):
    """How much of one checkpoint has a partner. paired: tensors of which at least a part is in a pair."""

    tensors: int
    paired: int
    parameters: int
    paired_parameters: int


class ComparisonResult(Result):
    """What several checkpoints share: `vlsurgery anatomy` of two or more. like: whose tensors the others are matched
    with. mismatches: settings and tokens in which they differ."""

    kind: ClassVar[str] = "alignment"
    row_field: ClassVar[str] = "pairs"

    like: str
    roles: dict[str, Shared]
    pairs: list[Match]
    unmatched: list[UnmatchedTensor]
    notes: list[str] = []
    mismatches: list[Mismatch] = []


class MergeResult(Tabular, Frozen):
    """What a merge wrote: `shards` maps each file to the SHA-256 of its bytes.

    notes: what an earlier, unfinished run of it had left and what became of that, and what was left out of the merge.
    mismatches: settings and tokens in which the parents differ.
    """

    path: str
    tensors: int
    bytes: int
    seconds: float
    shards: dict[str, str]
    kept: int
    blended: int
    notes: list[str] = []
    mismatches: list[Mismatch] = []

    row_field: ClassVar[str] = "shards"

    def rows(self) -> list[Row]:
        """One row a weight file."""
        return [{"file": file, "sha256": digest} for file, digest in self.shards.items()]

    @classmethod
    def columns(cls) -> list[str]:
        return ["file", "sha256"]

    def headline(self) -> str:
        return f"MergeResult({self.path}: {self.tensors} tensors, {self.blended} merged, {self.kept} kept)"
