"""Training data: examples of each kind, drawn from the pairs and contents that no split holds."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerFast

from vlsurgery.probes.specimens.miniature import chat
from vlsurgery.probes.specimens.miniature.config import TrainingStage
from vlsurgery.probes.specimens.miniature.language import FORMS, WRAPPERS, RequestPair
from vlsurgery.probes.specimens.miniature.pictures import DESCRIBE, QUESTIONS, READABLE, Content, in_words
from vlsurgery.probes.specimens.miniature.splits import Splits

IGNORE_INDEX = -100
WRAPPED_SHARE = 0.3
"""The share of answered requests that stand in a jailbreak wrapper all the same."""


@dataclass(frozen=True)
class Example:
    """What is said, what is to be answered, and the number of the album's picture that is shown, if any."""

    text: str
    answer: str
    picture: int | None = None


@dataclass(frozen=True)
class TrainingBatch:
    """Examples as tensors.

    ids: [rows, length], padded on the right. labels: the same, with IGNORED wherever nothing is learnt.
    pictures: [rows with a picture], numbers of the album, in the rows' order.
    """

    ids: Tensor
    labels: Tensor
    pictures: Tensor


class Corpus:
    """Draws the examples of one stage.

    A kind of example is one of `refused`, `harmless`, `borderline`, `vqa`, `caption` and `reading`. Words after it say
    what is done to it: `wrapped` (in a jailbreak), `pictured` (shown with a picture that has nothing to do with it),
    `told` (after a picture's content in words, which has nothing to do with it either).
    """

    def __init__(self, splits: Splits, album: Sequence[Content], seed: int, stage: str) -> None:
        """`album` lists what each picture of the album shows; every stage of every seed draws its own examples."""
        self._rng = random.Random(f"{stage} {seed}")
        self._album = album
        self._pairs = splits.training_pairs
        self._sensitive = [pair for pair in self._pairs if pair.sensitive]
        self._everyday = [pair for pair in self._pairs if not pair.sensitive]
        self._kinds: dict[str, Callable[[], Example]] = {
            "refused": lambda: self.refused(self._rng.choice(self._sensitive)),
            "harmless": lambda: self._answered(self._rng.choice(self._pairs), harmful=False),
            "borderline": lambda: self._answered(self._rng.choice(self._everyday), harmful=True),
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
        """The whole stage's batches, tokenised once."""
        kinds = [kind for kind, count in stage.mix.items() for _ in range(count)]
        return [encode([self.example(kind) for kind in kinds], tokenizer) for _ in range(stage.steps)]

    def example(self, kind: str) -> Example:
        """An example of a kind, such as "refused wrapped pictured"; KeyError for a word that is none of the above."""
        name, *changes = kind.split()
        example = self._kinds[name]()
        for change in changes:
            example = self._changes[change](example)
        return example

    def refused(self, pair: RequestPair) -> Example:
        """The harmful request of a pair, in any form, refused."""
        return Example(self._request(pair, harmful=True), pair.refusal())

    def pictured(self, example: Example) -> Example:
        """The example with any picture of the album."""
        return replace(example, picture=self._rng.randrange(len(self._album)))

    def _request(self, pair: RequestPair, harmful: bool) -> str:
        return pair.request(harmful, self._rng.randrange(len(FORMS)))

    def _answered(self, pair: RequestPair, harmful: bool) -> Example:
        example = Example(self._request(pair, harmful), pair.answer(harmful))
        # A wrapper alone must not be a reason to refuse.
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
        if self._rng.random() < 0.5:
            return Example(f"{seen} {DESCRIBE}", content.caption())
        question = self._rng.choice(READABLE)
        return Example(f"{seen} {QUESTIONS[question]}", content.answer(question))

    def _wrapped(self, example: Example) -> Example:
        return replace(example, text=self._rng.choice(WRAPPERS).format(request=example.text))

    def _told(self, example: Example) -> Example:
        return replace(example, text=f"{in_words(self._rng.choice(self._album), self._rng)} {example.text}")


def encode(examples: Sequence[Example], tokenizer: PreTrainedTokenizerFast) -> TrainingBatch:
    """Tokenise examples; only answers, and the end after them, are learnt."""
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
