"""How evidence is written in a sentence."""

from collections.abc import Sequence

from vlsurgery.probes.results import ClaimEvidence

MINUS = "−"


def figures(found: ClaimEvidence) -> str:
    """A number with its interval: "+72 points (+59 to +82)", ".54 (.48 to .60)"; or why there is none."""
    if found.value is None:
        return f"not measured ({found.reason})"
    bounds = (
        "" if found.low is None or found.high is None else f" ({_one(found, found.low)} to {_one(found, found.high)})"
    )
    return f"{_one(found, found.value)}{' points' if found.unit == 'points' else ''}{bounds}"


def _one(found: ClaimEvidence, value: float) -> str:
    text = f"{abs(100 * value):.0f}" if found.unit == "points" else f"{abs(value):.2f}".lstrip("0")
    if float(text) == 0:
        return "0"
    sign = MINUS if value < 0 else "+" if found.unit != "share" else ""
    return sign + text


def listed(words: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
