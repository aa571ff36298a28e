"""What building a wheel or a source distribution adds to the files: the commit that they come from.

Named in pyproject.toml and run by setuptools from the sources alone, where the package is not installed: so it imports
nothing of ours.
"""

import runpy
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

VERSION: Final = runpy.run_path(str(Path(__file__).with_name("version.py")))


class BuildWithCommit(build_py):
    """Copies the modules, and writes the commit beside `cli/version.py`."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:  # an editable install asks git whenever it is asked
            write_commit(Path(self.build_lib) / "vlsurgery" / "cli")


class SdistWithCommit(sdist):
    """Copies the sources, and writes the commit beside `cli/version.py`: without their history nothing else tells."""

    def make_release_tree(self, base_dir: str, files: Sequence[str]) -> None:
        super().make_release_tree(base_dir, files)
        write_commit(Path(base_dir) / "cli")


def write_commit(folder: Path) -> None:
    """Write the sources' commit into a folder; what an earlier build left there goes where nothing tells it."""
    file, found = folder / VERSION["COMMIT_FILE"], VERSION["source_commit"]()
    file.unlink(missing_ok=True)
    if found is not None:
        file.write_text(f"{found}\n", encoding="utf-8")
