"""How numbers and names are written, the same in every figure, table and sentence."""

import math

from vlsurgery.probes.results import BehaviourRow, Rate

ROLE_ORDER = ("base", "graft", "adapted", "safety", "merged:uniform", "merged")
SET_ORDER = ("harmful", "jailbroken", "harmless", "borderline", "capability")
MODALITY_ORDER = ("text", "benign", "own", "blank", "noise")

_ROLES = {"merged:uniform": "best uniform merge"}
_MODALITIES = {
    "text": "text only",
    "benign": "ordinary picture",
    "own": "own picture",
    "blank": "blank picture",
    "noise": "noise picture",
}
# The same where a column's head has room for ten characters.
_COLUMNS = {"text": "text", "benign": "+ picture", "own": "own pict.", "blank": "+ blank", "noise": "+ noise"}
_REQUESTS = {
    "harmful": "harmful requests",
    "jailbroken": "jailbroken requests",
    "harmless": "harmless requests",
    "borderline": "borderline requests",
    "capability": "capability questions",
}
_WITH = {
    "text": "in text only",
    "benign": "with an ordinary picture",
    "own": "about their own picture",
    "blank": "with a blank picture",
    "noise": "with a noise picture",
}
_KINDS = {
    "refusal": "refusal",
    "partial": "partial refusal",
    "non_answer": "non-answer",
    "compliance": "compliance",
    "refuse_then_comply": "refuses, then complies",
    "empty": "empty",
    "degenerate": "broken words or loops",
    "off_topic": "off topic",
    "undecided": "cut before it was decided",
}
OUTCOMES = ("refused", "complied", "neither")
ONE_REQUEST = "one request: nothing can be said"
# Characters that a terminal or a browser would act on: controls but tab and line feed, marks that turn the direction
# of text, separators of lines, and halves of surrogate pairs, which no file can hold.
MINUS = "−"
SLACK = 1e-6  # so that .95, which binary floats hold as .9499…, still counts as 95%


def rank(order: tuple[str, ...], word: str) -> tuple[int, str]:
    """Sorting key: known words in their order, `safety:dpo` and the like behind their kind, unknown ones last."""
    if word in order:
        return order.index(word), ""
    kind = word.partition(":")[0]
    return (order.index(kind) if kind in order else len(order)), word


def role_name(role: str) -> str:
    """A role as people read it, in terminal and figures alike."""
    return _ROLES.get(role, role)


def modality_name(modality: str) -> str:
    """A kind of picture as a label: "ordinary picture"."""
    return _MODALITIES.get(modality, modality)


def modality_column(modality: str) -> str:
    """A kind of picture as the head of a column: "+ picture"."""
    return _COLUMNS.get(modality, modality)


def cell_name(set_: str, modality: str) -> str:
    """A prompt set with its kind of picture, as a label: "harmful · ordinary picture"."""
    return f"{set_} · {modality_name(modality)}"


def cell_phrase(set_: str, modality: str) -> str:
    """The same inside a sentence: "harmful requests with an ordinary picture"."""
    return f"{_REQUESTS.get(set_, set_ + ' prompts')} {_WITH.get(modality, 'with ' + modality)}"


def percent(share: float) -> str:
    """A share in [0, 1] as per cent. What isn't all is never rounded to 100%, nor what isn't nothing to 0%."""
    value = 100 * share
    nearest = math.floor(value + 0.5)
    if nearest not in (0, 100) or abs(value - nearest) < SLACK:
        return f"{nearest}%"
    return f"{min(max(value, 0.1), 99.9):.1f}%"


def interval(low: float | None, high: float | None) -> str:
    """The bounds of a share, "92–99%", rounded outwards so that words never claim more; nothing without bounds."""
    if low is None or high is None:
        return ""
    return f"{math.floor(100 * low + SLACK)}–{math.ceil(100 * high - SLACK)}%"


def sayable(rate: Rate) -> Rate:
    """The rate, or none where it comes from a single request: from one, nothing is shown."""
    return rate if rate.rate is None or rate.requests > 1 else Rate(rate=None, n=rate.n, reason=ONE_REQUEST)


def rate_words(rate: Rate) -> str:
    """A rate with its interval, "96% (92–99%)", or why there is none."""
    rate = sayable(rate)
    if rate.rate is None:
        return f"not measured ({rate.reason or 'no reason given'})"
    bounds = interval(rate.low, rate.high)
    return f"{percent(rate.rate)} ({bounds})" if bounds else percent(rate.rate)


def outcomes(row: BehaviourRow) -> str:
    """The three shares of a row, refused / complied / neither, in per cent: "92 / 6 / 2"; a dash without them."""
    shares = [sayable(getattr(row, name)).rate for name in OUTCOMES]
    known = [percent(share).removesuffix("%") for share in shares if share is not None]
    return " / ".join(known) if len(known) == len(OUTCOMES) else "–"


def kind_name(kind: str) -> str:
    """A kind of verdict as people read it: "partial refusal"."""
    return _KINDS.get(kind, kind)


def counts(rate: Rate) -> str:
    """What a rate rests on: "200 prompts, 100 requests"; only the requests where each is one prompt."""
    requests = plural(rate.requests, "request")
    return requests if rate.n == rate.requests else f"{plural(rate.n, 'prompt')}, {requests}"


def plural(count: int, noun: str) -> str:
    """A count with its noun: "1 request", "112 requests"."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def signed(value: float, digits: int = 2) -> str:
    """A number with its sign, a true minus, and no "-0"."""
    text = f"{abs(value):.{digits}f}"
    if float(text) == 0:
        return text
    return (MINUS if value < 0 else "+") + text


def points(difference: float, low: float | None = None, high: float | None = None) -> str:
    """A difference of shares in percentage points, "+93.5 points (+90.0 to +96.2)"."""
    body = f"{signed(100 * difference, 1)} points"
    if low is None or high is None:
        return body
    return f"{body} ({signed(100 * low, 1)} to {signed(100 * high, 1)})"


def number(value: float | None, digits: int = 2) -> str:
    """A plain number with a true minus; a dash where there is none."""
    return "–" if value is None else f"{value:.{digits}f}".replace("-", MINUS)


def listed(items: list[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    if len(items) < 2:
        return "".join(items)
    return f"{', '.join(items[:-1])} and {items[-1]}"
