"""Pictures and questions about them: one coloured shape in one quarter of a plain wall.

The same content can be written in four words ("red ring northwest dark", in any order): so the base reads it as text,
and the projector learns to map pictures to such words.
"""

import random
from dataclasses import astuple, dataclass
from itertools import product

from PIL import Image, ImageDraw

SIDE = 32  # width and height in pixels
PATCH = 16  # width and height of a patch in pixels
MAX_SHADE = 25  # largest random change of a colour channel, of 255
IMAGE_TOKENS = (SIDE // PATCH) ** 2

COLORS: dict[str, tuple[int, int, int]] = {
    "red": (214, 40, 40),
    "green": (50, 190, 70),
    "blue": (40, 80, 220),
    "yellow": (235, 205, 40),
    "purple": (140, 50, 170),
    "orange": (240, 130, 20),
}
SHAPES: tuple[str, ...] = ("ring", "square", "triangle", "cross")
CORNERS: dict[str, tuple[int, int]] = {
    "northwest": (0, 0),
    "northeast": (1, 0),
    "southwest": (0, 1),
    "southeast": (1, 1),
}
WALLS: dict[str, tuple[int, int, int]] = {"dark": (35, 35, 40), "light": (225, 225, 220)}
ATTRIBUTES: tuple[tuple[str, ...], ...] = (tuple(COLORS), SHAPES, tuple(CORNERS), tuple(WALLS))
"""The words of each attribute, in the order of a content's own words."""

QUESTIONS: dict[str, str] = {
    "color": "what color is the shape ?",
    "shape": "which shape is it ?",
    "corner": "where is the shape ?",
    "wall": "is the wall dark or light ?",
}
READABLE: tuple[str, ...] = ("color",)
"""The questions that the base learns to answer about a content in words. If it learned them all, adaptation would
hardly change the language model, and a merge back to the base would cost no visual ability."""
DESCRIBE = "say what you see"


@dataclass(frozen=True, order=True)
class Content:
    """The content of a picture."""

    color: str
    shape: str
    corner: str
    wall: str

    @property
    def words(self) -> tuple[str, ...]:
        """The content in four words, one for each attribute."""
        return astuple(self)

    def answer(self, question: str) -> str:
        """The right answer to one of QUESTIONS."""
        return str(getattr(self, question))

    def caption(self) -> str:
        """The content in a sentence."""
        return f"a {self.color} {self.shape} in the {self.corner} of a {self.wall} wall"


CONTENTS: tuple[Content, ...] = tuple(Content(*words) for words in product(*ATTRIBUTES))


def render(content: Content, rng: random.Random) -> Image.Image:
    """A picture of the content, SIDE x SIDE pixels; `rng` varies its position, size and shades a little."""
    image = Image.new("RGB", (SIDE, SIDE), _shaded(WALLS[content.wall], rng))
    column, row = CORNERS[content.corner]
    x = column * PATCH + PATCH // 2 + rng.randint(-1, 1)
    y = row * PATCH + PATCH // 2 + rng.randint(-1, 1)
    _draw(ImageDraw.Draw(image), content.shape, (x, y, rng.randint(5, 6)), _shaded(COLORS[content.color], rng))
    return image


def in_words(content: Content, rng: random.Random) -> str:
    """The content's four words in random order."""
    return " ".join(rng.sample(content.words, len(content.words)))


def blank() -> Image.Image:
    """A plain grey picture, without content."""
    return Image.new("RGB", (SIDE, SIDE), (128, 128, 128))


def noise(rng: random.Random) -> Image.Image:
    """A picture of independent uniform pixels."""
    return Image.frombytes("RGB", (SIDE, SIDE), rng.randbytes(SIDE * SIDE * 3))


def words() -> tuple[str, ...]:
    """Every word of contents, questions and captions, sorted."""
    texts = [*COLORS, *SHAPES, *CORNERS, *WALLS, *QUESTIONS.values(), DESCRIBE, CONTENTS[0].caption()]
    return tuple(sorted({word for text in texts for word in text.split()}))


def _shaded(color: tuple[int, int, int], rng: random.Random) -> tuple[int, int, int]:
    # Shades vary, so that the tower learns shapes apart from colours and walls.
    red, green, blue = (min(255, max(0, channel + rng.randint(-MAX_SHADE, MAX_SHADE))) for channel in color)
    return red, green, blue


def _draw(draw: ImageDraw.ImageDraw, shape: str, place: tuple[int, int, int], fill: tuple[int, int, int]) -> None:
    x, y, r = place
    if shape == "ring":
        draw.ellipse((x - r, y - r, x + r, y + r), outline=fill, width=3)
    elif shape == "square":
        draw.rectangle((x - r + 1, y - r + 1, x + r - 1, y + r - 1), fill=fill)
    elif shape == "triangle":
        draw.polygon(((x, y - r), (x - r, y + r), (x + r, y + r)), fill=fill)
    else:
        draw.rectangle((x - r, y - 1, x + r, y + 1), fill=fill)
        draw.rectangle((x - 1, y - r, x + 1, y + r), fill=fill)
