"""Made-up cases, in which every share is known."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from vlsurgery.probes.claims import CaseFindings
from vlsurgery.probes.results import (
    CompletionRecord,
    CompletionsResult,
    Label,
    LayerGains,
    LayersResult,
    PolicyDifference,
    TradeoffPoint,
    TradeoffResult,
    Verdict,
)
from vlsurgery.surgery.results import BetweenMetrics, DeltaMetrics, DiffResult, Null, PairMetrics, Summary

KINDS = {"refused": "refusal", "complied": "compliance", "neither": "degenerate"}
Shares = Mapping[tuple[str, str], float]  # role and set -> share of requests that are refused


def record(role: str, set_: str, number: int, label: Label, modality: str = "text") -> CompletionRecord:
    return CompletionRecord(
        role=role,
        id=f"{set_}/{modality}/{number}",
        request=f"{'deed' if set_ in ('harmful', 'jailbroken', 'harmless') else set_} {number}",
        set=set_,
        modality=modality,
        prompt=f"{set_} {number}",
        text=label,
        tokens=4,
        cut=False,
        verdicts={"standard": Verdict(label=label, kind=KINDS[label], reason="made up")},
        prompts_digest="0",
    )


def completions(shares: Shares, requests: int, other: Label = "complied") -> CompletionsResult:
    """The first `share` of the requests refused, the rest `other` (harmless ones are complied with)."""
    made = []
    for (role, set_), share in shares.items():
        for number in range(requests):
            rest: Label = other if set_ in ("harmful", "jailbroken") else "complied"
            made.append(record(role, set_, number, "refused" if number < share * requests else rest))
    return CompletionsResult(records=made)


def deltas(relative: float = 0.1, cosine: float = -0.3, null: float = 0.0, half: float = 0.02) -> PairMetrics:
    moved = DeltaMetrics(relative=relative, cosine=0.9, rms=0.1, max_abs=1.0, changed=1.0)
    between = BetweenMetrics(
        cosine=cosine, cosine_null=Null(mean=null, low=null - half, high=null + half), sign_conflict=0.5,
        sign_conflict_weighted=0.5, reversal=0.0,
    )  # fmt: skip
    return PairMetrics(vl=moved, safety=moved, between=between)


def diff(layers: int = 8, changes: Mapping[int, float] | None = None, **between: float) -> DiffResult:
    """changes: layer -> relative change, where it is not .1."""
    whole = Summary(key="text", tower="text", layer=None, tensors=1, parameters=1, metrics=deltas(**between))
    parts = [
        whole.model_copy(
            update={"key": str(at), "layer": at, "metrics": deltas((changes or {}).get(at, 0.1), **between)}
        )
        for at in range(layers)
    ]
    return DiffResult(pairs=[], unmatched=[], layers=parts, blocks=[], towers=[whole], verdict="")


def layers(gains: "np.ndarray") -> LayersResult:
    """gains: [layers, requests]."""
    names = [f"deed {number}" for number in range(gains.shape[1])]
    rows = [LayerGains(layer=at, gains=list(map(float, row))) for at, row in enumerate(gains)]
    return LayersResult(records=rows, prompts=names, requests=names)


def tradeoff(policy: str = "fit") -> TradeoffResult:
    point = TradeoffPoint(
        policy="uniform",
        parameters={"base": 0.3},
        refusal=0.8,
        capability=0.9,
        objective=0.8,
        forward_equivalents=2100,
        seconds=1.0,
        chosen=True,
    )
    points = [point] if policy == "uniform" else [point, point.model_copy(update={"policy": policy})]
    ahead = PolicyDifference(policy=policy, against="uniform", difference=0.3, low=0.1, high=0.5, requests=56)
    comparisons = [] if policy == "uniform" else [ahead]
    return TradeoffResult(points=points, policy=policy, comparisons=comparisons, verdict="")


PAPER: Shares = {
    **{("base", name): share for name, share in {"harmful": 1.0, "jailbroken": 0.9}.items()},
    **{("base", name): 0.0 for name in ("harmless", "borderline")},
    **{("adapted", name): 0.1 for name in ("harmful", "jailbroken")},
    **{("adapted", name): 0.0 for name in ("harmless", "borderline")},
    **{("safety", name): 1.0 for name in ("harmful", "jailbroken", "harmless", "borderline")},
    **{("merged:uniform", name): 0.6 for name in ("harmful", "jailbroken")},
    **{("merged:uniform", name): 0.2 for name in ("harmless", "borderline")},
    **{("merged", name): 0.95 for name in ("harmful", "jailbroken")},
    **{("merged", name): 0.05 for name in ("harmless", "borderline")},
}
"""Shares refused as the paper has them."""


@pytest.fixture
def make() -> SimpleNamespace:
    """Builders of made-up results, and `case`, in which all six claims are planted."""
    rng = np.random.default_rng(0)
    planted = rng.normal(0.05, 0.2, (8, 60))
    planted[[2, 5]] += 3.0

    def case(
        name: str = "seed 0", shares: Shares = PAPER, requests: int = 60, other: Label = "complied", **results: object
    ) -> CaseFindings:
        whole = CaseFindings(name, diff(), completions(shares, requests, other), tradeoff(), layers(planted))
        return replace(whole, **results)

    return SimpleNamespace(
        case=case, completions=completions, record=record, diff=diff, layers=layers, tradeoff=tradeoff, PAPER=PAPER,
        planted=planted,
    )  # fmt: skip


Build = Callable[..., CaseFindings]
