"""What the stages of one real trio share: its texts, pictures, losses and ways to open and save models."""

import copy
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor

from vlsurgery.probes.specimens.smollm2 import chat, networks, own_answers, pictures
from vlsurgery.probes.specimens.smollm2.config import Lesson, TrioConfig
from vlsurgery.probes.specimens.smollm2.corpus import Examples, OwnAnswer, TurnBatch
from vlsurgery.probes.specimens.smollm2.networks import RealLM, answer_loss, tower_states
from vlsurgery.probes.specimens.smollm2.pictures import Sight
from vlsurgery.surgery.runtime.progress import Progress


@dataclass(frozen=True)
class Workshop:
    """What all stages of one trio share.

    root: the trio's directory. source: that of the raw model. dtype: of running weights; all are saved in bfloat16.
    """

    config: TrioConfig
    seed: int
    root: Path
    source: Path
    device: str
    dtype: torch.dtype
    progress: Progress

    @cached_property
    def own(self) -> dict[str, OwnAnswer]:
        return own_answers.read(self.root / "answers" / "answers.json")

    @cached_property
    def blind_words(self) -> Any:
        return chat.tokenizer(self.source)

    @cached_property
    def seeing_words(self) -> Any:
        return chat.tokenizer(self.source, sees=True)

    @cached_property
    def album(self) -> tuple[list[Sight], Tensor]:
        """The training pictures: what each shows, and their pixels [pictures, 3, side, side]."""
        reader = chat.processor(self.seeing_words).image_processor
        pixels = reader([image for _, image in self.drawn], return_tensors="pt")["pixel_values"]
        return [sight for sight, _ in self.drawn], pixels

    @cached_property
    def drawn(self) -> list[tuple[Sight, Image]]:
        """The training pictures as they are drawn."""
        config = self.config
        return pictures.album(config.digits, config.figures, config.scenes, self.rng("album"))

    def rng(self, name: str) -> random.Random:
        """The seeded source of one purpose's choices."""
        return random.Random(f"{name} {self.seed}")

    def losses(
        self, model: RealLM, name: str, lesson: Lesson, seen: Tensor | None = None
    ) -> Iterator[list[Callable[[], Tensor]]]:
        """Of each batch of a lesson the parts of its mean loss of a token, under a progress bar of that name."""
        sights = [] if seen is None else self.album[0]
        words = self.blind_words if seen is None else self.seeing_words
        batches = Examples(self.own, sights, self.seed, name).batches(lesson, words)
        for parts in self.progress(batches, name, lesson.steps):
            count = sum(part.learnt for part in parts)
            yield [partial(_share, model, part.to(self.device), seen, count) for part in parts]

    def seen(self, model: Any) -> Tensor:
        """The tower's states of the whole album, as the frozen tower of a running model gives them."""
        pixels = self.album[1]
        with torch.no_grad():
            parts = [tower_states(model, part.to(self.device, self.dtype)) for part in pixels.split(64)]
        return torch.cat(parts)

    def open_seeing(self, directory: Path) -> Any:
        """A vision-language model, nothing of it in training."""
        return networks.seeing(directory, self.dtype).to(self.device).requires_grad_(False)

    def save(self, model: RealLM, words: Any, directory: Path) -> None:
        """Write a checkpoint in bfloat16, with its tokenizer or processor."""
        whole = copy.deepcopy(model).to(torch.bfloat16)
        whole.config.dtype = torch.bfloat16
        whole.save_pretrained(directory)
        sees = words is self.seeing_words
        (chat.processor(words) if sees else words).save_pretrained(directory)


def _share(model: RealLM, part: TurnBatch, seen: Tensor | None, count: int) -> Tensor:
    """What a part adds to the mean over so many tokens."""
    return answer_loss(model, part, seen) / count
