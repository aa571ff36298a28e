"""Which version of the package runs, and which commit it was made from."""

import json
import os
import subprocess
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Final

PACKAGE: Final = "vlsurgery"
HERE: Final = Path(__file__).resolve().parent
COMMIT_FILE: Final = "commit.txt"
"""Beside this file in wheels and source distributions; `cli.building` writes it."""


def version_line() -> str:
    """The version and the commit as one line: "vlsurgery 0.1.0 (commit 5a4565125cf4)"."""
    return f"{PACKAGE} {version()} (commit {commit() or 'unknown'})"


def version() -> str:
    """The version that pyproject.toml gives: read from there in a checkout, else from what was installed."""
    project = HERE.parent / "pyproject.toml"
    if project.is_file():
        told: str = tomllib.loads(project.read_text(encoding="utf-8"))["project"]["version"]
        return told
    return metadata.version(PACKAGE)


def commit() -> str | None:
    """The first twelve digits of the commit, with "-dirty" behind them where files differ from it; None where nothing
    tells: a copy of the sources without their history, or a checkout on a machine without git."""
    return source_commit() or _installed_commit()


def source_commit() -> str | None:
    """The commit of the folder that this file lies in: of a checkout by git, else as it was written at build."""
    root = HERE.parent
    if (root / "pyproject.toml").is_file() and (root / ".git").exists():
        return _described(root)
    written = HERE / COMMIT_FILE
    return written.read_text(encoding="utf-8").strip() if written.is_file() else None


def _described(checkout: Path) -> str | None:
    """The commit of a checkout by git; None where git is missing or can't read it."""
    # git runs hooks for others with variables that name another repository. The checkout's owner is trusted: its code
    # is running.
    env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    trust = f"safe.directory={checkout}"
    describe = ["git", "-C", str(checkout), "-c", trust, "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run([*describe, "--exclude=*"], env=env, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None


def _installed_commit() -> str | None:
    """The commit that an installer noted (PEP 610: `pip install git+URL`)."""
    try:
        told = metadata.distribution(PACKAGE).read_text("direct_url.json")
    except metadata.PackageNotFoundError:
        return None
    found = json.loads(told or "{}").get("vcs_info", {}).get("commit_id")
    return None if found is None else str(found)[:12]
