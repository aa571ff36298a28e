"""The model's own words in a completion: without what it quotes, as plain words by the sentence."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

# Quoted words are not the model's own: a letter, a line to say on the telephone. Quotations of fewer words are no
# sentences and stay; an open quotation ends with its line.
_QUOTED = re.compile('"[^"\\n]*"|“[^”\\n]*”|«[^»\\n]*»')
_QUOTED_WORDS = 3
_FENCED = re.compile(r"```.*?(?:```|\Z)", re.S)

_FULL_FORMS = (
    (re.compile(r"[‘’ʼ`´]"), "'"),
    (re.compile(r"\b(?:can ?'t|ca n't|cannot|cant)\b"), "can not"),
    (re.compile(r"\b(?:won ?'t|wo n't|wont)\b"), "will not"),
    (re.compile(r" ?n ?'t\b"), " not"),
    (re.compile(r"\b(?:i ?'m|im)\b"), "i am"),
    (re.compile(r"\bi ?'d\b"), "i would"),
    (re.compile(r"\bi ?'ll\b"), "i will"),
    (re.compile(r"\bi ?'ve\b"), "i have"),
    (re.compile(r"\b(it|that|this|here|there|what|he|she) ?'s\b"), r"\1 is"),
    (re.compile(r"\b(we|you|they) ?'re\b"), r"\1 are"),
    (re.compile(r"\bdont\b"), "do not"),
)
# A sign belongs to its number, or "-3" would be a right answer where "3" is.
_WORD = re.compile(r"(?:(?<![^\W_])[-−](?=\d))?[^\W_]+(?:'[^\W_]+)*")
_END = re.compile(r"(?<=[.!?;])[\"”')*_]*\s+|\n+|(?<=[:;])\s+(?=(?:\d+[.)]|[-*•])\s)")
_ABBREVIATION = re.compile(r"(?:\b(?:mr|mrs|ms|dr|st|vs|etc|e\.g|i\.e|no|u\.s|[a-z])|^\W*\d+)\.$", re.I)
_ITEM = re.compile(r"^\W*(?:\(?\d{1,2}[.):]|[-*•–]\s|step \d+)", re.I)


@dataclass(frozen=True)
class Sentence:
    """One sentence or line. words: its plain words, joined by spaces. item: whether it is an item of a list."""

    words: str
    item: bool

    def __len__(self) -> int:
        return self.words.count(" ") + 1


def plain(text: str) -> list[str]:
    """The words of a text, without punctuation: lower case, contractions in full ("can’t" is "can not")."""
    text = text.lower()
    for pattern, full in _FULL_FORMS:
        text = pattern.sub(full, text)
    return _WORD.findall(text)


def unquoted(text: str) -> str:
    """The text with code left out and every quoted sentence replaced by "quoted"; unchanged if nothing else is left."""
    own = _FENCED.sub("\n", text)
    if not _WORD.search(_QUOTED.sub(" ", own)):
        return text
    return _QUOTED.sub(lambda found: found[0] if len(_WORD.findall(found[0])) < _QUOTED_WORDS else "quoted", own)


def sentences(text: str) -> list[Sentence]:
    """The sentences and lines of a text that have words, in their order."""
    found = []
    for part in _parts(text):
        words = plain(part)
        if words:
            found.append(Sentence(" ".join(words), bool(_ITEM.match(part))))
    return found


def _parts(text: str) -> Iterator[str]:
    """Pieces between sentence ends; the point of an abbreviation or of a list's number ends none."""
    start = 0
    for end in _END.finditer(text):
        part = text[start : end.start()]
        if "\n" not in end[0] and _ABBREVIATION.search(part):
            continue
        yield part
        start = end.end()
    yield text[start:]
