"""The division of pairs and picture contents into training data and splits, without overlap."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from vlsurgery.probes.prompts import Split
from vlsurgery.probes.specimens.miniature.language import PAIRS, RequestPair
from vlsurgery.probes.specimens.miniature.pictures import ATTRIBUTES, COLORS, CONTENTS, Content

T = TypeVar("T")

# Harmful pairs, borderline pairs and picture contents (with four questions each) in a split.
SIZES: dict[Split, tuple[int, int, int]] = {"fit": (40, 24, 8), "select": (56, 56, 14), "report": (112, 112, 28)}
WATCHED_PAIRS = 64


@dataclass(frozen=True)
class Splits:
    """One seed's division of the language.

    harmful, borderline, contents: by split, in drawn order. A harmful pair includes its harmless twin.
    watched: harmful pairs that only show how refusals fall during adaptation; in no split and in no training data.
    training_pairs, training_contents: all others.
    """

    harmful: dict[Split, tuple[RequestPair, ...]]
    borderline: dict[Split, tuple[RequestPair, ...]]
    contents: dict[Split, tuple[Content, ...]]
    watched: tuple[RequestPair, ...]
    training_pairs: tuple[RequestPair, ...]
    training_contents: tuple[Content, ...]


def draw(seed: int) -> Splits:
    """The division of pairs and contents for a seed."""
    rng = random.Random(f"splits {seed}")
    harmful, spare = _take_per_split(_shuffled(rng, [pair for pair in PAIRS if pair.sensitive]), 0)
    borderline, rest = _take_per_split(_shuffled(rng, [pair for pair in PAIRS if not pair.sensitive]), 1)
    contents, pictures = _take_per_split(_latin_order(rng), 2)
    return Splits(
        harmful=harmful,
        borderline=borderline,
        contents=contents,
        watched=tuple(spare[:WATCHED_PAIRS]),
        training_pairs=tuple(sorted(spare[WATCHED_PAIRS:] + rest)),
        training_contents=tuple(sorted(pictures)),
    )


def _take_per_split(items: list[T], column: int) -> tuple[dict[Split, tuple[T, ...]], list[T]]:
    """The items of each split, in order and as many as this column of SIZES says, and the items that are left."""
    taken: dict[Split, tuple[T, ...]] = {}
    for split, sizes in SIZES.items():
        taken[split] = tuple(items[: sizes[column]])
        items = items[sizes[column] :]
    return taken, items


def _latin_order(rng: random.Random) -> list[Content]:
    """The contents in random order within each class of a Latin square, class after class.

    A class has at most one of the contents that agree in all attributes but one, and at most a quarter of those that
    agree in two. So the fifty that are taken from the front hold out few contents of any two attributes together: a
    tower this small could not learn a green ring if most green rings were held out.
    """
    numbers = [{word: n for n, word in enumerate(_shuffled(rng, words))} for words in ATTRIBUTES]

    def latin(content: Content) -> int:
        color, shape, corner, wall = (number[word] for number, word in zip(numbers, content.words, strict=True))
        return (color + shape + corner + 3 * wall) % len(COLORS)

    return sorted(_shuffled(rng, CONTENTS), key=latin)


def _shuffled(rng: random.Random, items: Sequence[T]) -> list[T]:
    return rng.sample(items, len(items))
