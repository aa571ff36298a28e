"""C4: whether the VL delta and the safety delta point apart, beyond what a shared checkpoint makes them."""

from collections.abc import Sequence

from vlsurgery.probes.claims.evidence import averaged, decided, missing, together
from vlsurgery.probes.claims.findings import CaseFindings
from vlsurgery.probes.claims.wording import figures, signed, told
from vlsurgery.probes.results import Claim, ClaimEvidence
from vlsurgery.surgery.results import BetweenMetrics, DiffResult

NAME = "cosine of VL delta and safety delta, language model"
SMALLEST_COSINE = 0.05  # 3 degrees; a cosine that is surely nearer to its null than that is no divergence


def deltas_diverge(cases: Sequence[CaseFindings]) -> Claim:
    """C4: the cosine in the language model against its null.

    Both deltas contain the adapted model, so the cosine is -.5 for unrelated models and negative from rounding alone:
    the bar is what the case's own null gives. The interval is that of the null, moved to the value.
    """
    found = averaged({case.name: _cosine(case.diff) for case in cases}, SMALLEST_COSINE)
    layers = [both for case in cases if case.diff for both in _layers(case.diff)]
    below = sum(_is_below(each) for each in layers)
    said = f"The cosine is {figures(found)}, where shared noise gives {signed(found.bar)}"
    said += f"; it lies below its own null in {below} of {len(layers)} layers." if layers else "."
    straight = min(0.0, found.value or 0.0) ** 2
    said = told(f"{said} {straight:.1%} of the safety delta's squared size points straight back.", found)
    return Claim(
        key="C4",
        text="Adaptation and safety tuning move weights in diverging directions",
        verdict=together([found]),
        said=said,
        evidence=[found],
    )


def _cosine(diff: DiffResult | None) -> ClaimEvidence:
    text = next((tower for tower in diff.towers if tower.key == "text"), None) if diff else None
    between = text.metrics.between if text else None
    null = between.cosine_null if between else None
    if between is None or between.cosine is None or null is None:
        return missing(NAME, "no safety-tuned checkpoint was compared")
    found = ClaimEvidence(
        name=NAME,
        unit="cosine",
        value=between.cosine,
        low=max(-1.0, between.cosine - (null.high - null.mean)),
        high=min(1.0, between.cosine + (null.mean - null.low)),
        bar=null.mean,
        above=False,
        verdict="can't tell",
    )
    return decided(found, SMALLEST_COSINE)


def _layers(diff: DiffResult) -> list[BetweenMetrics]:
    return [
        layer.metrics.between
        for layer in diff.layers
        if layer.tower == "text" and layer.layer is not None and layer.metrics.between is not None
    ]


def _is_below(between: BetweenMetrics) -> bool:
    return between.cosine is not None and between.cosine_null is not None and between.cosine < between.cosine_null.low
