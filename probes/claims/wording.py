"""How evidence is written in a sentence."""

from collections.abc import Sequence

from vlsurgery.probes.results import ClaimEvidence

MINUS = "−"


def told(sentence: str, found: ClaimEvidence) -> str:
    """The sentence, where there is something to tell of the evidence that it begins with; else why there is nothing."""
    return sentence if found.value is not None else f"Not measured: {found.reason}."


def figures(found: ClaimEvidence) -> str:
    """A number with its interval: "+72 points (+59 to +82)", "0.54 (0.48 to 0.60)"; or why there is none."""
    if found.value is None:
        return f"not measured ({found.reason})"
    bounds = ""
    if found.low is not None and found.high is not None:
        bounds = f" ({_one(found, found.low)} to {_one(found, found.high)})"
    return f"{_one(found, found.value)}{' points' if found.unit == 'points' else ''}{bounds}"


def _one(found: ClaimEvidence, value: float) -> str:
    if found.unit == "points":
        return signed(100 * value, 0)
    return f"{value:.2f}" if found.unit == "share" else signed(value)


def signed(value: float, digits: int = 2) -> str:
    """A number with its sign and a true minus; 0 has none."""
    text = f"{abs(value):.{digits}f}"
    if float(text) == 0:
        return text
    return (MINUS if value < 0 else "+") + text


def listed(words: Sequence[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
