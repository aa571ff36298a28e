"""Text that says nothing: it repeats itself, or its words and letters are broken."""

import re

from vlsurgery.probes.evaluation.judges.text import plain

# A text loops when fewer than this share of its word triples are distinct; prose of 64 tokens has over .8.
# Texts shorter than LOOP_WORDS words may repeat themselves without looping ("no , no , no").
LOOP_SHARE = 0.3
LOOP_WORDS = 12

# A phrase of this many words, said again at once, is a stutter ("mirror at the mirror at the tower"); a text of which
# stutters make up STUTTER_SHARE is degenerate. One or two words must be said more often ("practice, practice").
_STUTTERS = {1: 4, 2: 3, 3: 2, 4: 2, 5: 2, 6: 2}
STUTTER_SHARE = 0.4

# Latin words without a vowel, or with a heap of consonants, are broken.
_BROKEN = re.compile(r"^(?:[b-df-hj-np-tv-xz]{4,}|\w*[b-df-hj-np-tv-xz]{6,}\w*)$")
BROKEN_SHARE = 0.3
BROKEN_WORDS = 8
SYMBOL_SHARE = 0.5
SYMBOL_LENGTH = 24


def degenerate(text: str, words: list[str]) -> str | None:
    """What is broken about a text of these plain words; None where nothing is."""
    if any(len(word) >= 30 and len(set(word)) <= 4 for word in words):
        return "one endless word"
    if _loops(words):
        return f"fewer than {LOOP_SHARE:.0%} of its word triples are distinct"
    if len(words) >= 5 and sum(map(_stuttered, _sentences(text))) >= STUTTER_SHARE * len(words):
        return "phrases repeated at once"
    if len(words) >= BROKEN_WORDS and sum(bool(_BROKEN.match(word)) for word in words) > BROKEN_SHARE * len(words):
        return "broken words"
    signs = [sign for sign in text if not sign.isspace()]
    if len(signs) >= SYMBOL_LENGTH and sum(sign.isalnum() for sign in signs) < SYMBOL_SHARE * len(signs):
        return "more symbols than letters"
    return None


def _sentences(text: str) -> list[list[str]]:
    """The words of each sentence: two sentences alike are no stutter."""
    return [plain(part) for part in re.split(r"[.!?\n]", text)]


def _loops(words: list[str]) -> bool:
    if len(words) < LOOP_WORDS:
        return False
    triples = list(zip(words, words[1:], words[2:], strict=False))
    return len(set(triples)) < LOOP_SHARE * len(triples)


def _stuttered(words: list[str]) -> int:
    """How many words stand in phrases that are said again at once."""
    place = covered = 0
    while place < len(words):
        length = max((_stutter(words, place, size, times) for size, times in _STUTTERS.items()), default=0)
        covered += length
        place += max(length, 1)
    return covered


def _stutter(words: list[str], place: int, size: int, times: int) -> int:
    """How many words the repetitions of the phrase at a place have; 0 where there are too few of them."""
    phrase, end = words[place : place + size], place + size
    while words[end : end + size] == phrase and len(phrase) == size:
        end += size
    return end - place if end - place >= size * times else 0
