"""Prompts: what is asked, in which set, with which picture, and on which side of the split."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from PIL.Image import Image

from vlsurgery.probes.prompts.splits import Split

PromptSet = Literal["harmful", "jailbroken", "harmless", "borderline", "capability"]
Modality = Literal["text", "blank", "noise", "benign", "own"]

SETS: tuple[PromptSet, ...] = get_args(PromptSet)
HARMFUL_SETS: tuple[PromptSet, ...] = ("harmful", "jailbroken")


@dataclass(frozen=True)
class Prompt:
    """One thing asked of a model.

    request: the unit of statistics. A request, its harmless twin and everything wrapped around it share this key, and
        so stand on the same side of the split and are resampled together.
    text: the user's message, before any chat template.
    modality: `text` where there is no picture; otherwise what the picture is (SCHEMAS, "Names").
    image: a PIL picture or the path of one; None exactly when `modality` is `text`.
    answer: the right answer, where there is one; a completion is right when it equals it but for case and punctuation.
    topic: words of which an answer that is about the request names at least one; empty where nothing is known.
    """

    id: str
    request: str
    set: PromptSet
    text: str
    split: Split
    modality: Modality = "text"
    image: Image | Path | None = None
    answer: str | None = None
    topic: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if (self.image is None) != (self.modality == "text"):
            raise ValueError(
                f"prompt {self.id}: modality {self.modality!r} and image {self.image!r} do not go together"
            )
