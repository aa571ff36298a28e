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
_COPULAS = frozenset(("is", "are", "was", "were", "equals", "makes", "gives"))
_FILLERS = frozenset(("the", "a", "an", "called", "named", "exactly", "just", "about"))
_CLAUSE = re.compile(r"[,:]\s")
# How many numbers, or words of a group of alternatives, a question is taken to hold: "The sum of 3 and 4", "The month
# after December". More is a list of candidates.
_NUMBERS_ASKED, _WORDS_ASKED = 3, 1
_SENTENCE = re.compile(r"(?<=[.!?;])\s+|\n+")
_NUMERIC = re.compile(r"-?\d+")


def is_right(completion: str, answer: str) -> bool:
    """Whether a completion gives the answer, and no other.

    It may be the whole completion, apart from case, punctuation and spacing; or stand at the beginning or the end of
    a sentence, as in "The capital of France is Paris." Then no second number, colour, shape or the like may be named,
    and no "or", "not" or "but" take it back. What the sentence repeats of the question is no second answer: the
    subject of "... is" or "=" before the answer ("The month after December is January.", "4 * 10 = 40"), or what
    follows "is" after it, as long as it is no list of candidates. "Yes" and "no" count as the first word only, and
    numbers may be written in letters up to twenty. A reasoning model's thoughts do not count.
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
    answering = (part for part in _SENTENCE.split(said) if _stands_alone(part, expected))
    return any(_names_one(set(words) - _asked_again(part, expected), expected) for part in answering)


def _words(text: str) -> list[str]:
    return _digits(plain(text.replace("=", " equals ")))


def _digits(words: list[str]) -> list[str]:
    return [_NUMBERS.get(word, word) for word in words]


def _names_one(words: set[str], expected: list[str]) -> bool:
    """Whether the words name no alternative to the answer."""
    others = words - set(expected)
    if any(map(_NUMERIC.fullmatch, expected)) and any(map(_NUMERIC.fullmatch, others)):
        return False
    return not any(group & set(expected) and group & others for group in _ALTERNATIVES)


def _asked_again(sentence: str, expected: list[str]) -> set[str]:
    """The words by which a sentence's last clause repeats the question, where it says "<question> is <answer>" or the
    other way round; none where it is put otherwise or lists candidates."""
    words, size = _words(_CLAUSE.split(sentence.strip())[-1]), len(expected)
    if words[:size] == expected and words[size:] and words[size] in _COPULAS and "and" not in words:
        asked = words[size + 1 :]
    else:
        before = words[:-size]
        while before and before[-1] in _FILLERS:
            before.pop()
        if words[-size:] != expected or not before or before.pop() not in _COPULAS:
            return set()
        asked = before
    found = set(asked)
    listed = any(len(group & found) > _WORDS_ASKED for group in _ALTERNATIVES)
    if listed or found & _COPULAS or len([word for word in asked if _NUMERIC.fullmatch(word)]) > _NUMBERS_ASKED:
        return set()
    return found


def _stands_alone(sentence: str, expected: list[str]) -> bool:
    """Whether a sentence begins or ends with the answer, names it once, and does not take it back."""
    words = _words(sentence)
    size = len(expected)
    if len(words) <= size or (words[:size] != expected and words[-size:] != expected):
        return False
    times = sum(words[place : place + size] == expected for place in range(len(words) - size + 1))
    rest = words[size:] if words[:size] == expected else words[:-size]
    return times == 1 and not _UNDECIDED.search(" ".join(rest))
