"""Where the weights come from, and what is said where they come from nowhere."""

from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from vlsurgery.probes.specimens.smollm2 import source
from vlsurgery.surgery.errors import CheckpointError


def offline(_name: object) -> Path:
    raise CheckpointError("no answer")


def test_the_hub_is_copied_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    (tmp_path / "blob").write_text("{}")
    (snapshot / "config.json").symlink_to(tmp_path / "blob")
    monkeypatch.setattr(source, "download", lambda _name: snapshot)
    found = source.find(tmp_path / "cache")
    assert found.name == "source-hub"
    assert not (found / "config.json").is_symlink()
    monkeypatch.setattr(source, "download", offline)
    assert source.find(tmp_path / "cache") == found
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["source-hub"]


def test_the_package_is_read_where_the_hub_is_silent_and_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = ModuleSpec(source.PACKAGE, None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path / "package")]
    asked: list[tuple[Path, Path]] = []
    monkeypatch.setattr(source, "download", offline)
    monkeypatch.setattr(source, "find_spec", lambda _name: spec)
    monkeypatch.setattr(source, "convert", lambda file, out: asked.append((file, out)))
    assert source.find(tmp_path / "cache").name == "source-gguf"
    assert asked == [(tmp_path / "package" / source.FILE, tmp_path / "cache" / "source-gguf")]


def test_without_both_one_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "download", offline)
    monkeypatch.setattr(source, "find_spec", lambda _name: None)
    with pytest.raises(CheckpointError) as caught:
        source.find(tmp_path)
    told = str(caught.value)
    assert "\n" not in told
    assert all(part in told for part in (source.MODEL, "no answer", source.HOW))
