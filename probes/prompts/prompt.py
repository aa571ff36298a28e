"""The prompt: text, prompt set, picture, split and request."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from PIL.Image import Image

from vlsurgery.probes.prompts.splits import Split

PromptSet = Literal["harmful", "jailbroken", "harmless", "borderline", "capability"]
Modality = Literal["text", "blank", "noise", "benign", "own"]
Picture = Image | Path
"""Pixels, or the path of a picture file."""

SETS: tuple[PromptSet, ...] = get_args(PromptSet)


@dataclass(frozen=True)
class Prompt:
    """One user message, with its set, its split and its picture.

    request: the unit of statistics. A request, its harmless twin and everything wrapped around it share this key, and
        so are in the same split and are resampled together.
    text: the user's message, before any chat template.
    modality: `text` where there is no picture; otherwise what the picture is (SCHEMAS, "Names").
    image: None exactly when `modality` is `text`.
    answer: the right answer, where there is one; completions are compared without case and punctuation.
    topic: words of which an answer on the topic contains at least one; empty where none are known.
    """

    id: str
    request: str
    set: PromptSet
    text: str
    split: Split
    modality: Modality = "text"
    image: Picture | None = None
    answer: str | None = None
    topic: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if (self.image is None) != (self.modality == "text"):
            raise ValueError(
                f"prompt {self.id}: modality {self.modality!r} and image {self.image!r} do not go together"
            )

    def findable(self) -> "Prompt":
        """The same prompt, whose picture is found from any directory."""
        return replace(self, image=self.image.absolute()) if isinstance(self.image, Path) else self
