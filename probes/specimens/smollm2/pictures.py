"""Training pictures: scanned digits, single drawn figures and everyday scenes, with what there is to say of them."""

import random
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image

from vlsurgery.probes.prompts import pictures as drawn

SIDE = 72
PATCH = 24
IMAGE_TOKENS = (SIDE // PATCH) ** 2
SIZES = {"small": (26, 36), "large": (52, 68)}  # the least and greatest width in pixels
SCENES = ("house", "boat", "table")
FIRST_SCENE = 3000  # scenes from here on are in no evaluation prompt
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
WORDS: tuple[tuple[str, ...], ...] = (
    tuple(drawn.COLORS),
    (*drawn.SHAPES, "digit", *SCENES),
    (*SIZES, *DIGITS),
)
"""What a picture is described by: the words of its color, its thing and its detail."""

DESCRIBE = "Describe the picture in a few words."
ASK_DIGIT = "What digit is written in the picture? Answer with a number only."
ASK_COLOR = "What color is the figure? Answer with one word."
ASK_SHAPE = f"What is the shape of the figure: {', '.join(drawn.SHAPES[:-1])} or {drawn.SHAPES[-1]}? One word."
ASK_SIZE = "Is the figure small or large? Answer with one word."
ASK_SCENE = "What does the picture show: a house, a boat or a table? Answer with one word."


@dataclass(frozen=True)
class Sight:
    """What a picture shows; None where there is no such word."""

    color: str | None
    thing: str
    detail: str | None

    @property
    def words(self) -> tuple[str | None, ...]:
        return self.color, self.thing, self.detail

    def caption(self) -> str:
        if self.thing == "digit":
            return f"The digit {self.detail}."
        return f"A {self.thing}." if self.detail is None else f"A {self.detail} {self.color} {self.thing}."

    def questions(self) -> dict[str, str]:
        """Each question on the picture with its right answer."""
        if self.thing == "digit":
            return {ASK_DIGIT: str(DIGITS.index(str(self.detail)))}
        if self.detail is None:
            return {ASK_SCENE: self.thing}
        return {ASK_COLOR: str(self.color), ASK_SHAPE: self.thing, ASK_SIZE: self.detail}


def album(digits: int, figures: int, scenes: int, rng: random.Random) -> list[tuple[Sight, Image.Image]]:
    """Training pictures; the digits are the first scans."""
    return [
        *(digit(at, rng) for at in range(digits)),
        *(figure(rng) for _ in range(figures)),
        *(scene(FIRST_SCENE + at) for at in range(scenes)),
    ]


def digit(at: int, rng: random.Random) -> tuple[Sight, Image.Image]:
    """One of scikit-learn's scans of handwritten digits, dark on white, somewhere in the picture."""
    scans, labels = _scans()
    ink = Image.fromarray(scans[at]).convert("RGB")
    return Sight("black", "digit", DIGITS[labels[at]]), _placed(ink, rng.randint(50, 68), rng)


def figure(rng: random.Random) -> tuple[Sight, Image.Image]:
    """One drawn figure, somewhere in the picture."""
    size = rng.choice(tuple(SIZES))
    sight = Sight(rng.choice(tuple(drawn.COLORS)), rng.choice(drawn.SHAPES), size)
    third = drawn.SIDE // 3
    whole = drawn.shapes([drawn.Shape(sight.thing, str(sight.color), 4)])
    return sight, _placed(whole.crop((third, third, 2 * third, 2 * third)), rng.randint(*SIZES[size]), rng)


def scene(number: int) -> tuple[Sight, Image.Image]:
    return Sight(None, SCENES[number % len(SCENES)], None), drawn.scene(number)


def _placed(image: Image.Image, side: int, rng: random.Random) -> Image.Image:
    """A square image at a width, at a random place on white."""
    canvas = Image.new("RGB", (SIDE, SIDE), "white")
    place = rng.randint(0, SIDE - side), rng.randint(0, SIDE - side)
    canvas.paste(image.resize((side, side), Image.Resampling.BICUBIC), place)
    return canvas


@cache
def _scans() -> tuple[np.ndarray, list[int]]:
    from sklearn.datasets import load_digits

    found = load_digits()
    return (255 - found.images * (255 / 16)).astype(np.uint8), [int(label) for label in found.target]
