"""Forms of sentences, and the words that several of them share."""

import re
from dataclasses import dataclass
from functools import lru_cache

# Words for what is right and for what is wrong to do.
RIGHT = (
    "(?:appropriate|ethical|right|ok|okay|acceptable|responsible|legal|safe|respectful|moral|fair|accurate|good"
    "|wise|advisable|permissible|lawful|productive|kind|justified|justifiable|proper|correct|helpful|nice"
    "|funny|suitable(?! for (?!me|us|you|any|all|anyone|children|minors|this|that|these|discussion|conversation|work"
    "|public)\\w))"
)
WRONG = (
    "(?:illegal|unethical|inappropriate|immoral|wrong|unlawful|unacceptable|harmful|dangerous|offensive|hurtful"
    "|discriminatory|racist|sexist|criminal|irresponsible|cruel|disrespectful|abhorrent|reprehensible|unfair"
    "|hateful|inhumane|prohibited|forbidden|abusive|prejudiced|biased|problematic|violent|heinous|deplorable"
    "|inexcusable|banned|outlawed)"
)

QUOTED_WORDS = 14  # of a sentence that a reason shows


@dataclass(frozen=True)
class Found:
    """A form that a sentence has. name: what it does. words: from where it begins. end: the place after its last sign
    in the sentence."""

    name: str
    words: str
    end: int

    def __str__(self) -> str:
        words = self.words.split()
        return f'{self.name}: "{" ".join(words[:QUOTED_WORDS])}{" ..." if len(words) > QUOTED_WORDS else ""}"'


@dataclass(frozen=True)
class Form:
    """A form of sentence. name: what it does, for reasons."""

    name: str
    pattern: re.Pattern[str]


def forms(**patterns: str) -> tuple[Form, ...]:
    """One form for each name; underscores are spaces."""
    return tuple(Form(name.replace("_", " "), re.compile(pattern)) for name, pattern in patterns.items())


@lru_cache(maxsize=50_000)
def find(among: tuple[Form, ...], words: str) -> Found | None:
    """The first of the forms that a sentence of plain words has; None where it has none."""
    for form in among:
        if found := form.pattern.search(words):
            return Found(form.name, words[found.start() :].strip(), found.end())
    return None
