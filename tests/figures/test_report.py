"""The report: one whole file, escaped throughout, that says what is missing."""

import base64
import gzip
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import plotly.graph_objects as go
import pytest

from vlsurgery.figures import theme
from vlsurgery.figures.embedding import embed
from vlsurgery.figures.report import report, write_report
from vlsurgery.surgery.results import CheckpointRef

VOID = {"meta", "br", "link", "img", "input", "hr"}
HOSTILE = "<script>alert('x')</script>&\"{{ 7 * 7 }}`"


class Structure(HTMLParser):
    """Checks that tags close in the order they opened, and gathers scripts and text."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.scripts = 0
        self.sources: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self.scripts += tag == "script"
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("script", "style"):
            self.text.append(data)


def parsed(html: str) -> Structure:
    structure = Structure()
    structure.feed(html)
    structure.close()
    assert structure.open == []
    return structure


@pytest.fixture(scope="module")
def full(make: SimpleNamespace) -> str:
    return report(make.diff(), make.probe(), make.behaviour(), make.tradeoff(), completions=make.completions())


def figures_of(html: str) -> dict[str, dict]:
    """What the page's script is given of each figure."""
    found = re.findall(r'data-plot="([^"]*)".*?class="data">([^<]*)<', html, re.DOTALL)
    return {anchor: json.loads(gzip.decompress(base64.b64decode(data))) for anchor, data in found}


def colours_in(value: object) -> set[str]:
    """Every colour of a part of a figure, as solid ones."""
    text = json.dumps(value)
    tints = re.findall(r"rgba?\((\d+), ?(\d+), ?(\d+)", text)
    return {*re.findall(r"#[0-9a-f]{6}", text), *("#" + "".join(f"{int(p):02x}" for p in tint) for tint in tints)}


def test_the_file_needs_nothing_beyond_itself(full: str) -> None:
    structure = parsed(full)
    assert all(source.startswith("#") for source in structure.sources)
    assert "@import" not in full[: full.index("</style>")]
    assert full.count("plotly.js v") == 1
    # plotly.js and the reader's choice of colours before anything is painted; the palette, five scripts, the
    # completions; a figure each.
    assert structure.scripts == 2 + 1 + 5 + 1 + len(figures_of(full))


def test_it_offers_no_button_that_sends_data_away(full: str) -> None:
    figures = figures_of(full)
    assert len(figures) >= 6
    for figure in figures.values():
        assert figure["config"]["modeBarButtons"] == [["zoom2d", "resetScale2d"]]


def test_the_words_come_before_the_library(full: str) -> None:
    """So that a page can be read before five megabytes of script are."""
    assert full.index("</main>") < full.index("plotly.js v")
    assert full.index("data-theme") < full.index("<body>")  # the colours are known before anything is painted


def test_whatever_a_link_names_is_there(full: str) -> None:
    anchors = set(re.findall(r' id="([^"]*)"', full))
    for source in parsed(full).sources:
        assert source[1:].partition("?")[0] in anchors


def test_the_slider_has_a_command_for_every_position_and_is_the_browsers_own(make: SimpleNamespace) -> None:
    html = report(None, None, None, make.priced_tradeoff())
    figure = figures_of(html)["price"]
    assert figure["commands"] == [f"vlsurgery merge --auto --price {price}" for price in ("0.5", "2", "8")]
    (control,) = figure["controls"]
    assert [step["label"] for step in control["steps"]] == ["0.5", "2", "8"]
    assert [frame["name"] for frame in figure["frames"]] == ["0.5", "2", "8"]
    assert (control["kind"], control["active"]) == ("slider", 1)
    assert "sliders" not in figure["layout"]
    assert figures_of(html)["frontier"]["layout"]["meta"]["moves"] == "price"
    assert 'id="figure-price"' in html


def test_without_gradients_the_slider_says_what_takes_them(full: str) -> None:
    assert "This writes the merge" not in full
    assert full.count("nothing is known of other prices") == 2


def test_with_cdn_only_the_library_is_linked(make: SimpleNamespace) -> None:
    html = report(make.diff(), make.probe(), make.behaviour(), make.tradeoff(), cdn=True)
    (source,) = [source for source in parsed(html).sources if not source.startswith("#")]
    assert source.startswith("https://cdn.plot.ly/plotly-")
    assert len(html) < 500_000


