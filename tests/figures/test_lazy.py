"""The figures are attributes of `vlsurgery.figures`, and plotly is imported with the first of them."""

import subprocess
import sys
from pathlib import Path

import pytest

from vlsurgery import figures

PROGRAM = """
import sys, vlsurgery
vlsurgery.figures
assert "plotly" not in sys.modules
assert all(callable(getattr(vlsurgery.figures, name).plot) for name in vlsurgery.figures.__all__ if name != "report")
assert callable(vlsurgery.figures.report.write_report)
assert "plotly" in sys.modules
"""


def test_import_vlsurgery_alone_reaches_every_figure_and_plotly_comes_with_the_first(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_an_unknown_figure_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'pie'"):
        _ = figures.pie
