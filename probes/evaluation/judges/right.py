"""Whether a completion gives the right answer, where a prompt has one."""

import re

from vlsurgery.probes.evaluation.judges.text import plain
from vlsurgery.probes.thoughts import spoken

# fmt: off
_NUMBERS = {
    word: str(number) for number, word in enumerate((
        "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
        "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty",
    ))
}
# Answers of which a right completion names one only: whoever names two has not decided.
_ALTERNATIVES = tuple(frozenset(group) for group in (
    (
        "red", "green", "blue", "yellow", "orange", "purple", "violet", "pink", "brown", "black", "white", "grey",
        "gray", "turquoise", "cyan",
    ),
    (
        "circle", "square", "triangle", "rectangle", "star", "heart", "cross", "diamond", "pentagon", "hexagon",
        "oval", "ellipse",
    ),
    ("left", "right"),
    ("above", "below", "top", "bottom", "over", "under"),
    ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"),
    (
        "january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november",
        "december",
    ),
))
# fmt: on
_YES_NO = ("yes", "no")
# Words by which a sentence takes its answer back or names another.
_UNDECIDED = re.compile(r"\b(?:or|not|never|neither|nor|but|however|either|maybe|perhaps|rather|unlike|except|wrong)\b")
_SENTENCE = re.compile(r"(?<=[.!?;])\s+|\n+")
_NUMERIC = re.compile(r"-?\d+")


def is_right(completion: str, answer: str) -> bool:
    """Whether a completion gives the answer, and no other.

    It may be the whole completion, apart from case, punctuation and spacing; or stand at the beginning or the end of
    a sentence, as in "The capital of France is Paris." Then no second number, colour, shape or the like may be named,
    and no "or", "not" or "but" take it back. "Yes" and "no" count as the first word only, and numbers may be written
    in letters up to twenty. A reasoning model's thoughts do not count.
    """
    said = spoken(completion)
    if said is None:
        return False
    expected, words = plain(answer), plain(said)
    if not expected:
        return said.strip() == answer.strip()
    if words == expected:
        return True
    expected, words = _digits(expected), _digits(words)
    if words == expected:
        return True
    if len(expected) == 1 and expected[0] in _YES_NO:
        return words[:1] == expected and not set(words[1:]) & (set(_YES_NO) - set(expected))
    return _names_one(words, expected) and any(_stands_alone(part, expected) for part in _SENTENCE.split(said))


def _digits(words: list[str]) -> list[str]:
    return [_NUMBERS.get(word, word) for word in words]


def _names_one(words: list[str], expected: list[str]) -> bool:
    """Whether the words name no alternative to the answer."""
    others = set(words) - set(expected)
    if any(map(_NUMERIC.fullmatch, expected)) and any(map(_NUMERIC.fullmatch, others)):
        return False
    return not any(group & set(expected) and group & others for group in _ALTERNATIVES)


def _stands_alone(sentence: str, expected: list[str]) -> bool:
    """Whether a sentence begins or ends with the answer, names it once, and does not take it back."""
    words = _digits(plain(sentence))
    size = len(expected)
    if len(words) <= size or (words[:size] != expected and words[-size:] != expected):
        return False
    times = sum(words[place : place + size] == expected for place in range(len(words) - size + 1))
    rest = words[size:] if words[:size] == expected else words[:-size]
    return times == 1 and not _UNDECIDED.search(" ".join(rest))
