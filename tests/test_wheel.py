"""What pip installs: one package, all of it, which works beside other people's modules of our rooms' names."""

import json
import os
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from vlsurgery.cli.version import COMMIT_FILE

HOUSE = Path(__file__).parent.parent
ROOMS = ("surgery", "probes", "figures", "cli")
DECOY = 'raise AssertionError("somebody else\'s module was imported in place of ours")\n'


@dataclass(frozen=True)
class Built:
    """What one commit of the sources builds. again: the wheel that the source distribution builds, without history."""

    commit: str
    sdist: Path
    wheel: Path
    again: Path


BUILD = """
import sys
from setuptools import build_meta
out = sys.argv[1]  # which a build changes
print(build_meta.build_sdist(out), build_meta.build_wheel(out))
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Built from a copy that is a repository of its own: a build leaves files behind."""
    copy, out, again = (tmp_path_factory.mktemp(name) for name in ("copy", "built", "again"))
    files = subprocess.run(["git", "ls-files", "-z"], cwd=HOUSE, capture_output=True, check=True).stdout
    for name in files.decode().rstrip("\0").split("\0"):
        if (HOUSE / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes((HOUSE / name).read_bytes())
    git = ["git", "-C", copy, "-c", "user.name=A", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
    for words in (("init", "-q"), ("add", "."), ("commit", "-qm", "all")):
        subprocess.run([*git, *words], check=True)
    told = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    sdist, wheel = (out / name for name in run(copy, sys.executable, "-c", BUILD, out).split()[-2:])
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation")
    run(again, *pip, "-w", again, sdist)
    return Built(told, sdist, wheel, next(again.glob("*.whl")))


@pytest.fixture(scope="module")
def wheel(built: Built) -> Path:
    return built.wheel


@pytest.fixture(scope="module")
def programs(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of a fresh environment with the wheel in it, beside other people's `cli` and `figures`. It borrows
    what the package depends on from this environment, but not this checkout."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    install = [sys.executable, "-m", "pip", "--python", folder / "bin" / "python", "install", "--quiet", "--no-deps"]
    subprocess.run([*install, wheel], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib"))
    for room in ("cli", "figures"):
        (site / room).mkdir()
        (site / room / "__init__.py").write_text(DECOY)
    return folder / "bin"


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A folder of somebody's own, with files that are called as our rooms are."""
    for room in ROOMS:
        (tmp_path / f"{room}.py").write_text(DECOY)
    return tmp_path


def run(folder: Path, *command: str | Path) -> str:
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_wheel_holds_one_package_and_all_of_it(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if not name.endswith("/")}
    assert {name.split("/")[0].partition("-")[0] for name in names} == {"vlsurgery"}
    for room in ROOMS:
        for path in (HOUSE / room).rglob("*"):
            if path.is_file() and path.suffix not in (".pyc", ".nbi", ".nbc", ".png"):
                assert f"vlsurgery/{path.relative_to(HOUSE)}" in names
    assert {"vlsurgery/py.typed", f"vlsurgery/cli/{COMMIT_FILE}"} <= names
    assert not any(name.endswith(".png") for name in names)


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as files:
        return {name: files.read(name) for name in files.namelist()}


def test_the_source_distribution_builds_the_same_wheel_without_the_repository(built: Built) -> None:
    assert contents(built.again) == contents(built.wheel)
    with tarfile.open(built.sdist) as files:
        names = {name.partition("/")[2] for name in files.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", f"cli/{COMMIT_FILE}", "surgery/results.py"} <= names
    assert not any(name.startswith(".") for name in names)


def test_every_folder_of_code_is_a_listed_package() -> None:
    """Without its `__init__.py`, or its line in pyproject.toml, a folder would be left out in silence."""
    folders = {path.parent for room in ROOMS for path in (HOUSE / room).rglob("*.py")}
    packages = tomllib.loads((HOUSE / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    listed = {".".join(["vlsurgery", *folder.relative_to(HOUSE).parts]) for folder in folders} | {"vlsurgery"}
    assert set(packages) == listed
    assert all((folder / "__init__.py").is_file() for folder in folders)


def test_it_tells_its_commit_from_an_empty_folder(built: Built, programs: Path, tmp_path: Path) -> None:
    version = tomllib.loads((HOUSE / "pyproject.toml").read_text())["project"]["version"]
    assert run(tmp_path, programs / "vlsurgery", "--version") == f"vlsurgery {version} (commit {built.commit[:12]})\n"
    assert not [*tmp_path.iterdir()]


def test_it_works_beside_decoys_from_an_unrelated_folder(
    programs: Path, elsewhere: Path, write: Callable[..., Path], llama: Callable[..., object]
) -> None:
    for seed, role in enumerate(("llama", "llava")):
        write(elsewhere / role, llama(seed))
    assert "vlsurgery diff BASE ADAPTED" in run(elsewhere, programs / "vlsurgery", "--help")
    told = json.loads(run(elsewhere, programs / "vlsurgery", "diff", "llama", "llava", "--level", "norms", "--json"))
    script = (
        "import json, vlsurgery; result = vlsurgery.diff('llama/', 'llava/', level='norms'); "
        "print(json.dumps([vlsurgery.__file__, len(result.pairs)]))"
    )
    home, pairs = json.loads(run(elsewhere, programs / "python", "-c", script))
    assert Path(home).is_relative_to(programs.parent)
    assert pairs == len(told["pairs"]) == len(llama(0))  # type: ignore[arg-type]
