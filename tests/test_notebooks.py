"""The notebooks as they are committed: without outputs, and with nothing in them that hangs on one machine.

tests/test_demo.py runs them, on the case that it makes.
"""

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest

NOTEBOOKS = sorted((Path(__file__).parent.parent / "docs").glob("*.ipynb"))


def cells(path: Path, kind: str) -> list[dict[str, Any]]:
    found = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in found if cell["cell_type"] == kind]


def test_both_are_there() -> None:
    assert [path.name for path in NOTEBOOKS] == ["newcomer.ipynb", "researcher.ipynb"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_committed_without_outputs(path: Path) -> None:
    for cell in cells(path, "code"):
        assert (cell["outputs"], cell["execution_count"], cell["metadata"]) == ([], None, {})
    assert "/root" not in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_step_is_explained_and_shows_something(path: Path) -> None:
    """Beside every code cell that begins a step stands a text, and every one but those that define ends in a value."""
    found = json.loads(path.read_text(encoding="utf-8"))["cells"]
    assert found[0]["cell_type"] == "markdown"
    assert len(cells(path, "markdown")) >= 0.6 * len(cells(path, "code"))
    for cell in cells(path, "code")[1:]:
        last = ast.parse("".join(cell["source"])).body[-1]
        assert isinstance(last, ast.Expr | ast.For), "".join(cell["source"])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_other_documents_that_a_notebook_names_are_there(path: Path) -> None:
    for cell in cells(path, "markdown"):
        for name in re.findall(r"docs/[\w.]+", "".join(cell["source"])):
            assert (path.parent.parent / name).is_file()
