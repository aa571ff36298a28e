"""Training pictures: what they show is what is said of them."""

import random

import numpy as np

from vlsurgery.probes.prompts.pictures import COLORS
from vlsurgery.probes.specimens.smollm2 import pictures
from vlsurgery.probes.specimens.smollm2.pictures import ASK_COLOR, ASK_DIGIT, ASK_SHAPE, ASK_SIZE, WORDS, Sight


def rgb(name: str) -> np.ndarray:
    return np.array([int(COLORS[name][at : at + 2], 16) for at in (1, 3, 5)])


def test_a_figure_has_the_color_and_the_size_that_it_is_said_to_have() -> None:
    rng = random.Random(0)
    for _ in range(40):
        sight, image = pictures.figure(rng)
        pixels = np.asarray(image).astype(int)
        near = np.abs(pixels - rgb(str(sight.color))).sum(2) < 40
        rows, columns = np.nonzero(near)
        width = max(np.ptp(rows), np.ptp(columns)) + 1
        assert near.sum() > 60
        assert (width < 40) == (sight.detail == "small"), (sight, width)


def test_every_word_is_one_that_the_tower_learns() -> None:
    sights = [sight for sight, _ in pictures.album(40, 40, 6, random.Random(1))]
    for sight in sights:
        for word, known in zip(sight.words, WORDS, strict=True):
            assert word is None or word in known
    assert {sight.thing for sight in sights} >= {"digit", "house", "boat", "table", "circle"}


def test_questions_have_their_right_answers() -> None:
    assert Sight("black", "digit", "seven").questions() == {ASK_DIGIT: "7"}
    assert Sight("red", "star", "large").questions() == {ASK_COLOR: "red", ASK_SHAPE: "star", ASK_SIZE: "large"}
    assert Sight("red", "star", "large").caption() == "A large red star."
    assert Sight(None, "boat", None).caption() == "A boat."


def test_one_seed_gives_one_album() -> None:
    one, other, third = (pictures.album(3, 3, 3, random.Random(seed)) for seed in (5, 5, 6))
    assert [(sight, image.tobytes()) for sight, image in one] == [(sight, image.tobytes()) for sight, image in other]
    assert [image.tobytes() for _, image in one] != [image.tobytes() for _, image in third]
