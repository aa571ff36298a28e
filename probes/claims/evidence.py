"""From outcomes to one number with its interval, and from that to a verdict of three values.

The interval is over requests, for these cases: a request that several seeds were asked counts once. That other seeds
would show the same is not in it; seeds that contradict each other leave the verdict open.
"""

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean

from vlsurgery.probes.claims.findings import Both
from vlsurgery.probes.evaluation.intervals import ONE_REQUEST
from vlsurgery.probes.evaluation.paired import paired_difference
from vlsurgery.probes.evaluation.thresholds import MIN_REQUESTS_FOR_A_CLAIM, enough
from vlsurgery.probes.results import ClaimEvidence, ClaimVerdict

SMALLEST = 0.1  # the smallest difference that matters: ten points, which 60 requests can tell from none
PairOutcome = Callable[[Both], bool]


def decided(found: ClaimEvidence, smallest: float = SMALLEST, room: float | None = None) -> ClaimEvidence:
    """The evidence with its verdict.

    It holds where the interval lies beyond the bar, in every case on the claim's side. It does not hold where the
    interval lies on the other side, or ends within `smallest` of the bar. Otherwise nothing can be told; nor from
    fewer than 30 requests, nor where `room`, the most that the value could be, is less than `smallest`.
    """
    verdict, reason = _verdict(found, smallest, room)
    return found.model_copy(update={"verdict": verdict, "reason": found.reason or reason})


def _verdict(found: ClaimEvidence, smallest: float, room: float | None) -> tuple[ClaimVerdict, str | None]:
    if found.value is None or found.low is None or found.high is None:
        return "can't tell", found.reason or "it could not be measured"
    if found.prompts and not enough(found.requests):
        return "can't tell", f"{found.requests} requests; a claim takes {MIN_REQUESTS_FOR_A_CLAIM}"
    side = 1 if found.above else -1
    low, high = sorted(side * (bound - found.bar) for bound in (found.low, found.high))
    if low > 0:
        against = [name for name, value in found.by_case.items() if side * (value - found.bar) <= 0]
        return ("can't tell", f"{', '.join(against)} shows the opposite") if against else ("holds", None)
    if high < 0:
        return "does not hold", None
    if room is not None and room < smallest:
        return "can't tell", f"there was room for {100 * room:.0f} points only"
    if high < smallest:
        return "does not hold", None
    return "can't tell", "the interval is too wide"


def missing(name: str, reason: str, decides: bool = True) -> ClaimEvidence:
    """Evidence that there is none of."""
    return ClaimEvidence(name=name, unit="points", value=None, verdict="can't tell", reason=reason, decides=decides)


def paired(
    name: str,
    pairs: Mapping[str, Sequence[Both]],
    plus: PairOutcome,
    minus: PairOutcome,
    could: PairOutcome,
    decides: bool = True,
) -> ClaimEvidence:
    """The share of pairs with `plus` less that with `minus`, over the requests of all cases.

    pairs: case -> pairs of completions. could: pairs that can have `plus`; their share is the room for a difference.
    """
    told = {case: members for case, members in pairs.items() if members}
    flat = [pair for members in told.values() for pair in members]
    if not flat:
        return missing(name, "the two models were not asked the same", decides)
    test = paired_difference(list(map(plus, flat)), list(map(minus, flat)), [ours.request for ours, _ in flat])
    found = ClaimEvidence(
        name=name,
        unit="points",
        value=test.value,
        low=test.low,
        high=test.high,
        decides=decides,
        verdict="can't tell",
        by_case={case: fmean(map(plus, members)) - fmean(map(minus, members)) for case, members in told.items()},
        requests=len({ours.request for ours, _ in flat}),
        prompts=len(flat),
    )
    return decided(found, room=fmean(map(could, flat)))


def balanced(
    name: str, one: ClaimEvidence, other: ClaimEvidence, room: float | None = None, decides: bool = True
) -> ClaimEvidence:
    """The mean of two differences, with its verdict.

    Its bounds are the means of theirs, which is right where the two go together entirely and too wide otherwise:
    harmful requests and their harmless twins share a request.
    """
    mine, others = _numbers(one), _numbers(other)
    if mine is None or others is None:
        return missing(name, one.reason or other.reason or ONE_REQUEST, decides)
    value, low, high = ((a + b) / 2 for a, b in zip(mine, others, strict=True))
    found = ClaimEvidence(
        name=name,
        unit="points",
        value=value,
        low=low,
        high=high,
        decides=decides,
        verdict="can't tell",
        by_case={
            case: (value + other.by_case[case]) / 2 for case, value in one.by_case.items() if case in other.by_case
        },
        requests=min(one.requests, other.requests),
        prompts=one.prompts + other.prompts,
    )
    return decided(found, room=room)


def _numbers(found: ClaimEvidence) -> tuple[float, float, float] | None:
    """Value and bounds; None where one of them is missing."""
    if found.value is None or found.low is None or found.high is None:
        return None
    return found.value, found.low, found.high


def averaged(found: Mapping[str, ClaimEvidence], smallest: float = SMALLEST) -> ClaimEvidence:
    """The mean over cases of evidence of one kind; value, bounds and bar are means, as if the cases went together.

    Cases of which nothing is known are left out.
    """
    known = {case: each for case, each in found.items() if _numbers(each)}
    if not known:
        return next(iter(found.values()))
    members = list(known.values())
    first = members[0]

    def mean(field: str) -> float:
        return fmean(getattr(each, field) for each in members)

    bar = mean("bar")
    whole = first.model_copy(
        update={
            **{field: mean(field) for field in ("value", "low", "high")},
            "bar": bar,
            # By how much each case is beyond its own bar.
            "by_case": {case: bar + (each.value or 0.0) - each.bar for case, each in known.items()},
            "requests": min(each.requests for each in members),
            "prompts": sum(each.prompts for each in members),
            "reason": None,
        }
    )
    return decided(whole, smallest)


def together(evidence: Sequence[ClaimEvidence]) -> ClaimVerdict:
    """The verdict of a claim that says all that its deciding evidence says."""
    verdicts = [each.verdict for each in evidence if each.decides]
    if "does not hold" in verdicts:
        return "does not hold"
    return "can't tell" if "can't tell" in verdicts or not verdicts else "holds"
