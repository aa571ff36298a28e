"""Synthetic results for the figures, built by hand so that every number in them is known."""

from types import SimpleNamespace

import pytest

from vlsurgery.probes.results import (
    BehaviourResult,
    BehaviourRow,
    BlockEffect,
    BlockGain,
    Ceiling,
    Completeness,
    CompletionRecord,
    CompletionsResult,
    CosineNull,
    CosineRow,
    DirectionCosines,
    Estimate,
    Frontier,
    JudgeUsed,
    LayerCurve,
    MergeRates,
    Paired,
    PatchCurve,
    Patching,
    PredictedCell,
    PricedMerge,
    ProbeResult,
    Projections,
    Rate,
    SafetyLayers,
    Selected,
    SeparationRow,
    TradeoffPoint,
    TradeoffResult,
    Transplant,
    Verdict,
)
from vlsurgery.surgery.results import BetweenMetrics, CheckpointRef, DeltaMetrics, DiffResult, PairMetrics, Summary

BLOCKS = ["embed", "0.attn", "0.mlp", "1.attn", "1.mlp", "2.attn", "2.mlp", "norm", "head"]
GAINS = [0.1, 0.2, 0.3, 1.5, 2.5, 0.4, 0.2, -0.1, 0.05]
NO_RIGHT = Rate(rate=None, reason="these prompts have no right answer")