def test_every_figure_is_there_with_its_two_paragraphs(full: str) -> None:
    for anchor in ("behaviour", "outcomes", "safety-map", "coefficients", "direction-drift", "weight-change"):
        assert f'id="figure-{anchor}"' in full
    assert full.count("How to read it.") == full.count("What it does not show.") == len(figures_of(full))


def test_what_is_missing_is_named_with_its_command(make: SimpleNamespace) -> None:
    html = report(None, None, None, None, cdn=True)
    text = " ".join(parsed(html).text)
    for command in ("diff BASE ADAPTED [SAFETY]", "probe", "evaluate", "merge --auto"):
        assert f"vlsurgery {command}" in text
    assert 'class="figure"' not in html
    assert "plotly-graph-div" not in html
    partly = report(make.diff(), None, make.behaviour(), None, cdn=True)
    parsed(partly)
    assert partly.count('class="figure"') == 3


def test_a_result_without_anything_to_draw_says_so(make: SimpleNamespace) -> None:
    empty = make.probe().model_copy(update={"attribution": [], "transplants": [], "records": [], "cosines": []})
    html = report(None, empty, make.behaviour({}), None, cdn=True)
    text = " ".join(parsed(html).text)
    assert "attributed no blocks" in text
    assert "measured no directions" in text


def hostile_report(make: SimpleNamespace) -> str:
    ref = CheckpointRef(path=HOSTILE, identity=HOSTILE)
    behaviour = make.behaviour({HOSTILE: {("harmful", HOSTILE): 0.5}, "adapted": {(HOSTILE, "text"): 0.2}})
    behaviour = behaviour.model_copy(
        update={"notes": [HOSTILE], "checkpoints": {HOSTILE: ref}, "settings": {HOSTILE: HOSTILE}}
    )
    probe = make.probe()
    probe = probe.model_copy(
        update={
            "verdict": HOSTILE,
            "attribution": [row.model_copy(update={"block": HOSTILE}) for row in probe.attribution[:1]],
            "transplants": [],
            "records": [row.model_copy(update={"role": HOSTILE}) for row in probe.records[:3]],
        }
    )
    tradeoff = make.tradeoff()
    points = [p.model_copy(update={"policy": HOSTILE, "parameters": {HOSTILE: 0.1}}) for p in tradeoff.points]
    tradeoff = tradeoff.model_copy(update={"policy": HOSTILE, "points": points, "verdict": HOSTILE})
    return report(make.diff(), probe, behaviour, tradeoff, cdn=True)


def test_hostile_names_stay_text(make: SimpleNamespace) -> None:
    html = hostile_report(make)
    structure = parsed(html)
    assert structure.scripts == 2 + 1 + 5 + len(figures_of(html))
    assert "<script>alert" not in html
    assert "{{ 7 * 7 }}" in html.replace("&#123;", "{")
    # Inside the figures plotly reads a little markup of its own, so what goes there is escaped once more; tables are
    # written as text, and places of blocks are looked up.
    for figure in figures_of(html).values():
        for part in ("data", "layout", "frames", "controls"):
            figure["layout"].pop("meta", None)
            assert "<script>" not in json.dumps(figure[part])


def test_a_role_has_one_colour_in_every_figure_and_table(full: str) -> None:
    for role in ("base", "adapted", "safety", "merged", "merged:uniform"):
        colour = theme.role_colour(role)
        assert f'<i style="background:{colour}"></i>' in full
        assert theme.tint(colour, 0.85) in json.dumps(figures_of(full)["behaviour"]["data"])


def test_results_about_different_checkpoints_are_reported(make: SimpleNamespace) -> None:
    other = {"adapted": CheckpointRef(path="models/adapted", identity="sha256:bb")}
    probe = make.probe().model_copy(update={"checkpoints": other})
    html = report(None, probe, make.behaviour(), None, cdn=True)
    assert "2 different checkpoints as adapted" in html
    assert "sha256:aa" in html
    assert "sha256:bb" in html
    assert "different checkpoints" not in report(None, make.probe(), make.behaviour(), None, cdn=True)


