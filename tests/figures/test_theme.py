"""The theme: colours that can be told apart, and text that stays text."""

import re
from importlib.resources import files
from itertools import combinations

import numpy as np
import plotly.graph_objects as go
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


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize("colours", [theme.ROLE_COLOURS, theme.KIND_COLOURS], ids=["roles", "kinds"])
def test_colours_are_told_apart_by_every_eye(vision: str, colours: dict[str, str], dark: bool) -> None:
    shown = [theme.DARK.get(colour, colour) if dark else colour for colour in colours.values()]
    for one, other in combinations(shown, 2):
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


def test_the_contrast_is_that_of_wcag() -> None:
    """Its own examples: black on white is 21, #767676 on white the lightest grey with 4.5, #777777 just below."""
    assert theme.contrast("#000000", "#ffffff") == pytest.approx(21)
    assert theme.contrast("#ffffff", "#767676") == pytest.approx(4.54, abs=0.01)
    assert theme.contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("at", [0, 1], ids=["light", "dark"])
def test_text_has_contrast_on_every_ground_that_it_stands_on(at: int) -> None:
    colours = {name: pair[at] for name, pair in theme.PAGE_COLOURS.items()}
    grounds = ("paper", "wash", "grid", "alarm-wash", "refused", "complied", "merged", "picked")
    assert min(theme.contrast(colours["ink"], colours[ground]) for ground in grounds) >= 4.5
    for text, where in (("body", "paper wash"), ("muted", "paper wash"), ("accent", "paper wash")):
        assert min(theme.contrast(colours[text], colours[ground]) for ground in where.split()) >= 4.5, text


def test_no_word_stands_in_a_colour_that_is_for_marks() -> None:
    """In the style sheet and in figures, what is text is ink, body, muted or accent."""
    css = files("vlsurgery.figures").joinpath("templates", "page.css").read_text(encoding="utf-8")
    assert set(re.findall(r"(?<![-\w])color: ([^;}]+)", css)) == {
        "var(--ink)", "var(--body)", "var(--muted)", "var(--accent)", "inherit"
    }  # fmt: skip
    assert not re.findall(r"#[0-9a-fA-F]{3,6}\b", re.sub(r"#[a-z]+[ ,:.{]", "", css))
    for path in files("vlsurgery.figures").iterdir():
        if path.name.endswith(".py"):
            fonts = re.findall(r'font"?[=:] ?\{[^}]*"color": ([^}]*)\}', path.read_text(encoding="utf-8"))
            assert not [font for font in fonts if "FAINT" in font or "RULE" in font or "GRID" in font], path.name


def test_marks_can_be_seen_on_dark_paper() -> None:
    paper = theme.DARK[theme.PAPER]
    for colour in [*theme.ROLE_COLOURS.values(), *theme.KIND_COLOURS.values(), *theme.SAFETY_SHADES, theme.INK]:
        assert theme.contrast(theme.DARK.get(colour, colour), paper) >= 3, colour


def test_the_way_back_from_dark_colours_is_known() -> None:
    assert len(set(theme.DARK.values())) == len(theme.DARK)
    everything = {*theme.DARK, *theme.ROLE_COLOURS.values(), *theme.SAFETY_SHADES, theme.UNKNOWN_ROLE}
    assert not set(theme.DARK.values()) & everything


def test_a_figure_in_dark_has_only_other_colours() -> None:
    light = go.Figure(go.Bar(x=[1, 2], y=[3, 4], marker={"color": [theme.INK, theme.ROLE_COLOURS["base"]]}))
    theme.frame(light, "a title", "and more", 200)
    light.add_annotation(text=f"<b>x</b> <span style='color:{theme.MUTED}'>y</span>", x=1, y=1)
    light.add_scatter(x=[1], y=[1], fillcolor=theme.tint(theme.INK, 0.25), hovertext=[f"{theme.INK} is a prompt"])
    dark = theme.shown(light, dark=True)
    assert list(dark.data[0].marker.color) == [theme.DARK[theme.INK], theme.ROLE_COLOURS["base"]]
    assert dark.data[1].fillcolor == theme.tint(theme.DARK[theme.INK], 0.25)
    assert dark.data[1].hovertext == (f"{theme.INK} is a prompt",)
    assert theme.DARK[theme.MUTED] in dark.layout.annotations[0].text
    assert dark.layout.template.layout.paper_bgcolor == theme.DARK[theme.PAPER]
    assert (list(dark.data[0].x), dark.layout.height) == (list(light.data[0].x), light.layout.height)
    assert theme.shown(light, dark=False) is light


def test_the_page_follows_the_browser_until_the_reader_chooses() -> None:
    css = theme.style_sheet()
    light, dark = theme.PAGE_COLOURS["ink"]
    assert css.startswith(":root{color-scheme:light;")
    assert f"--ink:{light}" in css[: css.index("@media")]
    assert css.count(f"--ink:{dark}") == 2
    assert "@media screen and (prefers-color-scheme:dark){:root:not([data-theme=light])" in css
    assert "@media screen{:root[data-theme=dark]" in css
