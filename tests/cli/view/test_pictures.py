"""Pictures: whole files, drawn without a network, and one line that says what is missing."""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import plotly.graph_objects as go
import pytest

from vlsurgery.cli.view.pictures import check_pictures, write_pictures
from vlsurgery.figures.sections import Section
from vlsurgery.surgery.errors import SurgeryError, TargetError


def section(anchor: str, drawn: bool = True) -> Section:
    figure = go.Figure(go.Bar(x=[1], y=[2])).update_layout(height=300) if drawn else None
    return Section(anchor, anchor, "", figure, "", "", "")


class Fault(Exception):
    """Stands in for kaleido's own errors."""


@pytest.fixture
def kaleido(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A stand-in that writes what it was asked for, or fails as it is told to."""
    told = SimpleNamespace(orders=[], options=None, fault=None)

    def draw(orders: list[dict], cancel_on_error: bool, kopts: dict) -> None:
        told.orders, told.options = orders, kopts | {"cancel_on_error": cancel_on_error}
        for order in orders:
            order["path"].write_bytes(b"a picture")
            if told.fault:
                raise told.fault

    module = ModuleType("kaleido")
    module.__spec__ = SimpleNamespace(name="kaleido")
    module.write_fig_from_object_sync = draw
    names = ("ChromeNotFoundError", "BrowserClosedError", "BrowserFailedError", "KaleidoError")
    module.errors = SimpleNamespace(**{name: type(name, (Fault,), {}) for name in names})
    monkeypatch.setitem(sys.modules, "kaleido", module)
    told.errors = module.errors
    return told


def test_every_figure_is_a_file_and_nothing_is_fetched(kaleido: SimpleNamespace, tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "pictures"
    check_pictures(folder, "png")
    written = write_pictures(folder, "png", [section("a"), section("b", drawn=False), section("c")])
    assert written == [folder / "vlsurgery-a.png", folder / "vlsurgery-c.png"]
    assert sorted(folder.iterdir()) == written
    assert kaleido.options["mathjax"] is False
    assert kaleido.options["cancel_on_error"] is True
    assert [order["opts"]["format"] for order in kaleido.orders] == ["png", "png"]
    assert write_pictures(folder, "png", [section("a")]) == written[:1]  # again, over its own


def test_a_failure_leaves_the_old_pictures(kaleido: SimpleNamespace, tmp_path: Path) -> None:
    (tmp_path / "vlsurgery-a.svg").write_text("the old one")
    kaleido.fault = kaleido.errors.BrowserClosedError("it\nclosed.", "and more")
    with pytest.raises(SurgeryError, match=r"--svg: the browser failed to draw \(it closed\)\. Try the program"):
        write_pictures(tmp_path, "svg", [section("a"), section("b")])
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("vlsurgery-a.svg", "the old one")]


def test_without_a_browser_it_says_which_to_install(kaleido: SimpleNamespace, tmp_path: Path) -> None:
    kaleido.fault = kaleido.errors.ChromeNotFoundError()
    with pytest.raises(SurgeryError, match=r"--png: no browser was found.*Install Chrome or Chromium.*BROWSER_PATH="):
        write_pictures(tmp_path, "png", [section("a")])


def test_without_the_extra_it_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("vlsurgery.cli.view.pictures.find_spec", lambda _: None)
    with pytest.raises(SurgeryError, match=r"--png: .*kaleido, which is not installed.*pip install 'vlsurgery\[png\]'"):
        check_pictures(tmp_path / "x", "png")


def test_nothing_is_written_over_or_through(kaleido: SimpleNamespace, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(TargetError, match="is a file, expected a folder"):
        check_pictures(tmp_path / "file", "png")
    (tmp_path / "vlsurgery-a.png").symlink_to(tmp_path / "file")
    with pytest.raises(TargetError, match="is a link"):
        write_pictures(tmp_path, "png", [section("a")])
    assert (tmp_path / "file").read_text() == "mine"
