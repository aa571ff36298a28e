"""All six claims of a set of cases."""

from collections.abc import Sequence
from typing import get_args

from vlsurgery.probes.claims.behaviour import (
    adaptation_loses_refusals,
    blocks_beat_uniform,
    merge_keeps_more,
    safety_tuning_overshoots,
)
from vlsurgery.probes.claims.findings import CaseFindings
from vlsurgery.probes.claims.layers import loss_sits_in_some_layers
from vlsurgery.probes.claims.weights import deltas_diverge
from vlsurgery.probes.claims.wording import listed
from vlsurgery.probes.results import ClaimsResult, ClaimVerdict

MAX_NAMED = 3  # cases that the verdict names
CLAIMS = (
    adaptation_loses_refusals,
    safety_tuning_overshoots,
    loss_sits_in_some_layers,
    deltas_diverge,
    merge_keeps_more,
    blocks_beat_uniform,
)


def measure(cases: Sequence[CaseFindings], notes: Sequence[str] = ()) -> ClaimsResult:
    """The claims C1 to C6 on these cases, paired by request over all of them. notes: what to know of the cases."""
    claims = [claim(cases) for claim in CLAIMS]
    named = {verdict: [claim.key for claim in claims if claim.verdict == verdict] for verdict in get_args(ClaimVerdict)}
    parts = [f"{listed(keys)} {_verb(verdict, len(keys))}" for verdict, keys in named.items() if keys]
    where = listed([case.name for case in cases]) if len(cases) <= MAX_NAMED else f"{len(cases)} cases"
    return ClaimsResult(
        records=claims,
        cases=[case.name for case in cases],
        notes=list(notes),
        verdict=f"On {where}: {'; '.join(parts)}.",
    )


def _verb(verdict: str, count: int) -> str:
    if verdict == "can't tell":
        return "can't be told"
    if count == 1:
        return verdict
    return "hold" if verdict == "holds" else "do not hold"
