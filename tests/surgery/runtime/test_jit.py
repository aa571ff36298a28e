"""Compiled loops come from the cache until their source changes, or that of the helpers which they share."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from vlsurgery.surgery.diff import kernels
from vlsurgery.surgery.runtime import jit

SUM_OF_SQUARES = """
import numpy as np
from vlsurgery.surgery.diff.kernels import squares
total = squares(np.full(4, 3, np.float32))
print(total, sum(squares.stats.cache_hits.values()), sum(squares.stats.cache_misses.values()))
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of the shared helpers, and of a file of loops that call them."""
    for module in (jit, kernels):
        path = Path(tmp_path, *module.__name__.split(".")).with_suffix(".py")
        path.parent.mkdir(parents=True)
        shutil.copy(module.__file__, path)
    return tmp_path


def run(package: Path) -> list[float]:
    """The sum, and how often the loop was taken from the cache and compiled."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("NUMBA_")}
    command = [sys.executable, "-P", "-c", SUM_OF_SQUARES]
    environment |= {"PYTHONPATH": str(package), "PYTHONDONTWRITEBYTECODE": "1"}
    return [float(word) for word in subprocess.check_output(command, env=environment, text=True).split()]


def test_the_second_process_compiles_nothing(package: Path) -> None:
    assert run(package) == [36, 0, 1]
    assert run(package) == [36, 1, 0]


def test_an_edit_of_a_shared_helper_reaches_the_loops_of_other_files(package: Path) -> None:
    """Though it leaves the time of the helper's file as they were."""
    assert run(package) == [36, 0, 1]
    path = package / "vlsurgery" / "surgery" / "runtime" / "jit.py"
    before, stat = path.read_text(encoding="utf-8"), path.stat()
    after = before.replace("return lambda entry: entry\n", "return lambda entry: entry + 1\n")
    assert after != before
    path.write_text(after, encoding="utf-8")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert run(package) == [64, 0, 1]
    assert run(package) == [64, 1, 0]