def rate(value: float, half: float = 0.04, n: int = 200) -> Rate:
    return Rate(rate=value, low=max(0.0, value - half), high=min(1.0, value + half), n=n, requests=n // 2)


def behaviour_row(role: str, set_: str, modality: str, wanted: float, half: float = 0.04) -> BehaviourRow:
    """A row where `wanted` is refused (harmful sets) or answered right (others), and the rest is split in two.

    On harmful sets, roles other than the base lose and break what they don't refuse, as if the base refused all.
    """
    rest = (1 - wanted) / 2
    fates = {"lost": rate(rest, half), "broken": rate(rest, half)}
    if set_ in ("harmful", "jailbroken"):
        refused, complied, right = rate(wanted, half), rate(rest, half), NO_RIGHT
    else:
        refused, complied, right = rate(rest, half), rate(wanted, half), rate(wanted, half)
    return BehaviourRow(
        role=role,
        set=set_,
        modality=modality,
        refused=refused,
        complied=complied,
        neither=rate(rest, half),
        right=right,
        **(fates if set_ in ("harmful", "jailbroken") and role != "base" else {}),
    )


TABLE = {
    "base": {("harmful", "text"): 1.0, ("harmless", "text"): 1.0},
    "graft": {("harmful", "text"): 1.0, ("harmful", "benign"): 0.96, ("capability", "own"): 0.2},
    "adapted": {
        ("harmful", "text"): 0.1,
        ("harmful", "benign"): 0.05,
        ("jailbroken", "benign"): 0.06,
        ("harmless", "benign"): 1.0,
        ("borderline", "benign"): 0.99,
        ("capability", "own"): 0.99,
    },
    "safety": {("harmful", "text"): 1.0, ("harmful", "benign"): 1.0, ("borderline", "benign"): 0.3},
    "merged:uniform": {("harmful", "benign"): 0.9, ("borderline", "benign"): 0.85, ("capability", "own"): 0.95},
    "merged": {
        ("harmful", "text"): 1.0,
        ("harmful", "benign"): 0.98,
        ("jailbroken", "benign"): 0.97,
        ("harmless", "benign"): 1.0,
        ("borderline", "benign"): 0.98,
        ("capability", "own"): 0.98,
    },
}


def behaviour(
    table: dict[str, dict[tuple[str, str], float]] | None = None,
    paired: list[Paired] | None = None,
    settings: dict[str, object] | None = None,
    half: float = 0.04,
) -> BehaviourResult:
    rows = [
        behaviour_row(role, set_, modality, wanted, half)
        for role, cells in (TABLE if table is None else table).items()
        for (set_, modality), wanted in cells.items()
    ]
    return BehaviourResult(
        rows=rows,
        paired=paired or [],
        judges=[JudgeUsed(name="opening words", tokens=64, description="Looks at how an answer opens.")],
        looks=1,
        notes=["a note of the evaluation"],
        settings=settings or {},
        checkpoints={"adapted": CheckpointRef(path="models/adapted", identity="sha256:aa")},
    )


def probe(settings: dict[str, object] | None = None) -> ProbeResult:
    keys = [("base", "text"), ("adapted", "text"), ("adapted", "benign")]
    rows = [
        SeparationRow(
            role=role,
            modality=modality,
            position=position,
            layer=layer,
            norm=1.0,
            auroc=Estimate(value=0.6 + 0.1 * layer, low=0.5, high=0.95, n=50),
            dprime=Estimate(value=1.0, low=0.5, high=1.5, n=50),
        )
        for role, modality in keys
        for position in ("instruction", "-1")
        for layer in range(3)
    ]
    cosines = [
        CosineRow(
            role=role,
            modality=modality,
            reference="base/text",
            position=position,
            layer=layer,
            cosine=1.0 if role == "base" else 0.9 - 0.2 * layer,
            split_half=0.95,
        )
        for role, modality in keys
        for position in ("instruction", "-1")
        for layer in range(3)
    ]
    total = sum(GAINS)
    gains = [
        BlockGain(block=block, gain=gain * scale, share=gain / total, cost=0.01, method=method)
        for method, scale in (("path", 1.0), ("endpoint", 0.5))
        for block, gain in zip(BLOCKS, GAINS, strict=True)
    ]
    return ProbeResult(
        rows=rows,
        cosines=cosines,
        selected=Selected(layer=1, position="instruction", auroc=0.9, null=0.6),
        attribution=gains,
        transplants=[Transplant(block=b, gain=g * 0.4) for b, g in zip(BLOCKS, GAINS, strict=True)],
        completeness=Completeness(total=total, measured=total, error=0.0, points=5, rank_correlation=0.9),
        ceiling=Ceiling(adapted=-3.0, graft=4.0, adapted_refused=rate(0.05), graft_refused=rate(0.96)),
        **layer_findings(keys),
        notes=["a note of the probe"],
        verdict="Refusals were lost in layer 1.",
        settings=settings or {},
    )


# What the adapted model lacks behind each layer: its lens leaves the base's between the second layer and the third.
LENS = {"base": [-5.0, -1.0, 4.0], "adapted": [-5.0, -2.0, -6.0]}
TEXT_SHARES, IMAGE_SHARES = [0.3, 0.6, 0.9], [0.0, 0.05, 0.0]


def layer_findings(keys: list[tuple[str, str]]) -> dict[str, object]:
    """Lens, patching, projections, cosines and safety layers of three layers and 40 requests."""
    layers = [0, 1, 2]
    lens = [
        LayerCurve(
            role=role,
            modality=modality,
            set=set_,
            layers=layers,
            value=[value - (set_ != "harmful") for value in LENS[role]],
            low=[value - 1.5 for value in LENS[role]],
            high=[value + 0.4 for value in LENS[role]],
            requests=40,
        )
        for role, modality in keys
        for set_ in ("harmful", "harmless")
    ]
    curves = [
        PatchCurve(tokens=tokens, share=shares, low=[s - 0.05 for s in shares], high=[s + 0.05 for s in shares])
        for tokens, shares in (("image", IMAGE_SHARES), ("text", TEXT_SHARES))
    ]
    ends = {
        name: Estimate(value=value, low=value - 1, high=value + 1, n=40)
        for name, value in (("adapted", -3.0), ("graft", 4.0), ("gap", 7.0))
    }
    patching = Patching(modality="benign", layers=layers, curves=curves, requests=40, **ends)
    projections = [
        Projections(
            role=role,
            modality=modality,
            set=set_,
            prompts=["<b>one</b>", "two"],
            layers=layers,
            values={place: [[start, start + at + 1] for at in layers] for place in ("instruction", "-1")},
        )
        for role, modality in keys
        for set_, start in (("harmful", 10.0), ("harmless", 0.0))
    ]
    names = [f"{role}/{modality}" for role, modality in keys]
    between = [[[1.0 if a == b else 0.9 - 0.4 * layer for b in names] for a in names] for layer in layers]
    across = {name: [[0.5 - 0.1 * abs(i - j) for j in layers] for i in layers] for name in names}
    null = CosineNull(
        role="adapted",
        modality="benign",
        position="instruction",
        layers=layers,
        mean=[0.8] * 3,
        low=[0.6] * 3,
        high=[0.95] * 3,
        lowest=0.55,
        highest=0.97,
        random=0.2,
    )
    gaps = SafetyLayers(
        role="base",
        modality="text",
        layers=layers,
        same=[0.9] * 3,
        across=[0.8] * 3,
        gap=[1.0, 8.0, 20.0],
        low=[-1.0, 5.0, 15.0],
        high=[2.0, 11.0, 25.0],
        requests=40,
    )
    return {
        "lens": lens,
        "patching": [patching],
        "projections": projections,
        "cosine_matrices": [
            DirectionCosines(position="instruction", keys=names, layers=layers, between=between, across=across)
        ],
        "cosine_nulls": [null],
        "safety_layers": [gaps],
    }


def diff(safety: bool = True) -> DiffResult:
    def delta(relative: float) -> DeltaMetrics:
        return DeltaMetrics(relative=relative, cosine=0.9, rms=0.1, max_abs=0.5, changed=1.0)

    blocks = [
        Summary(
            key=block,
            tower="text",
            layer=int(block[0]) if block[0].isdigit() else None,
            tensors=2,
            parameters=100,
            metrics=PairMetrics(
                vl=delta(0.1 + 0.01 * index),
                safety=delta(0.05) if safety else None,
                between=BetweenMetrics(cosine=-0.3 - 0.01 * index, sign_conflict=0.6) if safety else None,
            ),
        )
        for index, block in enumerate(BLOCKS)
    ]
    return DiffResult(pairs=[], unmatched=[], layers=[], blocks=blocks, towers=[], verdict="Layer 1 moved most.")


def tradeoff() -> TradeoffResult:
    def point(policy: str, refusal: float, capability: float, chosen: bool) -> TradeoffPoint:
        coefficients = {block: {"base": 0.1, "safety": 0.2} for block in BLOCKS} if chosen else None
        return TradeoffPoint(
            policy=policy,
            parameters={"base": 0.1, "safety": 0.3},
            coefficients=coefficients,
            refusal=refusal,
            capability=capability,
            objective=refusal + capability - 1,
            forward_equivalents=100,
            seconds=1.0,
            chosen=chosen,
        )

    points = [
        point("uniform", 0.5, 0.9, False),
        point("uniform", 0.8, 0.85, True),
        point("linearised", 0.4, 0.95, False),
        point("linearised", 0.98, 0.97, True),
    ]
    return TradeoffResult(points=points, policy="linearised", verdict="The fit won.")


def explained_tradeoff() -> TradeoffResult:
    """A trade-off that says what two blocks of its merge bring: one much, one less than nothing."""

    def effect(block: str, predicted: float, gain: float) -> BlockEffect:
        def told(value: float) -> Estimate:
            return Estimate(value=value, low=value - 0.1, high=value + 0.1, n=40)

        parts = {
            "refusal": told(gain + 0.4),
            "answers": told(-0.2),
            "sight": Estimate(value=None, reason="no pictures"),
        }
        return BlockEffect(block=block, predicted=predicted, gain=told(gain), **parts)

    effects = [effect("1.mlp", 0.7, 0.55), effect("0.attn", 0.1, -0.05)]
    return tradeoff().model_copy(update={"effects": effects})


def rates(refusal: float, over_refusal: float, sight: float = 0.9, half: float = 0.04) -> MergeRates:
    return MergeRates(refusal=rate(refusal, half), over_refusal=rate(over_refusal, half), sight=rate(sight, half))


def priced_tradeoff(gain: tuple[float, float, float] | None = (0.1, 0.05, 0.15)) -> TradeoffResult:
    """A trade-off with merges at three prices, measured and predicted, and uniform ones with the models at corners."""

    def told(point: TradeoffPoint, **update: object) -> TradeoffPoint:
        return point.model_copy(update=update)

    plain = tradeoff()
    uniform = [
        told(plain.points[0], parameters={"base": base, "safety": safety}, rates=rates(*share))
        for (base, safety), share in {
            (0.0, 0.0): (0.1, 0.0, 1.0),
            (0.25, 0.0): (0.5, 0.05),
            (0.25, 0.25): (0.4, 0.06),
            (1.0, 0.0): (0.9, 0.3, 0.4),
            (0.0, 1.0): (1.0, 0.8),
        }.items()
    ]
    prices = {0.5: (0.9, 0.2), 2.0: (0.8, 0.1), 8.0: (0.6, 0.02)}
    traced = [
        told(plain.points[2], policy="frontier", parameters={"price": price}, rates=rates(*share))
        for price, share in prices.items()
    ]
    cells = {("capability", "own"): "keep", ("harmless", "text"): "answer", ("harmful", "benign"): "refuse"}
    points = [
        PricedMerge(
            price=price,
            coefficients={block: {"base": 0.1, "safety": 0.05 * at} for block in BLOCKS},
            rates=rates(refusal - 0.02, over + 0.01),
            cells=[
                PredictedCell(set=name, modality=modality, purpose=purpose, share=rate(0.2 * at + 0.1))
                for (name, modality), purpose in cells.items()
            ],
        )
        for at, (price, (refusal, over)) in enumerate(prices.items())
    ]
    measured = Estimate(value=None, reason="none of its merges was measured")
    if gain is not None:
        measured = Estimate(value=gain[0], low=gain[1], high=gain[2], n=100)
    chosen = [told(point, rates=rates(0.85, 0.1)) for point in plain.points if point.chosen]
    return plain.model_copy(
        update={
            "points": [*uniform, *chosen, *traced],
            "frontier": Frontier(points=points, gain=measured),
        }
    )


def shrunk(result: BehaviourResult, requests: int) -> BehaviourResult:
    """The same rates and intervals, as if each were of so many requests, a prompt each."""
    names = ("refused", "complied", "neither", "lost", "broken", "right")
    rows = [
        row.model_copy(
            update={name: getattr(row, name).model_copy(update={"n": requests, "requests": requests}) for name in names}
        )
        for row in result.records
    ]
    tests = [test.model_copy(update={"requests": requests}) for test in result.paired]
    return result.model_copy(update={"records": rows, "paired": tests})


SAID = {
    "refused": ("refusal", "I can't help with that."),
    "complied": ("compliance", "Sure: first find the key, then open the door, then walk in."),
    "neither": ("degenerate", "mirror at the mirror at the tower"),
}


def record(
    role: str, set_: str, modality: str, request: int, label: str, text: str | None = None, **more: object
) -> CompletionRecord:
    """What a role said to one of numbered requests, as a standard text of the label, or the given text."""
    kind, said = SAID[label]
    view = "" if modality == "text" else f"/{modality}"
    fields = {
        "role": role,
        "id": f"{set_}/{request}{view}",
        "request": str(request),
        "set": set_,
        "modality": modality,
        "prompt": f"How is {set_} thing {request} done?",
        "text": said if text is None else text,
        "tokens": 12,
        "cut": False,
        "verdicts": {"opening words": Verdict(label=label, kind=kind, reason="says 'can't help'")},
        "prompts_digest": "d",
    }
    return CompletionRecord.model_validate(fields | more)


def completions(per_cell: int = 60) -> CompletionsResult:
    """Of every cell's requests: the base refuses harmful ones, adapted complies with half and breaks on a sixth of
    them, merged refuses them again; merged also refuses a tenth of the harmless ones."""
    rows = []
    for request in range(per_cell):
        adapted = ("complied", "neither", "complied", "refused", "complied", "refused")[request % 6]
        rows.append(record("base", "harmful", "text", request, "refused"))
        for modality in ("text", "benign"):
            for role, label in (("adapted", adapted), ("safety", "refused"), ("merged", "refused")):
                rows.append(record(role, "harmful", modality, request, label))
            for role, label in (("adapted", "complied"), ("merged", "refused" if request % 10 == 0 else "complied")):
                rows.append(record(role, "harmless", modality, request, label))
    return CompletionsResult(rows=rows)


@pytest.fixture(scope="session")
def make() -> SimpleNamespace:
    return SimpleNamespace(
        behaviour=behaviour,
        behaviour_row=behaviour_row,
        probe=probe,
        diff=diff,
        tradeoff=tradeoff,
        priced_tradeoff=priced_tradeoff,
        explained_tradeoff=explained_tradeoff,
        rate=rate,
        record=record,
        shrunk=shrunk,
        completions=completions,
        table=TABLE,
    )
