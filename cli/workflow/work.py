"""Passes through models, and the tokens that they take: what a step's time is computed from."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from vlsurgery.probes.prompts import Prompt

SCORED_ROWS: Final = 32  # prompts in a batch that is scored or captured, at most
WRITTEN_ROWS: Final = 64  # and in one that is completed
BATCH_TOKENS: Final = 8192  # of a batch, at most
CHARACTERS_OF_A_TOKEN: Final = 4
CALLS_OF_A_GRADIENT: Final = 6  # times as many small operations as a forward pass that a gradient takes
TEMPLATE_TOKENS: Final = 10  # that a chat template puts around a prompt


@dataclass(frozen=True)
class Work:
    """Passes of one prompt through a whole model.

    forward: without a gradient; those that begin at a later layer count as their share of the layers. gradient: forward
    and backward. completions: that are written. forward_tokens, gradient_tokens, read_tokens: of the prompts of these
    three. written_tokens: of completions, as many as are expected. pictures: that go through the vision tower. heads:
    tokens that the output head reads in passes. calls: of a model, each for one batch. steps: of writing, one token of
    every row of a batch. backward: batches with gradients. moved: how often all weights are moved to another merge.
    loads: of checkpoints. encoded, pictured: prompts that are turned into tokens, and pictures into pixels, once for
    every loaded model.
    """

    forward: float = 0.0
    gradient: float = 0.0
    completions: float = 0.0
    forward_tokens: float = 0.0
    gradient_tokens: float = 0.0
    read_tokens: float = 0.0
    written_tokens: float = 0.0
    pictures: float = 0.0
    heads: float = 0.0
    calls: float = 0.0
    steps: float = 0.0
    backward: float = 0.0
    moved: float = 0.0
    loads: float = 0.0
    encoded: float = 0.0
    pictured: float = 0.0

    def __add__(self, other: "Work") -> "Work":
        return Work(**{name: getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__})

    def times(self, count: float) -> "Work":
        """The same work so many times."""
        return Work(**{name: getattr(self, name) * count for name in self.__dataclass_fields__})


@dataclass(frozen=True)
class Passes:
    """Makes work of prompts. picture_tokens: of one picture within a prompt. answer: tokens of an answer."""

    picture_tokens: int
    answer: float

    def tokens(self, prompts: "Sequence[Prompt]") -> float:
        """About how many tokens prompts have, pictures and template included."""
        text = sum(len(prompt.text) / CHARACTERS_OF_A_TOKEN + TEMPLATE_TOKENS for prompt in prompts)
        return text + self.picture_tokens * _pictured(prompts)

    def forward(self, prompts: "Sequence[Prompt]", read: float = 1.0) -> Work:
        """A pass of every prompt with `read` tokens behind it that the head reads; pictures are known already."""
        tokens = self.tokens(prompts) + (read - 1) * len(prompts)
        calls = self._batches(prompts, SCORED_ROWS, read)
        return Work(forward=len(prompts), forward_tokens=tokens, heads=read * len(prompts), calls=calls)

    def loaded(self, prompts: "Sequence[Prompt]") -> Work:
        """A checkpoint that is loaded, and the prompts that it is asked, each once."""
        once = {prompt.id: prompt for prompt in prompts}.values()
        return Work(loads=1, encoded=len(once), pictured=_pictured(list(once)))

    def captured(self, prompts: "Sequence[Prompt]") -> Work:
        """A pass of every prompt without the head."""
        return self.forward(prompts) + Work(pictures=_pictured(prompts), heads=-len(prompts))

    def gradient(self, prompts: "Sequence[Prompt]", read: float = 1.0) -> Work:
        """A pass of every prompt and back."""
        found = self.forward(prompts, read)
        return Work(
            gradient=len(prompts),
            gradient_tokens=found.forward_tokens,
            heads=found.heads,
            calls=CALLS_OF_A_GRADIENT * found.calls,
            backward=found.calls,
        )

    def written(self, prompts: "Sequence[Prompt]", most: int) -> Work:
        """A completion of every prompt. most: tokens of one; a batch goes on until all of its rows have ended."""
        batches = self._batches(prompts, WRITTEN_ROWS, most)
        return Work(
            completions=len(prompts),
            read_tokens=self.tokens(prompts),
            written_tokens=min(self.answer, most) * len(prompts),
            pictures=_pictured(prompts),
            calls=batches,
            steps=batches * min(most, LONGEST * self.answer),
        )

    def _batches(self, prompts: "Sequence[Prompt]", rows: int, more: float) -> int:
        """Batches of prompts; with and without a picture go apart."""
        seen = [prompt for prompt in prompts if prompt.modality != "text"]
        kinds = [kind for kind in (seen, [p for p in prompts if p.modality == "text"]) if kind]
        return sum(
            max(-(-len(kind) // rows), round((self.tokens(kind) + more * len(kind)) / BATCH_TOKENS)) for kind in kinds
        )


LONGEST: Final = 2.0  # times as long as the mean that the longest completion of a batch is


def _pictured(prompts: "Sequence[Prompt]") -> int:
    return sum(prompt.modality != "text" for prompt in prompts)
