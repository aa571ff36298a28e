"""Layers, blocks and towers as one long vector each, and what they say in words."""

from collections.abc import Callable, Iterable, Mapping
from statistics import median
from typing import Final

from vlsurgery.surgery.alignment import Aligned
from vlsurgery.surgery.architecture.site import Site
from vlsurgery.surgery.diff.metrics import PairStatistics
from vlsurgery.surgery.diff.nulls import RELATED_COSINE
from vlsurgery.surgery.results import Pair, PairMetrics, Summary

# A safety checkpoint that was made from the base, not from the adapted model, takes back all of the VL delta, up to
# this share of it.
SIBLING_TOLERANCE: Final = 0.05


def layer_key(site: Site) -> str | None:
    """The layer of a text site; None for other sites."""
    return None if site.tower != "text" or site.layer is None else str(site.layer)


def summaries(
    pairs: Iterable[Aligned], statistics: Mapping[Site, PairStatistics], key_of: Callable[[Site], str | None]
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
            metrics=sum((statistics[pair.site] for pair in members), PairStatistics()).metrics(),
        )
        for key, members in groups.items()
    ]


def verdict(pairs: Iterable[Aligned], statistics: Mapping[Site, PairStatistics], text: PairMetrics | None) -> str:
    """Which blocks hold half of the squared VL delta, and whether safety tuning goes against it, in words that claim no
    more than weights can tell. text: the metrics of the text tower."""
    moved: dict[str, float] = {}
    for pair in pairs:
        change = statistics[pair.site].vl
        if change is not None and pair.site.tower == "text":
            key = pair.site.block or "inserted layers"
            moved[key] = moved.get(key, 0.0) + change.delta_squared
    whole = sum(moved.values())
    if not moved:
        return "Base and adapted share no weights that could have changed."
    if not whole:
        return "No text weight differs between base and adapted: whatever changed sits outside of the language model."
    half, share = [], 0.0
    for key in sorted(moved, key=lambda key: -moved[key]):
        half.append(key)
        share += moved[key] / whole
        if share >= 0.5:
            break
    return (
        f"Half of what adaptation changed in the language model (by squared size) sits in {len(half)} of {len(moved)} "
        f"blocks: {', '.join(half[:6])}{', ...' if len(half) > 6 else ''}. This says where weights moved, not where "
        "safety went: small changes can cost refusals and large ones need not. That is what vlsurgery probe measures."
        + _against(text)
    )


def _against(text: PairMetrics | None) -> str:
    """How the cosine of the two deltas lies to its null, in words."""
    between = text.between if text else None
    if text is None or between is None or between.cosine is None or between.cosine_null is None:
        return ""
    null = between.cosine_null
    if between.cosine < null.low:
        sense = "safety tuning goes against adaptation beyond what they share"
    elif between.cosine > null.high:
        sense = "safety tuning goes further where adaptation went"
    else:
        sense = "nothing is left beyond what they share"
    if between.cosine < null.low and text.vl and text.safety and text.vl.rms:
        taken_back = -between.cosine * text.safety.rms / text.vl.rms
        if abs(taken_back - 1) < SIBLING_TOLERANCE:
            sense += (
                f". It takes {taken_back:.0%} of the VL delta back, as if the safety checkpoint was made from the base "
                "and not from the adapted one; of such siblings the cosine says nothing"
            )
    alone = f"{round(null.mean, 3) + 0.0:.3f} ({null.low:.3f} to {null.high:.3f})"
    return (
        f" In the text tower the safety delta's cosine with the VL delta is {between.cosine:.3f}, where the noise of "
        f"the adapted weights, which both contain, gives {alone} by itself: {sense}."
    )


def parent_warning(pairs: Iterable[Pair]) -> list[str]:
    """A warning where the base does not look like the adapted model's parent, with the figures that say so."""
    moved = [pair.metrics.vl for pair in pairs if pair.tower == "text" and len(pair.shape) > 1 and pair.metrics.vl]
    cosines = [metrics.cosine for metrics in moved if metrics.cosine is not None]
    changes = [metrics.relative for metrics in moved if metrics.relative is not None]
    if not cosines or not changes or median(cosines) >= RELATED_COSINE:
        return []
    return [
        "The base hardly looks like the adapted model's parent: the median cosine of their text matrices is "
        f"{median(cosines):.2f} and they differ by {median(changes):.0%} of their norm, where a fine-tuned model has "
        ".99 and more and a few percent, and an unrelated one 0 and 141%. Check that it is the right base."
    ]