def test_of_one_request_the_page_gives_no_rate(make: SimpleNamespace) -> None:
    html = report(None, None, make.shrunk(make.behaviour(), 1), None, cdn=True)
    text = " ".join(" ".join(parsed(html).text).split())
    assert "1 harmful request was asked, and it takes 30" in text
    assert "one request: nothing can be said" in html
    assert set(re.findall(r"[\d.]+%|\d / \d|points", text)) <= {"95%"}  # of intervals, in how to read the page


def test_settings_and_notes_are_kept(make: SimpleNamespace) -> None:
    html = report(None, make.probe({"points": 5}), make.behaviour(), None, cdn=True)
    text = " ".join(parsed(html).text)
    assert '"points": 5' in text
    assert "a note of the probe" in text
    assert "a note of the evaluation" in text


def test_writing_is_all_or_nothing(make: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.html"
    path.write_text("the old one")

    def fail(*_: object) -> None:
        raise OSError("no room")

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", fail)
        with pytest.raises(OSError, match="no room"):
            write_report(path, None, None, make.behaviour(), None, cdn=True)
    assert path.read_text() == "the old one"
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    write_report(path, None, None, make.behaviour(), None, cdn=True)
    parsed(path.read_text(encoding="utf-8"))


def test_importing_the_report_brings_no_torch() -> None:
    code = (
        "import sys, vlsurgery.figures.report; sys.exit(any(name in sys.modules for name in ('torch', 'transformers')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_section_is_in_the_navigation_and_there(full: str) -> None:
    parts = re.findall(r'data-to="([^"]*)"', full)
    assert parts == ["verdict", *re.findall(r'<section id="([^"]*)"', full)]
    assert len(parts) >= 12
    assert all(full.count(f' id="{part}"') == 1 for part in parts)


def test_titles_are_text_that_wraps_and_not_part_of_the_drawing(full: str) -> None:
    figures = figures_of(full)
    titles = re.findall(r'<h3 id="title-([^"]*)">([^<]*)</h3>', full)
    assert dict(titles).keys() == figures.keys()
    assert all(title for _, title in titles)
    for figure in figures.values():
        assert "title" not in figure["layout"]
        assert figure["layout"]["height"] - figure["layout"]["margin"]["t"] - figure["layout"]["margin"]["b"] > 100


def test_a_subtitles_words_are_whole_and_unescaped_once(make: SimpleNamespace) -> None:
    figure = theme.frame(go.Figure(), "a < b & c", "d & e " * 60, 100)
    found = embed("x", figure, [])
    assert (found.title, found.subtitle) == ("a < b & c", ("d & e " * 60).strip())
    assert found.height < figure.layout.height - 60


def test_every_figure_has_its_numbers(full: str) -> None:
    """Beside the drawing, as the table that readers of text get and that is saved as CSV."""
    for anchor, figure in figures_of(full).items():
        assert figure["rows"], anchor
        assert f'id="numbers-{anchor}">Its numbers as a table, {len(figure["rows"])} lines<' in full


def test_every_axis_of_layers_is_linked(full: str) -> None:
    figures = figures_of(full)
    linked = {anchor: [each["axis"] for each in f["layout"]["meta"].get("layers", [])] for anchor, f in figures.items()}
    assert linked["safety-map"] == linked["coefficients"] == ["x"]
    assert linked["weight-change"] == linked["direction-drift"] == ["x", "x2"]
    (axis,) = figures["safety-map"]["layout"]["meta"]["layers"]
    seen = [trace for trace in figures["safety-map"]["data"] if trace.get("visible") is not False]
    bars = {text.split("<b>")[1].split(" ")[0]: x for trace in seen if trace["type"] == "bar"
            for x, text in zip(trace["x"], trace["hovertext"], strict=True)}  # fmt: skip
    assert bars == axis["places"]


def test_every_colour_of_every_figure_is_known_on_dark_paper(full: str, make: SimpleNamespace) -> None:
    figures = [*figures_of(full).values(), *figures_of(report(None, None, None, make.priced_tradeoff())).values()]
    found = {colour for figure in figures for colour in colours_in([figure[k] for k in ("data", "layout", "frames")])}
    kept = {*theme.ROLE_COLOURS.values(), *theme.SAFETY_SHADES, theme.UNKNOWN_ROLE, "#d98a3d", "#7fb5d1"}
    assert found - {*theme.DARK} - kept == set()
