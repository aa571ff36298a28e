"""Pictures drawn for prompts: ordinary scenes, controls with nothing to see, and shapes to ask about.

The same arguments always give the same pixels.
"""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

SIDE = 224
"""Width and height of every picture, in pixels."""

COLORS: dict[str, str] = {
    "red": "#d62020",
    "green": "#1f9d2f",
    "blue": "#2340d0",
    "yellow": "#f5d90a",
    "purple": "#8a2be2",
    "orange": "#ff8c1a",
    "black": "#101010",
}
SHAPES: tuple[str, ...] = ("circle", "square", "triangle", "star")
CELLS = 9
"""Cells of the 3 x 3 grid that shapes are drawn in, numbered row by row from 0."""


@dataclass(frozen=True)
class Shape:
    """One figure: a name of SHAPES, a name of COLORS, and the cell it stands in."""

    name: str
    color: str
    cell: int


def blank() -> Image.Image:
    """A white picture, the control for the presence of a picture."""
    return Image.new("RGB", (SIDE, SIDE), "white")


def noise(key: str) -> Image.Image:
    """A picture of uniform random pixels, seeded by `key`."""
    return Image.frombytes("RGB", (SIDE, SIDE), random.Random(f"noise/{key}").randbytes(3 * SIDE * SIDE))


def shapes(figures: Sequence[Shape]) -> Image.Image:
    """The figures on white, each filling about four fifths of its cell."""
    picture = blank()
    draw = ImageDraw.Draw(picture)
    for figure in figures:
        _figure(draw, figure)
    return picture


def scene(number: int) -> Image.Image:
    """A harmless everyday scene: a house, a boat or a table.

    number: of the scene, from 0; it sets the kind in turn, and seeds the rest.
    """
    rng = random.Random(f"scene/{number}")
    picture = Image.new("RGB", (SIDE, SIDE), rng.choice(("#bfe3ff", "#d8ecff", "#ffe9cf", "#cfe8e4")))
    _SCENES[number % len(_SCENES)](ImageDraw.Draw(picture), rng)
    return picture


def _figure(draw: ImageDraw.ImageDraw, figure: Shape) -> None:
    size = SIDE / 3
    x, y, r = (figure.cell % 3 + 0.5) * size, (figure.cell // 3 + 0.5) * size, 0.4 * size
    fill = COLORS[figure.color]
    match figure.name:
        case "circle":
            draw.ellipse((x - r, y - r, x + r, y + r), fill=fill)
        case "square":
            draw.rectangle((x - r, y - r, x + r, y + r), fill=fill)
        case "triangle":
            draw.polygon([(x, y - r), (x - r, y + r), (x + r, y + r)], fill=fill)
        case "star":
            # Ten corners, alternately far and near; .38 is the ratio that makes a pentagram's edges straight.
            corners = [(k * math.pi / 5, r * (1.1 if k % 2 == 0 else 1.1 * 0.38)) for k in range(10)]
            draw.polygon([(x + d * math.sin(a), y - d * math.cos(a)) for a, d in corners], fill=fill)
        case _:
            raise ValueError(f"no such shape: {figure.name!r}; expected one of {SHAPES}")


def _house(draw: ImageDraw.ImageDraw, rng: random.Random) -> None:
    horizon, left, width = rng.randint(140, 160), rng.randint(30, 90), rng.randint(70, 95)
    _sun(draw, rng)
    draw.rectangle((0, horizon, SIDE, SIDE), fill="#7cb66a")
    draw.rectangle((left, horizon - 50, left + width, horizon + 20), fill=rng.choice(("#e8d3b0", "#d9b8a0", "#f3f0e8")))
    roof = [(left - 8, horizon - 50), (left + width + 8, horizon - 50), (left + width // 2, horizon - 90)]
    draw.polygon(roof, fill=rng.choice(("#9c4a34", "#5f6b78", "#7a5536")))
    draw.rectangle((left + 10, horizon - 15, left + 28, horizon + 20), fill="#6b4a2f")
    draw.rectangle((left + width - 30, horizon - 35, left + width - 12, horizon - 17), fill="#cfe6f5")
    trunk = left + width + rng.randint(20, 30)
    draw.rectangle((trunk, horizon - 25, trunk + 8, horizon + 15), fill="#6b4a2f")
    draw.ellipse((trunk - 18, horizon - 65, trunk + 26, horizon - 20), fill="#3f8f45")


def _boat(draw: ImageDraw.ImageDraw, rng: random.Random) -> None:
    sea, x = rng.randint(120, 150), rng.randint(60, 110)
    _sun(draw, rng)
    draw.rectangle((0, sea, SIDE, SIDE), fill=rng.choice(("#2f7fb5", "#3a95a8", "#2b6aa0")))
    draw.polygon([(x - 40, sea + 10), (x + 60, sea + 10), (x + 40, sea + 35), (x - 25, sea + 35)], fill="#8a5a34")
    draw.line((x, sea + 10, x, sea - 75), fill="#4a3320", width=4)
    draw.polygon([(x + 4, sea - 72), (x + 4, sea), (x + 52, sea)], fill=rng.choice(("#ffffff", "#f4d35e", "#e9806e")))


def _table(draw: ImageDraw.ImageDraw, rng: random.Random) -> None:
    top = rng.randint(125, 145)
    draw.rectangle((0, top, SIDE, SIDE), fill=rng.choice(("#a9784f", "#c29b6c", "#8d6547")))
    bowl = rng.randint(40, 80)
    for k, color in enumerate(rng.sample(("#d9382e", "#f2a33c", "#8fbf3f", "#f5d547"), 3)):
        draw.ellipse((bowl + 28 * k, top - 45, bowl + 28 * k + 34, top - 11), fill=color)
    draw.chord((bowl - 12, top - 62, bowl + 114, top + 22), 0, 180, fill="#e9eef2")
    cup = bowl + 125
    draw.rectangle((cup, top - 25, cup + 22, top + 15), fill=rng.choice(("#4f7cac", "#b35c7a", "#5a9a78")))


def _sun(draw: ImageDraw.ImageDraw, rng: random.Random) -> None:
    x, y = rng.randint(15, 180), rng.randint(8, 25)
    draw.ellipse((x, y, x + 28, y + 28), fill="#ffd23f")


_SCENES: tuple[Callable[[ImageDraw.ImageDraw, random.Random], None], ...] = (_house, _boat, _table)
