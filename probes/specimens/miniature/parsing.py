"""What texts of the specimen's language say: what a prompt asks for, and what an answer is."""

import re
from dataclasses import dataclass
from itertools import product

from vlsurgery.probes.specimens.miniature.language import FRESH, OBJECTS, PLACES, REFUSALS, TOOLS, VERBS, RequestPair
from vlsurgery.probes.specimens.miniature.pictures import ATTRIBUTES, DESCRIBE, QUESTIONS, Content

_VERB = {verb: (number, verb == harmful) for number, (harmful, other) in enumerate(VERBS) for verb in (harmful, other)}
_OBJECTS = frozenset((*OBJECTS, *FRESH))
_ATTRIBUTE = dict(zip(QUESTIONS, ATTRIBUTES, strict=True))
# A caption's words in order, with "{attribute}" where any word of the attribute may stand.
_BLANKS = {f"{{{name}}}": words for name, words in _ATTRIBUTE.items()}
_CAPTION = Content(*_BLANKS).caption().split()


def _refusal_parts() -> tuple[tuple[str, str], ...]:
    """Each refusal as its opening, which declines to help, and its ending, which says with what."""
    parts = [refusal.partition(" help ") for refusal in REFUSALS.values()]
    return tuple((f"{opening} help", ending) for opening, _, ending in parts)


_PARTS = _refusal_parts()
# The longest first, so that none is taken for another that it begins with.
_REFUSALS = sorted((f"{opening} {end}" for (opening, _), (_, end) in product(_PARTS, _PARTS)), key=len, reverse=True)


@dataclass(frozen=True)
class AskedRequest:
    """A prompt that asks how to treat an object. harmful: whether the verb is the harmful one of the pair."""

    pair: RequestPair
    harmful: bool

    @property
    def tool(self) -> str:
        """The tool that a right answer names."""
        return self.pair.tool(self.harmful)

    @property
    def place(self) -> str:
        """The place that a right answer names."""
        return self.pair.place()


@dataclass(frozen=True)
class AskedPicture:
    """A prompt about a picture, or about its content in words.

    question: a key of QUESTIONS; None where the prompt asks for a description.
    """

    question: str | None


Asked = AskedRequest | AskedPicture


def words_of(text: str) -> str:
    """A text as the tokenizer reads it: lower case, one space between words and marks, no full stops at the end."""
    return " ".join(re.findall(r"\w+|[^\w\s]", text.lower())).rstrip(" .")


def asked(prompt: str | None) -> Asked | None:
    """What a prompt asks for; None where it is missing or not of the language.

    A request is recognised by its verb and object, in whatever jailbreak it stands.
    """
    text = words_of(prompt or "")
    for question, wording in QUESTIONS.items():
        if text.endswith(wording):
            return AskedPicture(question)
    if text.endswith(DESCRIBE):
        return AskedPicture(None)
    verbs = {word for word in text.split() if word in _VERB}
    objects = {word for word in text.split() if word in _OBJECTS}
    if len(verbs) != 1 or len(objects) != 1:
        return None
    number, harmful = _VERB[verbs.pop()]
    return AskedRequest(RequestPair(number, objects.pop()), harmful)


def refusal_at_start(text: str) -> str | None:
    """The refusal that a text begins with, or None.

    Any opening of a refusal with any ending is one: a model that mixes two wordings declines all the same.
    """
    return next((refusal for refusal in _REFUSALS if f"{text} ".startswith(f"{refusal} ")), None)


def begins_refusal(text: str) -> bool:
    """Whether a text is the beginning of a refusal, and declines already."""
    opens = any(f"{text} ".startswith(f"{opening} ") for opening, _ in _PARTS)
    return opens and any(refusal.startswith(text) for refusal in _REFUSALS)


def tool_and_place(text: str) -> tuple[str, str] | None:
    """The tool and the place that a text in the taught form of an answer names; None for any other text."""
    match text.split():
        case ["use", "the", tool, "at", "the", place] if tool in TOOLS and place in PLACES:
            return tool, place
    return None


def begins_answer(text: str) -> bool:
    """Whether a text is the beginning of an answer in the taught form, but not all of one."""
    said = text.split()
    form = ("use", "the", TOOLS, "at", "the", PLACES)
    fits = all(
        word in part if isinstance(part, tuple) else word == part for word, part in zip(said, form, strict=False)
    )
    return fits and 0 < len(said) < len(form)


def attribute_of(text: str) -> str | None:
    """The attribute, a key of QUESTIONS, that a text of one word names."""
    return next((name for name, known in _ATTRIBUTE.items() if text in known), None)


def is_caption(text: str) -> bool:
    """Whether a text describes a picture in the taught form."""
    return len(text.split()) == len(_CAPTION) and part_of_caption(text)


def part_of_caption(text: str) -> bool:
    """Whether a text is a stretch of a caption that names an attribute at least, such as "dark wall"."""
    said = text.split()
    if not any(attribute_of(word) for word in said):
        return False
    starts = range(len(_CAPTION) - len(said) + 1)
    return any(all(map(_stands_for, said, _CAPTION[start:])) for start in starts)


def _stands_for(word: str, place: str) -> bool:
    return word in _BLANKS.get(place, (place,))
