"""The theme: colours that can be told apart, and text that stays text."""

from itertools import combinations

import numpy as np
import pytest

from vlsurgery.figures import theme

# Machado, Oliveira and Fernandes, "A Physiologically-based Model for Simulation of Color Vision Deficiency" (2009),
# severity 1, for linear RGB.
VISION = {
    "usual": np.eye(3),
    "protanopia": np.array([[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]]),
    "deuteranopia": np.array([[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]]),
    "tritanopia": np.array([[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]]),
}
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
WHITE = np.array([0.9505, 1.0, 1.089])


def lab(colour: str, vision: np.ndarray) -> np.ndarray:
    """A hex colour as CIE Lab, as someone with this vision sees it."""
    srgb = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    ratio = TO_XYZ @ np.clip(vision @ linear, 0, 1) / WHITE
    root = np.where(ratio > 0.008856, np.cbrt(ratio), 7.787 * ratio + 16 / 116)
    return np.array([116 * root[1] - 16, 500 * (root[0] - root[1]), 200 * (root[1] - root[2])])


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize("colours", [theme.ROLE_COLOURS, theme.KIND_COLOURS], ids=["roles", "kinds"])
def test_colours_are_told_apart_by_every_eye(vision: str, colours: dict[str, str]) -> None:
    for one, other in combinations(colours.values(), 2):
        assert np.linalg.norm(lab(one, VISION[vision]) - lab(other, VISION[vision])) > 12, (one, other)


def test_kinds_take_no_colour_of_a_role() -> None:
    assert not set(theme.KIND_COLOURS.values()) & set(theme.ROLE_COLOURS.values())


def test_named_safety_models_share_the_colour_of_safety_and_strangers_none() -> None:
    assert theme.role_colour("safety:dpo") == theme.ROLE_COLOURS["safety"]
    assert theme.role_colour("merged:uniform") != theme.role_colour("merged")
    assert theme.role_colour("stranger") not in theme.ROLE_COLOURS.values()


def test_several_safety_models_that_are_merged_differ_in_colour() -> None:
    found = theme.source_colours(["base", "safety", "safety:mild", "safety:dpo"])
    assert len(set(found.values())) == 4
    assert [found["base"], found["safety"]] == [theme.ROLE_COLOURS["base"], theme.ROLE_COLOURS["safety"]]


def test_hover_text_holds_no_markup_but_ours() -> None:
    text = theme.hover("<script>", ["a <b> & c"])
    assert "<script>" not in text
    assert text == "<b>&lt;script&gt;</b><br>a &lt;b&gt; &amp; c"
