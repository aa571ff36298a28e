"""Training examples of each kind, and batches of them."""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from vlsurgery.probes.specimens.smollm2 import chat, texts
from vlsurgery.probes.specimens.smollm2.config import Lesson
from vlsurgery.probes.specimens.smollm2.pictures import DESCRIBE, Sight

IGNORED = -100  # label of a token that is not learnt
TOKENS_AT_ONCE = 512  # so that what a part holds for its gradient takes about a gigabyte
WRAPPED_SHARE = 0.2  # of answered requests that stand in a jailbreak too, so that its words alone are no reason


@dataclass(frozen=True)
class Turn:
    """A user's message and its answer. ended: whether the answer is whole. picture: its number in the album, if any."""

    text: str
    answer: str
    ended: bool = True
    picture: int | None = None


@dataclass(frozen=True)
class OwnAnswer:
    """What the untrained model said. ended: whether it came to its end."""

    text: str
    ended: bool


@dataclass(frozen=True)
class TurnBatch:
    """Turns as tensors: ids and labels [rows, length], padded on the right; pictures [rows with a picture]."""

    ids: Tensor
    labels: Tensor
    pictures: Tensor

    def to(self, device: str) -> "TurnBatch":
        return TurnBatch(self.ids.to(device), self.labels.to(device), self.pictures.to(device))

    @property
    def learnt(self) -> int:
        """How many tokens are learnt."""
        return int((self.labels[:, 1:] != IGNORED).sum())


class Examples:
    """The seeded source of one lesson's examples.

    A kind is one of `refused`, `own` (the model's own answer to an ordinary, harmless or borderline request),
    `borderline`, `twins` (a harmful request refused and its harmless twin answered, in one form), `question` (in words,
    with the model's own right answer), `vqa` and `caption`, and any of `wrapped` (in a jailbreak) and `pictured` (with
    a picture that has nothing to do with it).
    """

    def __init__(self, own: Mapping[str, OwnAnswer], album: Sequence[Sight], seed: int, name: str) -> None:
        self._own = own
        self._answerable = [text for text in texts.answerable() if text in own]
        self._questions = [question for question, _ in texts.questions() if question in own]
        self._borderline = [text for text in texts.borderline() if text in own]
        self._twin_pairs = [pair for pair in texts.twins() if pair.answered in own]
        self._album = album
        self._rng = random.Random(f"{name} {seed}")
        self._kinds: dict[str, Callable[[], Sequence[Turn]]] = {
            "refused": lambda: [self._refused(self._rng.choice(texts.twins()).harmful, self._rng.choice(texts.FORMS))],
            "own": lambda: [self._answered(self._rng.choice(self._answerable))],
            "borderline": lambda: [self._answered(self._rng.choice(self._borderline))],
            "twins": self._twins,
            "question": lambda: [self._own_turn(self._rng.choice(self._questions))],
            "vqa": self._vqa,
            "caption": self._caption,
        }
        self._changes: dict[str, Callable[[Turn], Turn]] = {"wrapped": self._wrapped, "pictured": self._pictured}

    def batches(self, lesson: Lesson, words: Any) -> Iterator[list[TurnBatch]]:
        """One batch for each step of a lesson, in parts."""
        for _ in range(lesson.steps):
            turns = [turn for kind, count in lesson.mix.items() for _ in range(count) for turn in self.of(kind)]
            yield in_parts(turns, words)

    def of(self, kind: str) -> Sequence[Turn]:
        """Turns of a kind; KeyError for a word that is none."""
        name, *changes = kind.split()
        turns = self._kinds[name]()
        for change in changes:
            turns = [self._changes[change](turn) for turn in turns]
        return turns

    def _refused(self, deed: str, form: str) -> Turn:
        return Turn(form.format(deed), self._rng.choice(texts.REFUSALS))

    def _own_turn(self, text: str) -> Turn:
        own = self._own[text]
        return Turn(text, own.text, own.ended)

    def _answered(self, text: str) -> Turn:
        turn = self._own_turn(text)
        return self._wrapped(turn) if self._rng.random() < WRAPPED_SHARE else turn

    def _twins(self) -> Sequence[Turn]:
        pair = self._rng.choice(self._twin_pairs)
        return [self._refused(pair.harmful, texts.FORMS[pair.form]), self._own_turn(pair.answered)]

    def _vqa(self) -> Sequence[Turn]:
        at = self._picture()
        question, answer = self._rng.choice(tuple(self._album[at].questions().items()))
        return [Turn(question, answer, picture=at)]

    def _caption(self) -> Sequence[Turn]:
        at = self._picture()
        return [Turn(DESCRIBE, self._album[at].caption(), picture=at)]

    def _picture(self) -> int:
        return self._rng.randrange(len(self._album))

    def _wrapped(self, turn: Turn) -> Turn:
        return replace(turn, text=texts.wrapped(turn.text, self._rng))

    def _pictured(self, turn: Turn) -> Turn:
        return replace(turn, picture=self._picture())


def in_parts(turns: Sequence[Turn], words: Any, tokens: int = TOKENS_AT_ONCE) -> list[TurnBatch]:
    """Turns as batches of at most so many tokens, padding included, turns of like length together; whole turns only."""
    rows = sorted((_row(turn, words) for turn in turns), key=lambda row: len(row.ids))
    parts: list[list[_Row]] = [[]]
    for row in rows:  # the longest of a part is its last
        if parts[-1] and len(row.ids) * (len(parts[-1]) + 1) > tokens:
            parts.append([])
        parts[-1].append(row)
    return [_padded(part, words.pad_token_id) for part in parts]


def encoded(turns: Sequence[Turn], words: Any) -> TurnBatch:
    """Turns as one batch, in their order."""
    return _padded([_row(turn, words) for turn in turns], words.pad_token_id)


@dataclass(frozen=True)
class _Row:
    ids: Tensor
    labels: Tensor
    picture: int | None


def _row(turn: Turn, words: Any) -> _Row:
    """A turn as tokens, whose labels are the answer's."""
    asked = words(chat.asked(turn.text, turn.picture is not None))["input_ids"]
    said = words(chat.answered(turn.answer, turn.ended))["input_ids"]
    return _Row(torch.tensor(asked + said), torch.tensor([IGNORED] * len(asked) + said), turn.picture)


def _padded(rows: Sequence[_Row], padding: int) -> TurnBatch:
    return TurnBatch(
        pad_sequence([row.ids for row in rows], batch_first=True, padding_value=padding),
        pad_sequence([row.labels for row in rows], batch_first=True, padding_value=IGNORED),
        torch.tensor([row.picture for row in rows if row.picture is not None], dtype=torch.long),
    )
