import random

import numpy as np
import pytest

from vlsurgery.probes.specimens.miniature import pictures
from vlsurgery.probes.specimens.miniature.pictures import (
    COLORS,
    CONTENTS,
    CORNERS,
    PATCH,
    QUESTIONS,
    SIDE,
    WALLS,
    Content,
)


def pixels(content, seed=0):
    return np.asarray(pictures.render(content, random.Random(seed))).astype(int)


def nearest(pixel, named):
    return min(named, key=lambda name: np.square(np.array(named[name]) - pixel).sum())


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_what_is_answered_is_what_is_drawn(seed):
    """The corner is where the pixels differ from the wall, the colour what is there, the wall what is elsewhere."""
    for content in CONTENTS:
        drawn = pixels(content, seed)
        corner = {
            name: drawn[y * PATCH : (y + 1) * PATCH, x * PATCH : (x + 1) * PATCH] for name, (x, y) in CORNERS.items()
        }
        spread = {name: np.ptp(patch.reshape(-1, 3), axis=0).max() for name, patch in corner.items()}
        assert [name for name in spread if spread[name] > 0] == [content.answer("corner")]
        wall = next(patch for name, patch in corner.items() if name != content.corner)[0, 0]
        assert nearest(wall, WALLS) == content.answer("wall")
        shape = corner[content.corner].reshape(-1, 3)
        painted = shape[np.abs(shape - wall).sum(axis=1).argmax()]
        assert nearest(painted, COLORS) == content.answer("color")


def test_shapes_look_different():
    shapes = [pixels(Content("red", shape, "northwest", "dark")) for shape in pictures.SHAPES]
    assert all((a != b).any() for i, a in enumerate(shapes) for b in shapes[:i])


def test_rendering_depends_on_nothing_but_content_and_seed():
    content = CONTENTS[7]
    assert (pixels(content, 5) == pixels(content, 5)).all()
    assert any((pixels(content, 5) != pixels(content, other)).any() for other in range(6, 10))


def test_contents_are_all_combinations_and_answers_are_their_words():
    assert len(set(CONTENTS)) == 6 * 4 * 4 * 2
    for content in CONTENTS:
        assert [content.answer(question) for question in QUESTIONS] == list(content.words)
        assert set(content.words) <= set(content.caption().split())
        assert sorted(pictures.in_words(content, random.Random(0)).split()) == sorted(content.words)


def test_control_pictures():
    assert np.ptp(np.asarray(pictures.blank())) == 0
    noise = np.asarray(pictures.noise(random.Random(0)))
    assert noise.shape == (SIDE, SIDE, 3)
    assert noise.std() > 60
    assert (noise == np.asarray(pictures.noise(random.Random(0)))).all()
