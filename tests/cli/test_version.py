"""`--version`: the version of pyproject.toml, and the commit wherever something tells it."""

import subprocess
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from typer.testing import CliRunner

from vlsurgery.cli import version
from vlsurgery.cli.main import app

HOUSE = Path(__file__).parents[2]
PROJECT = '[project]\nname = "vlsurgery"\nversion = "7.8.9"\n'


def git(folder: Path, *words: str) -> str:
    identity = ("-c", "user.name=A", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false")
    done = subprocess.run(["git", "-C", folder, *identity, *words], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of sources that the package is taken to run from, without history."""
    (tmp_path / "cli").mkdir()
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    monkeypatch.setattr(version, "HERE", tmp_path / "cli")
    return tmp_path


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package folder as a wheel leaves it, within somebody's own repository; its note on where it came from."""
    git(tmp_path, "init", "-q")
    home = tmp_path / "site-packages" / "vlsurgery" / "cli"
    home.mkdir(parents=True)
    note = home.parents[1] / "vlsurgery-7.8.9.dist-info"
    note.mkdir()
    (note / "METADATA").write_text("Metadata-Version: 2.1\nName: vlsurgery\nVersion: 7.8.9\n")
    monkeypatch.setattr(version, "HERE", home)
    monkeypatch.setattr(metadata, "distribution", lambda _: metadata.PathDistribution(note))
    return note


def history(folder: Path) -> str:
    """Make the folder a repository with one commit and a tag on it; the commit."""
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "first")
    git(folder, "tag", "v7")
    return git(folder, "rev-parse", "HEAD")


def test_this_checkout_tells_its_own() -> None:
    head, changed = git(HOUSE, "rev-parse", "HEAD"), git(HOUSE, "status", "--porcelain", "-uno")
    expected = tomllib.loads((HOUSE / "pyproject.toml").read_text())["project"]["version"]
    shown = CliRunner().invoke(app, ["--version"])
    assert shown.stdout == f"vlsurgery {expected} (commit {head[:12]}{'-dirty' if changed else ''})\n"


def test_a_checkout_tells_its_commit_and_whether_files_differ(sources: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    head = history(sources)
    monkeypatch.setenv("GIT_DIR", str(HOUSE / ".git"))  # as git sets it for its hooks
    assert version.version_line() == f"vlsurgery 7.8.9 (commit {head[:12]})"
    (sources / "pyproject.toml").write_text(PROJECT + "# changed\n")
    assert version.commit() == f"{head[:12]}-dirty"


def test_what_an_earlier_build_wrote_is_not_the_commit_of_a_checkout(sources: Path) -> None:
    (sources / "cli" / version.COMMIT_FILE).write_text("0123456789ab\n")
    assert version.commit() == "0123456789ab"  # an unpacked source distribution
    head = history(sources)
    assert version.commit() == head[:12]


def test_sources_without_history_and_without_git_say_so(sources: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(version, "PACKAGE", "not-installed-here")
    assert version.version_line().endswith("7.8.9 (commit unknown)")
    history(sources)
    monkeypatch.setenv("PATH", str(sources / "nothing"))
    assert version.commit() is None


def test_an_installed_package_tells_what_was_noted_and_not_the_repository_around_it(installed: Path) -> None:
    assert version.version_line() == "vlsurgery 7.8.9 (commit unknown)"
    (installed / "direct_url.json").write_text('{"url": "file:///here", "dir_info": {"editable": true}}')
    assert version.commit() is None
    noted = (
        '{"url": "https://h/r", "vcs_info": {"vcs": "git", "commit_id": "0123456789abcdef0123456789abcdef01234567"}}'
    )
    (installed / "direct_url.json").write_text(noted)
    assert version.commit() == "0123456789ab"
    (version.HERE / version.COMMIT_FILE).write_text("fedcba987654\n")
    assert version.commit() == "fedcba987654"  # the build knows whether files differed
