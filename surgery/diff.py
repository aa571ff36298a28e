"""What changed in the weights between checkpoints, site by site, and summed up by layer, block and tower."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Final, TypeVar

from surgery.alignment import Aligned, Alignment, align
from surgery.anatomy import Site
from surgery.checkpoint import Checkpoint
from surgery.metrics import BetweenSums, DeltaSums
from surgery.progress import Track, silent
from surgery.results import DiffResult, Pair, PairMetrics, Summary

if TYPE_CHECKING:
    from torch import Tensor

# Entries measured at a time. What is computed of them stays in the processor's cache: three times as fast as on the
# much larger pieces in which files are best read.
BLOCK: Final = 1 << 15

# Below this median cosine between the matrices of base and adapted, the one is hardly made from the other: unrelated
# models have 0, fine-tuned ones .99 and more. Norms don't count: they are near 1 in every model.
KINSHIP: Final = 0.5


@dataclass(frozen=True)
class Sums:
    """The sums of one pair, or of many taken as one long vector; None where a role is missing."""

    vl: DeltaSums | None = None
    safety: DeltaSums | None = None
    between: BetweenSums | None = None

    def __add__(self, other: "Sums") -> "Sums":
        return Sums(_added(self.vl, other.vl), _added(self.safety, other.safety), _added(self.between, other.between))

    def metrics(self) -> PairMetrics:
        return PairMetrics(
            vl=self.vl and self.vl.metrics(),
            safety=self.safety and self.safety.metrics(),
            between=self.between and self.between.metrics(),
        )


Addable = TypeVar("Addable", DeltaSums, BetweenSums)


def diff(checkpoints: Mapping[str, Checkpoint], track: Track = silent) -> DiffResult:
    """Measure how far adaptation (adapted - base) and safety tuning (safety - adapted) moved every shared tensor.

    checkpoints: role -> checkpoint; `base`, `adapted`, and optionally `safety` (of several, the first is
    measured). Every checkpoint is read once, in file order, in chunks.

    Raises AlignmentError when they share too little, CheckpointError when a tensor can't be read or holds NaN.
    """
    alignment = align(checkpoints)
    safety = safety_role(checkpoints)
    sums = {
        pair.site: _measure(alignment, pair, safety)
        for pair in track(alignment.in_file_order(), "comparing weights", len(alignment.pairs))
    }
    pairs = [_pair(alignment, pair, sums[pair.site]) for pair in alignment.pairs]
    return DiffResult(
        checkpoints={role: checkpoint.ref_model for role, checkpoint in checkpoints.items()},
        pairs=pairs,
        unmatched=list(alignment.unmatched),
        layers=_summaries(alignment.pairs, sums, _layer_key),
        blocks=_summaries(alignment.pairs, sums, lambda site: site.block),
        towers=_summaries(alignment.pairs, sums, lambda site: site.tower),
        verdict=_verdict(alignment.pairs, sums),
        notes=list(alignment.notes),
        warnings=_kinship(pairs),
    )


def safety_role(roles: Iterable[str]) -> str | None:
    """The role whose delta counts as safety tuning: `safety`, or else the first of `safety:NAME`."""
    named = [role for role in roles if role == "safety" or role.startswith("safety:")]
    return min(named, key=lambda role: role != "safety", default=None)


def _measure(alignment: Alignment, pair: Aligned, safety: str | None) -> Sums:
    """The sums of one pair, read chunk by chunk."""
    roles = [role for role in ("base", "adapted", safety) if role is not None and role in pair.parts]
    names = {role: alignment.label(pair, role) for role in roles}
    total = Sums()
    for chunk in alignment.chunks(pair, roles):
        for start in range(0, len(chunk["adapted"]), BLOCK):
            block = {role: vector[start : start + BLOCK] for role, vector in chunk.items()}
            total += _sums(block, names, safety)
    return total


def _sums(chunk: Mapping[str, "Tensor"], names: Mapping[str, str], safety: str | None) -> Sums:
    adapted, base = chunk["adapted"], chunk.get("base")
    tuned = None if safety is None else chunk.get(safety)
    vl = moved = between = None
    if base is not None:
        vl = DeltaSums.of(base, adapted, (names["base"], names["adapted"]))
    if safety is not None and tuned is not None:
        moved = DeltaSums.of(adapted, tuned, (names["adapted"], names[safety]))
        if base is not None:
            between = BetweenSums.of(base, adapted, tuned, (names["base"], names["adapted"], names[safety]))
    return Sums(vl, moved, between)


def _pair(alignment: Alignment, pair: Aligned, sums: Sums) -> Pair:
    return Pair(
        tower=pair.site.tower,
        layer=pair.site.layer,
        component=pair.site.component,
        block=pair.site.block,
        added=pair.site.own_layer is not None,
        own_layer=pair.site.own_layer,
        names={role: part.label() for role, part in pair.parts.items()},
        shape=list(pair.shape),
        dtype=alignment.tensor(pair, alignment.like).dtype_name,
        metrics=sums.metrics(),
    )


def _layer_key(site: Site) -> str | None:
    return None if site.tower != "text" or site.layer is None else str(site.layer)


def _summaries(
    pairs: Iterable[Aligned], sums: Mapping[Site, Sums], key_of: Callable[[Site], str | None]
) -> list[Summary]:
    """The pairs of each key taken as one long vector; keys in the order of their first site, None left out."""
    groups: dict[str, list[Aligned]] = {}
    for pair in pairs:
        key = key_of(pair.site)
        if key is not None:
            groups.setdefault(key, []).append(pair)
    return [
        Summary(
            key=key,
            tower=members[0].site.tower,
            layer=members[0].site.layer if key[0].isdecimal() else None,
            tensors=len(members),
            parameters=sum(pair.numel for pair in members),
            metrics=sum((sums[pair.site] for pair in members), Sums()).metrics(),
        )
        for key, members in groups.items()
    ]


def _verdict(pairs: Iterable[Aligned], sums: Mapping[Site, Sums]) -> str:
    """Where most of the squared VL delta sits, in words that don't claim more than weights can tell."""
    moved: dict[str, float] = {}
    for pair in pairs:
        change = sums[pair.site].vl
        if change is not None and pair.site.tower == "text":
            key = pair.site.block or "other parts"
            moved[key] = moved.get(key, 0.0) + change.delta_squared
    whole = sum(moved.values())
    if not moved:
        return "Base and adapted share no weights that could have changed."
    if not whole:
        return "No text weight differs between base and adapted: whatever changed sits outside of the language model."
    ranked = sorted(moved, key=lambda key: -moved[key])
    half, share = [], 0.0
    for key in ranked:
        half.append(key)
        share += moved[key] / whole
        if share >= 0.5:
            break
    return (
        f"Half of what adaptation changed in the language model (by squared size) sits in {len(half)} of {len(moved)} "
        f"blocks: {', '.join(half[:6])}{', ...' if len(half) > 6 else ''}. This says where weights moved, not where "
        "safety went: small changes can cost refusals and large ones need not. That is what vlsurgery probe measures."
    )


def _kinship(pairs: Iterable[Pair]) -> list[str]:
    """A warning where the base does not look like the adapted model's parent, with the figures that say so."""
    moved = [pair.metrics.vl for pair in pairs if pair.tower == "text" and len(pair.shape) > 1 and pair.metrics.vl]
    cosines = [metrics.cosine for metrics in moved if metrics.cosine is not None]
    changes = [metrics.relative for metrics in moved if metrics.relative is not None]
    if not cosines or not changes or median(cosines) >= KINSHIP:
        return []
    return [
        "The base hardly looks like the adapted model's parent: the median cosine of their text matrices is "
        f"{median(cosines):.2f} and they differ by {median(changes):.0%} of their norm, where a fine-tuned model has "
        ".99 and more and a few percent, and an unrelated one 0 and 141%. Check that it is the right base."
    ]


def _added(first: Addable | None, second: Addable | None) -> Addable | None:
    if first is None or second is None:
        return first or second
    return first + second
