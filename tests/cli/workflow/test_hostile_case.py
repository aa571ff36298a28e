"""A case.json that was changed by hand, or cut: one error that names the file, never a bug."""

import json
from pathlib import Path
from typing import Any

import pytest

from vlsurgery.cli.workflow.case import Case
from vlsurgery.surgery.errors import SurgeryError

REF = {"path": "/nowhere", "identity": "sha256:0"}
STEP = {"order": 1, "finished": "", "identities": {}}
BOTH = {"base": REF, "adapted": REF}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"checkpoints": {"base": REF}}, "has no adapted, only base"),
        ({"checkpoints": {"x": REF}}, "has no base and no adapted"),
        ({"checkpoints": {}}, "names no checkpoints"),
        ({"checkpoints": BOTH, "steps": {"merge": {**STEP, "settings": {"out": 5}}}}, "expected a str, found 5"),
        ({"checkpoints": BOTH, "steps": {"diff": {**STEP, "settings": {"uses": "x"}}}}, "expected a list"),
        ([], "not a readable case result"),
        ({"checkpoints": {"base": 5}}, "not a readable case result"),
    ],
)
def test_a_strange_case_is_named(tmp_path: Path, content: Any, said: str) -> None:
    (tmp_path / "case.json").write_text(json.dumps(content))
    with pytest.raises(SurgeryError, match=said) as caught:
        Case.open(tmp_path)
    assert "case.json" in str(caught.value)
    assert "\n" not in str(caught.value)
