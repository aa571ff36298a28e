"""Training data: examples of each kind, drawn from the pairs and contents that are in no split."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerFast

from vlsurgery.probes.specimens.miniature import chat
from vlsurgery.probes.specimens.miniature.config import TrainingStage
from vlsurgery.probes.specimens.miniature.language import FORMS, FRESH_PAIRS, WRAPPERS, RequestPair
from vlsurgery.probes.specimens.miniature.pictures import DESCRIBE, QUESTIONS, READABLE, Content, in_words
from vlsurgery.probes.specimens.miniature.splits import Splits

IGNORE_INDEX = -100
CAPTION_SHARE = 0.75
"""The share of captions in what the base reads: they name all four attributes, the readable question one."""
WRAPPED_SHARE = 0.3
"""The share of answered requests that are in a jailbreak wrapper too."""
TWICE_SHARE = 0.4
"""The share of wrapped requests whose wrapper is in another: so neither refusals nor answers need the request to be at
one end of the prompt."""


@dataclass(frozen=True)
class Example:
    """A user message, its answer, and the index in the album of its picture, if any."""

    text: str
    answer: str
    picture: int | None = None


@dataclass(frozen=True)
class TrainingBatch:
    """Examples as tensors.

    ids: [rows, length], padded on the right. labels: the same, with IGNORE_INDEX outside of the answers.
    pictures: [rows with a picture], indices in the album, in the rows' order.
    """

    ids: Tensor
    labels: Tensor
    pictures: Tensor


class Corpus:
    """The seeded source of one stage's examples.

    A kind of example is one of `refused`, `harmless`, `borderline`, `fresh` (borderline, about an object that is in no
    split), `vqa`, `caption` and `reading`, and any of these words after it: `wrapped` (in a jailbreak), `pictured`
    (with an unrelated picture), `told` (after the words of an unrelated picture).
    """

    def __init__(self, splits: Splits, album: Sequence[Content], seed: int, stage: str) -> None:
        """album: the content of each training picture. Each seed and stage has its own random numbers."""
        self._rng = random.Random(f"{stage} {seed}")
        self._album = album
        self._pairs = splits.training_pairs
        self._sensitive = [pair for pair in self._pairs if pair.sensitive]
        self._everyday = [pair for pair in self._pairs if not pair.sensitive]
        self._kinds: dict[str, Callable[[], Example]] = {
            "refused": lambda: self.refused(self._rng.choice(self._sensitive)),
            "harmless": lambda: self._answered(self._rng.choice(self._pairs), harmful=False),
            "borderline": lambda: self._answered(self._rng.choice(self._everyday), harmful=True),
            "fresh": lambda: self._answered(self._rng.choice(FRESH_PAIRS), harmful=True),
            "vqa": self._vqa,
            "caption": self._caption,
            "reading": self._reading,
        }
        self._changes: dict[str, Callable[[Example], Example]] = {
            "wrapped": self._wrapped,
            "pictured": self.pictured,
            "told": self._told,
        }

    def batches(self, stage: TrainingStage, tokenizer: PreTrainedTokenizerFast) -> list[TrainingBatch]:
        """All batches of the stage, tokenised."""
        kinds = [kind for kind, count in stage.mix.items() for _ in range(count)]
        return [encode([self.example(kind) for kind in kinds], tokenizer) for _ in range(stage.steps)]

    def example(self, kind: str) -> Example:
        """An example of a kind, such as "refused wrapped pictured"; KeyError for an unknown word."""
        name, *changes = kind.split()
        example = self._kinds[name]()
        for change in changes:
            example = self._changes[change](example)
        return example

    def refused(self, pair: RequestPair) -> Example:
        """The harmful request of a pair in a random form, with its refusal."""
        return Example(self._request(pair, harmful=True), pair.refusal())

    def pictured(self, example: Example) -> Example:
        """The example with a random picture of the album."""
        return replace(example, picture=self._rng.randrange(len(self._album)))

    def _request(self, pair: RequestPair, harmful: bool) -> str:
        return pair.request(harmful, self._rng.randrange(len(FORMS)))

    def _answered(self, pair: RequestPair, harmful: bool) -> Example:
        example = Example(self._request(pair, harmful), pair.answer(harmful))
        # Wrapped requests are answered too, so that the wrapper alone is no reason to refuse.
        return self._wrapped(example) if self._rng.random() < WRAPPED_SHARE else example

    def _vqa(self) -> Example:
        picture = self._rng.randrange(len(self._album))
        question = self._rng.choice(tuple(QUESTIONS))
        return Example(QUESTIONS[question], self._album[picture].answer(question), picture)

    def _caption(self) -> Example:
        picture = self._rng.randrange(len(self._album))
        return Example(DESCRIBE, self._album[picture].caption(), picture)

    def _reading(self) -> Example:
        content = self._rng.choice(self._album)
        seen = in_words(content, self._rng)
        if self._rng.random() < CAPTION_SHARE:
            return Example(f"{seen} {DESCRIBE}", content.caption())
        question = self._rng.choice(READABLE)
        return Example(f"{seen} {QUESTIONS[question]}", content.answer(question))

    def _wrapped(self, example: Example) -> Example:
        text = self._rng.choice(WRAPPERS).format(request=example.text)
        if self._rng.random() < TWICE_SHARE:
            text = self._rng.choice(WRAPPERS).format(request=text)
        return replace(example, text=text)

    def _told(self, example: Example) -> Example:
        return replace(example, text=f"{in_words(self._rng.choice(self._album), self._rng)} {example.text}")


def encode(examples: Sequence[Example], tokenizer: PreTrainedTokenizerFast) -> TrainingBatch:
    """A batch of examples whose labels are the answers and their end tokens."""
    asked = [chat.conversation(e.text, None, e.picture is not None) for e in examples]
    whole = [chat.conversation(e.text, e.answer, e.picture is not None) for e in examples]
    starts = [len(ids) for ids in tokenizer(asked)["input_ids"]]
    rows = [torch.tensor(ids) for ids in tokenizer(whole)["input_ids"]]
    labels = [row.index_fill(0, torch.arange(start), IGNORE_INDEX) for row, start in zip(rows, starts, strict=True)]
    return TrainingBatch(
        ids=pad_sequence(rows, batch_first=True, padding_value=tokenizer.pad_token_id),
        labels=pad_sequence(labels, batch_first=True, padding_value=IGNORE_INDEX),
        pictures=torch.tensor([e.picture for e in examples if e.picture is not None], dtype=torch.long),
    )
